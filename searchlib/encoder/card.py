"""Model cards: what a model is, where it comes from and how a picture is prepared for it.

A card is a TOML file beside the model's `.pte` file:

    name = "tiny-vit-5m"
    summary = "one line"
    file = "tiny-vit-5m-int8.pte"
    sha256 = "64 hex digits"
    bytes = 11266048
    dimension = 320
    licence = "MIT"
    source = "where the weights come from"

    [preprocessing]
    width = 224
    height = 224
    resize = "squash"            # straight to width x height; "crop" keeps the middle
    interpolation = "bicubic"    # or "bilinear"; both with antialiasing
    mean = [0.0, 0.0, 0.0]       # of values 0..1, subtracted before the model
    std = [1.0, 1.0, 1.0]        # and divided by; 0 and 1 where the model does it itself
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from searchlib.errors import CardError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Resize = Literal["squash", "crop"]
Interpolation = Literal["bilinear", "bicubic"]
Triple = tuple[float, float, float]

BUILT_IN = "tiny-vit-5m"
_MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an upright RGB picture becomes the model's input of 3 x height x width.

    Attributes:
        width, height: of the model's input, in pixels.
        resize: "squash" goes straight to width x height, "crop" scales the shorter side and cuts
            the middle out.
        interpolation: of the resize, always with antialiasing.
        mean, std: for red, green and blue on the scale 0..1: (value - mean) / std.
    """

    width: int
    height: int
    resize: Resize
    interpolation: Interpolation
    mean: Triple
    std: Triple


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model without opening it.

    Attributes:
        name: as a user names it.
        summary: what it is, in a line.
        path: the `.pte` file.
        sha256: of that file, 64 hex digits.
        bytes: its length.
        dimension: the length of its vectors.
        licence: of the weights.
        source: where the weights come from.
        preprocessing: part of the model; another one gives other vectors.
    """

    name: str
    summary: str
    path: Path
    sha256: str
    bytes: int
    dimension: int
    licence: str
    source: str
    preprocessing: Preprocessing

    @property
    def identity(self) -> str:
        """64 hex digits that two models share only if their vectors may be compared.

        The SHA-256 of the `.pte` file's SHA-256 and the preprocessing as canonical JSON.
        """
        spec = json.dumps(asdict(self.preprocessing), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{self.sha256}\n{spec}".encode()).hexdigest()


def built_in_card() -> ModelCard:
    """The card of the encoder that comes with the package."""
    return load_card(_MODELS / BUILT_IN / "card.toml")


def load_card(path: Path) -> ModelCard:
    """Read a model card.

    Raises:
        CardError: the card is missing, is not TOML, or lacks a field or has a wrong one; the
            message names the card and the field.
    """
    try:
        with path.open("rb") as file:
            table = _Table(path, "", tomllib.load(file))
    except OSError as error:
        raise CardError(f"{path}: the model card cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: the model card is not valid TOML: {error}") from error
    spec = table.table("preprocessing")
    sha256 = table.text("sha256")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise table.wrong("sha256", "64 lower-case hex digits")
    return ModelCard(
        name=table.text("name"),
        summary=table.text("summary"),
        path=path.parent / table.text("file"),
        sha256=sha256,
        bytes=table.count("bytes"),
        dimension=table.count("dimension"),
        licence=table.text("licence"),
        source=table.text("source"),
        preprocessing=Preprocessing(
            width=spec.count("width"),
            height=spec.count("height"),
            resize=cast(Resize, spec.choice("resize", "squash", "crop")),
            interpolation=cast(Interpolation, spec.choice("interpolation", "bilinear", "bicubic")),
            mean=spec.triple("mean"),
            std=spec.triple("std", positive=True),
        ),
    )


class _Table:
    """A TOML table whose fields are asked for by type, and named when they are wrong."""

    def __init__(self, path: Path, prefix: str, values: Mapping[str, Any]) -> None:
        self._path = path
        self._prefix = prefix
        self._values = values

    def wrong(self, key: str, expected: str) -> CardError:
        found = "is missing" if key not in self._values else f"is {self._values[key]!r}"
        return CardError(f"{self._path}: {self._prefix}{key} {found}; it must be {expected}")

    def _get(self, key: str, expected: str, valid: Callable[[Any], bool]) -> Any:
        value = self._values.get(key)
        if value is None or not valid(value):
            raise self.wrong(key, expected)
        return value

    def text(self, key: str) -> str:
        return str(self._get(key, "a text", lambda v: isinstance(v, str) and v.strip() != ""))

    def count(self, key: str) -> int:
        return int(self._get(key, "a whole number above 0", lambda v: type(v) is int and v > 0))

    def choice(self, key: str, *options: str) -> str:
        expected = " or ".join(f'"{option}"' for option in options)
        return str(self._get(key, expected, lambda v: v in options))

    def triple(self, key: str, *, positive: bool = False) -> Triple:
        def valid(value: Any) -> bool:
            return (
                isinstance(value, list)
                and len(value) == 3
                and all(type(v) in (int, float) and (v > 0 or not positive) for v in value)
            )

        red, green, blue = self._get(key, "three numbers" + (" above 0" if positive else ""), valid)
        return float(red), float(green), float(blue)

    def table(self, key: str) -> _Table:
        values = self._get(key, "a table", lambda v: isinstance(v, dict))
        return _Table(self._path, f"{key}.", values)
