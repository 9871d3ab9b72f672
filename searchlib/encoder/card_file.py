"""Reading model cards: every field asked for by its type, and named where it is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from searchlib.encoder.card import (
    Channels,
    Interpolation,
    ModelCard,
    Preprocessing,
    Resize,
    TextCard,
    Triple,
)
from searchlib.errors import CardError

BUILT_IN = "tiny-vit-5m"
SHIPPED = Path(__file__).parent / "models"


def built_in_card() -> ModelCard:
    """The card of the encoder that comes with the package."""
    return load_card(SHIPPED / BUILT_IN / "card.toml")


def load_card(path: Path) -> ModelCard:
    """Read the card of an image model.

    Raises:
        CardError: the card is missing, is not TOML, lacks a field or has a wrong one, or is of a
            text model; the message names the card and the field.
    """
    card = load_any_card(path)
    if not isinstance(card, ModelCard):
        raise CardError(f"{path}: {card.name} is a text model; name an image model")
    return card


def load_text_card(path: Path) -> TextCard:
    """Read the card of a text model.

    Raises:
        CardError: as for `load_card`.
    """
    card = load_any_card(path)
    if not isinstance(card, TextCard):
        raise CardError(f"{path}: {card.name} is an image model; name a text model")
    return card


def load_any_card(path: Path) -> ModelCard | TextCard:
    """Read the card of an image or a text model.

    Raises:
        CardError: as for `load_card`.
    """
    try:
        with path.open("rb") as file:
            table = _Table(path, "", tomllib.load(file))
    except OSError as error:
        raise CardError(f"{path}: the model card cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: the model card is not valid TOML: {error}") from error
    url = table.url("url")
    common: dict[str, Any] = {
        "name": table.text("name"),
        "summary": table.text("summary"),
        "path": path.parent / table.file_name("file"),
        "url": url,
        "sha256": table.sha256("sha256", optional=url is not None),
        "bytes": table.count("bytes") if url is None or "bytes" in table else None,
        "about_bytes": table.count("about_bytes") if "about_bytes" in table else None,
        "dimension": table.count("dimension"),
        "licence": table.text("licence"),
        "source": table.text("source"),
    }
    if table.choice("kind", "image", "text", default="image") == "text":
        return _text_card(table.table("text"), path, common)
    return ModelCard(
        **common,
        text_model=table.text("text_model") if "text_model" in table else None,
        preprocessing=_preprocessing(table.table("preprocessing")),
    )


def _text_card(spec: _Table, path: Path, common: dict[str, Any]) -> TextCard:
    url = spec.url("tokenizer_url")
    return TextCard(
        **common,
        tokenizer=path.parent / spec.file_name("tokenizer"),
        tokenizer_url=url,
        tokenizer_sha256=spec.sha256("tokenizer_sha256", optional=url is not None),
        max_tokens=spec.count("max_tokens"),
    )


def _preprocessing(spec: _Table) -> Preprocessing:
    interpolation = cast(Interpolation, spec.choice("interpolation", "bilinear", "bicubic"))
    antialias = spec.truth("antialias", default=True)
    if not antialias and interpolation != "bilinear":
        raise spec.wrong("antialias", "true, or the interpolation bilinear")
    return Preprocessing(
        width=spec.count("width"),
        height=spec.count("height"),
        resize=cast(Resize, spec.choice("resize", "squash", "crop", "pad")),
        interpolation=interpolation,
        mean=spec.triple("mean"),
        std=spec.triple("std", valid=lambda v: v > 0, words="three numbers above 0"),
        antialias=antialias,
        channels=cast(Channels, spec.choice("channels", "RGB", "BGR", default="RGB")),
        padding=spec.triple(
            "padding",
            valid=lambda v: 0 <= v <= 1,
            words="three numbers of 0 to 1",
            default=(0,) * 3,
        ),
    )


class _Table:
    """A TOML table whose fields are asked for by type, and named when they are wrong."""

    def __init__(self, path: Path, prefix: str, values: Mapping[str, Any]) -> None:
        self._path = path
        self._prefix = prefix
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def wrong(self, key: str, expected: str) -> CardError:
        found = "is missing" if key not in self._values else f"is {self._values[key]!r}"
        return CardError(f"{self._path}: {self._prefix}{key} {found}; it must be {expected}")

    def _get(
        self, key: str, expected: str, valid: Callable[[Any], bool], default: Any = None
    ) -> Any:
        value = self._values.get(key, default)
        if value is None or not valid(value):
            raise self.wrong(key, expected)
        return value

    def text(self, key: str) -> str:
        return str(self._get(key, "a text", lambda v: isinstance(v, str) and v.strip() != ""))

    def file_name(self, key: str) -> str:
        def valid(value: Any) -> bool:
            return isinstance(value, str) and value == Path(value).name != ""

        return str(self._get(key, "the name of a file beside the card", valid))

    def url(self, key: str) -> str | None:
        if key not in self._values:
            return None
        return str(self._get(key, "a URL", lambda v: isinstance(v, str) and "://" in v))

    def sha256(self, key: str, *, optional: bool) -> str | None:
        if optional and key not in self._values:
            return None

        def valid(value: Any) -> bool:
            return isinstance(value, str) and len(value) == 64 and not set(value) - _HEX

        return str(self._get(key, "64 lower-case hex digits", valid))

    def count(self, key: str) -> int:
        return int(self._get(key, "a whole number above 0", lambda v: type(v) is int and v > 0))

    def truth(self, key: str, *, default: bool) -> bool:
        return bool(self._get(key, "true or false", lambda v: type(v) is bool, default))

    def choice(self, key: str, *options: str, default: str | None = None) -> str:
        expected = " or ".join(f'"{option}"' for option in options)
        return str(self._get(key, expected, lambda v: v in options, default))

    def triple(
        self,
        key: str,
        *,
        valid: Callable[[float], bool] = lambda _: True,
        words: str = "three numbers",
        default: tuple[float, ...] | None = None,
    ) -> Triple:
        def three(value: Any) -> bool:
            return (
                isinstance(value, (list, tuple))
                and len(value) == 3
                and all(type(v) in (int, float) and abs(v) < _HUGE and valid(v) for v in value)
            )

        red, green, blue = self._get(key, words, three, default)
        return float(red), float(green), float(blue)

    def table(self, key: str) -> _Table:
        values = self._get(key, "a table", lambda v: isinstance(v, dict))
        return _Table(self._path, f"{key}.", values)


_HEX = frozenset("0123456789abcdef")
_HUGE = 1e30
