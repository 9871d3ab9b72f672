"""Model cards: what a model is, where it comes from and how its input is prepared.

A card is a TOML file beside the model's `.pte` file. Of an image model:

    name = "tiny-vit-5m"
    summary = "one line"
    file = "tiny-vit-5m-int8.pte"
    url = "https://..."          # where the file is fetched from, if it does not come with the card
    sha256 = "64 hex digits"     # may be left out with a url: the first download is recorded
    bytes = 11266048             # likewise
    about_bytes = 11000000       # without bytes: about how long it is, to tell a user beforehand
    dimension = 320
    licence = "MIT"
    source = "where the weights come from"
    text_model = "name"          # optional: the model that puts words into the same space

    [preprocessing]
    width = 224
    height = 224
    resize = "squash"            # straight to width x height; "crop" keeps the middle, "pad" all
    interpolation = "bicubic"    # or "bilinear"
    antialias = true             # false: each pixel from its four neighbours, bilinear only
    channels = "RGB"             # or "BGR"
    padding = [0.0, 0.0, 0.0]    # the colour of "pad", red, green and blue of 0..1
    mean = [0.0, 0.0, 0.0]       # of values 0..1, subtracted before the model
    std = [1.0, 1.0, 1.0]        # and divided by; 0 and 1 where the model does it itself

`antialias`, `channels` and `padding` may be left out and are then as above. Of a text model the
card has `kind = "text"` and, in place of [preprocessing]:

    [text]
    tokenizer = "tokenizer.json"
    tokenizer_url = "https://..."      # as url above
    tokenizer_sha256 = "64 hex digits" # as sha256 above
    max_tokens = 77                    # longer texts are cut
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from searchlib.errors import ModelNotInstalledError

Resize = Literal["squash", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Channels = Literal["RGB", "BGR"]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an upright RGB picture becomes the model's input of 3 x height x width.

    Attributes:
        width, height: of the model's input, in pixels.
        resize: "squash" goes straight to width x height; "crop" brings the shorter side to the
            input's and cuts the middle out, as OpenAI's CLIP does; "pad" brings the longer side to
            the input's and puts the picture in the middle.
        interpolation: of the resize.
        mean, std: for red, green and blue on the scale 0..1: (value - mean) / std.
        antialias: whether a resize to a smaller size averages all pixels. Without, and bilinear,
            it is the default resize of OpenCV.
        channels: their order in the model's input.
        padding: the colour around a padded picture, red, green and blue on the scale 0..1.
    """

    width: int
    height: int
    resize: Resize
    interpolation: Interpolation
    mean: Triple
    std: Triple
    antialias: bool = True
    channels: Channels = "RGB"
    padding: Triple = (0.0, 0.0, 0.0)

    def canonical(self) -> str:
        """JSON that two preprocessings share only if they are the same.

        Fields that came later are left out where they have their default, so that a model keeps
        its identity when this class grows.
        """
        later = {
            field.name: field.default
            for field in dataclasses.fields(self)
            if field.default is not dataclasses.MISSING
        }
        spec = {
            name: value
            for name, value in asdict(self).items()
            if name not in later or value != later[name]
        }
        return json.dumps(spec, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known of a model without opening it.

    Attributes:
        name: as a user names it.
        summary: what it is, in a line.
        path: the `.pte` file; nothing need be there before a download.
        sha256: of that file, 64 hex digits; None where it is not known before the download.
        bytes: its length, or None likewise.
        dimension: the length of its vectors.
        licence: of the weights.
        source: where the weights come from.
        url: where the file is fetched from, or None where it comes with the card.
        about_bytes: about how long the file is, where `bytes` is not known.
    """

    name: str
    summary: str
    path: Path
    sha256: str | None
    bytes: int | None
    dimension: int
    licence: str
    source: str
    url: str | None = None
    about_bytes: int | None = None

    @property
    def installed(self) -> bool:
        """Whether the model's files are known and in place."""
        return self.sha256 is not None and self.path.is_file()

    def _identity(self, spec: str) -> str:
        if self.sha256 is None:
            raise ModelNotInstalledError(
                f"the model {self.name} is not downloaded; run: searchlib models pull {self.name}"
            )
        return hashlib.sha256(f"{self.sha256}\n{spec}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard(Card):
    """The card of an image model.

    Attributes:
        preprocessing: part of the model; another one gives other vectors.
        text_model: the name of the model that puts words into the same space, or None.
    """

    preprocessing: Preprocessing
    text_model: str | None = None

    @property
    def identity(self) -> str:
        """64 hex digits that two models share only if their vectors may be compared.

        The SHA-256 of the `.pte` file's SHA-256 and the preprocessing as canonical JSON.

        Raises:
            ModelNotInstalledError: the file's SHA-256 is not known before it is downloaded.
        """
        return self._identity(self.preprocessing.canonical())


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCard(Card):
    """The card of a text model.

    Attributes:
        tokenizer: the `tokenizer.json` of the `tokenizers` package.
        tokenizer_sha256: of that file, or None where it is not known before the download.
        tokenizer_url: where it is fetched from, or None where it comes with the card.
        max_tokens: longer texts are cut to this many tokens, the last one kept as their end.
    """

    tokenizer: Path
    tokenizer_sha256: str | None
    tokenizer_url: str | None = None
    max_tokens: int

    @property
    def installed(self) -> bool:
        """Whether the model's files are known and in place."""
        return (
            self.sha256 is not None
            and self.tokenizer_sha256 is not None
            and self.path.is_file()
            and self.tokenizer.is_file()
        )

    @property
    def identity(self) -> str:
        """64 hex digits of the `.pte` file, the tokenizer and the longest input.

        Raises:
            ModelNotInstalledError: as for ModelCard.
        """
        return self._identity(f"{self.tokenizer_sha256}\n{self.max_tokens}")


def card_as_toml(card: ModelCard | TextCard) -> str:
    """The text of a card, as `load_card` and `load_text_card` read it."""
    fields: dict[str, Any] = {
        "kind": "image" if isinstance(card, ModelCard) else "text",
        "name": card.name,
        "summary": card.summary,
        "file": card.path.name,
        "url": card.url,
        "sha256": card.sha256,
        "bytes": card.bytes,
        "about_bytes": card.about_bytes,
        "dimension": card.dimension,
        "licence": card.licence,
        "source": card.source,
    }
    table: dict[str, Any]
    if isinstance(card, ModelCard):
        fields["text_model"] = card.text_model
        heading, table = "preprocessing", asdict(card.preprocessing)
    else:
        heading = "text"
        table = {
            "tokenizer": card.tokenizer.name,
            "tokenizer_url": card.tokenizer_url,
            "tokenizer_sha256": card.tokenizer_sha256,
            "max_tokens": card.max_tokens,
        }
    return "\n".join([*_lines(fields), "", f"[{heading}]", *_lines(table)]) + "\n"


def _lines(fields: dict[str, Any]) -> list[str]:
    # Texts, numbers, truth values and lists of numbers are written alike in JSON and TOML, but
    # for DEL, which TOML wants escaped.
    return [
        f"{key} = {json.dumps(value)}".replace("\x7f", "\\u007F")
        for key, value in fields.items()
        if value is not None
    ]
