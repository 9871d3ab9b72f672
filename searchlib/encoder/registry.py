"""The models that can be named: built in, downloaded, and a user's own.

    $SEARCHLIB_MODELS, else
    the user's cache folder/models/NAME/    what was downloaded: card.toml and the files it names
    the user's data folder/models/NAME/     custom models, which nothing could bring back

The card of a downloaded model is written when its files are complete, with their SHA-256 and
length. It stays when the files are removed: a later download must match it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from searchlib.encoder.card import ModelCard, TextCard, card_as_toml
from searchlib.encoder.card_file import BUILT_IN, SHIPPED, load_any_card
from searchlib.encoder.contract import verify_model_file
from searchlib.errors import CardError, InputError, ModelFileError, ModelSourceError

logger = logging.getLogger(__name__)

ENVIRONMENT = "SEARCHLIB_MODELS"
CARD = "card.toml"
ALIASES = {"clip": "clip-vit-base-patch32-image-quantized"}
"""Short names; of the image model, with which its text model is meant too."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

AnyCard = ModelCard | TextCard
State = Literal["built in", "downloaded", "custom", "not downloaded"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A model that can be named.

    Attributes:
        card: of it.
        state: whether its files are there, and whose it is.
    """

    card: AnyCard
    state: State


def downloads_folder() -> Path:
    """Where downloaded models lie."""
    import platformdirs

    named = os.environ.get(ENVIRONMENT)
    return Path(named or Path(platformdirs.user_cache_dir("searchlib", appauthor=False)) / "models")


def custom_folder() -> Path:
    """Where custom models lie."""
    import platformdirs

    named = os.environ.get(ENVIRONMENT)
    return Path(named or Path(platformdirs.user_data_dir("searchlib", appauthor=False)) / "models")


def models() -> list[Listed]:
    """All models that can be named: those of the package, then the custom ones, by name."""
    shipped = [_shipped(path.parent.name) for path in sorted(SHIPPED.glob(f"*/{CARD}"))]
    listed = [
        Listed(card, _state(card)) for card in shipped if card is not None and card.name != BUILT_IN
    ]
    built_in = load_any_card(SHIPPED / BUILT_IN / CARD)
    return [
        Listed(built_in, "built in"),
        *listed,
        *(Listed(card, "custom") for card in _customs()),
    ]


def find(name: str) -> ModelCard:
    """The card of an image model by its name or alias; it need not be downloaded.

    Raises:
        ModelSourceError: there is none, or it is a text model; the message has the names.
        CardError: its card is damaged.
    """
    card = find_any(name)
    if not isinstance(card, ModelCard):
        raise ModelSourceError(f"{name} is a text model; {_choice(ModelCard)}")
    return card


def find_text(name: str) -> TextCard:
    """The card of a text model by its name, or by that of an image model that has one.

    Raises:
        ModelSourceError: there is none; the message has the names.
        CardError: its card is damaged.
    """
    card = find_any(name)
    if isinstance(card, ModelCard):
        if card.text_model is None:
            raise ModelSourceError(f"{name} has no text side; {_choice(TextCard)}")
        card = find_any(card.text_model)
    if not isinstance(card, TextCard):
        raise ModelSourceError(f"{name} has no text side; {_choice(TextCard)}")
    return card


def find_any(name: str) -> AnyCard:
    """The card of a model of either kind: see `find`."""
    name = ALIASES.get(name, name)
    card = None
    if NAME.fullmatch(name):
        card = _shipped(name)
        if card is None and (custom_folder() / name / CARD).is_file():
            card = load_any_card(custom_folder() / name / CARD)
    if card is None:
        raise ModelSourceError(f"there is no model {name!r}; {_choice(ModelCard, TextCard)}")
    return card


def card_for(identity: str) -> ModelCard | None:
    """The image model of an identity, None where none of those that are known has it."""
    for listed in models():
        card = listed.card
        if isinstance(card, ModelCard) and card.sha256 is not None and card.identity == identity:
            return card
    return None


def pull(
    card: AnyCard,
    *,
    on_progress: Callable[[float], None] | None = None,
    offline: bool = False,
) -> AnyCard:
    """Download what a model lacks.

    Args:
        card: from `find` or another of these functions.
        on_progress: called with 0 to 1, from this thread.
        offline: raise an error where something would be downloaded.

    Returns:
        The card with the SHA-256 and the length of its files.

    Raises:
        DownloadError: a file cannot be downloaded; see the errors for the reasons.
        ModelFileError: a file that belongs to the card is missing or damaged.
    """
    tell = on_progress or (lambda _: None)
    if card.url is None or card.installed:
        verify_model_file(card)
        tell(1.0)
        return card
    from searchlib.encoder.download import download

    folder = card.path.parent
    # The tokenizer is small beside the model: its download is not seen in the progress.
    if isinstance(card, TextCard) and card.tokenizer_url is not None:
        got = download(
            card.tokenizer_url,
            card.tokenizer,
            sha256=card.tokenizer_sha256,
            size=None,
            max_bytes=_MOST_TOKENIZER_BYTES,
            offline=offline,
        )
        card = dataclasses.replace(card, tokenizer_sha256=got.sha256)
    assert card.url is not None
    got = download(
        card.url,
        card.path,
        sha256=card.sha256,
        size=card.bytes,
        max_bytes=_most_bytes(card),
        on_progress=on_progress,
        offline=offline,
    )
    card = dataclasses.replace(card, sha256=got.sha256, bytes=got.bytes)
    write_card(card, folder / CARD)
    return card


def pull_file(
    url: str,
    *,
    on_progress: Callable[[float], None] | None = None,
    offline: bool = False,
) -> Path:
    """Download a `.pte` file that has no card, once for each URL.

    Args:
        url: https, or http of this machine.
        on_progress, offline: as for `pull`.

    Raises:
        DownloadError: it cannot be downloaded; see the errors for the reasons.
    """
    from searchlib.encoder.download import download

    folder = downloads_folder() / "by-url" / hashlib.sha256(url.encode()).hexdigest()[:16]
    return download(
        url,
        folder / (Path(urlsplit(url).path).name or "model.pte"),
        sha256=None,
        size=None,
        max_bytes=_MOST_MODEL_BYTES,
        on_progress=on_progress,
        offline=offline,
    ).path


def remove(name: str) -> bool:
    """Remove the files of a downloaded or custom model.

    Of a downloaded one the card stays, which a later download must match.

    Returns:
        Whether there was something to remove.

    Raises:
        ModelSourceError: there is no such model.
        InputError: the model is part of the package.
    """
    if NAME.fullmatch(name) and not (SHIPPED / name).exists():
        own = custom_folder() / name
        if (own / CARD).is_file():
            shutil.rmtree(own)
            return True
    card = find_any(name)
    if card.path.is_relative_to(SHIPPED):
        raise InputError(f"{card.name} is part of the package and cannot be removed")
    there = [file for file in files_of(card) if file.exists()]
    for file in [*there, *card.path.parent.glob("*.part*")]:
        file.unlink()
    return bool(there)


_MOST_TOKENIZER_BYTES = 100_000_000
_MOST_MODEL_BYTES = 10_000_000_000


def _most_bytes(card: AnyCard) -> int:
    if card.bytes is not None:
        return card.bytes
    return _MOST_MODEL_BYTES if card.about_bytes is None else 2 * card.about_bytes


def _shipped(name: str) -> AnyCard | None:
    """A card of the package; of a downloaded model the one that was written with its files."""
    path = SHIPPED / name / CARD
    if not path.is_file():
        return None
    card = load_any_card(path)
    if card.url is None:
        return card
    folder = downloads_folder() / name
    record = folder / CARD
    if record.is_file():
        try:
            recorded = load_any_card(record)
        except CardError as error:
            logger.warning("%s; download the model again", error)
        else:
            card = _pinned(card, recorded)
    return in_folder(card, folder)


def _pinned(card: AnyCard, recorded: AnyCard) -> AnyCard:
    """A card with the sums that a download of the same URL had."""
    if recorded.url != card.url:
        return card
    # What the package says of a model may have changed; its bytes may not.
    if isinstance(card, TextCard) and isinstance(recorded, TextCard):
        card = dataclasses.replace(card, tokenizer_sha256=recorded.tokenizer_sha256)
    return dataclasses.replace(card, sha256=recorded.sha256, bytes=recorded.bytes)


def _customs() -> Iterator[AnyCard]:
    for path in sorted(custom_folder().glob(f"*/{CARD}")):
        if (SHIPPED / path.parent.name).exists():
            continue
        try:
            yield load_any_card(path)
        except CardError as error:
            logger.warning("%s; run: searchlib models rm %s", error, path.parent.name)


def _state(card: AnyCard) -> State:
    return "downloaded" if card.installed else "not downloaded"


def files_of(card: AnyCard) -> list[Path]:
    """The files that a card names."""
    return [card.path, card.tokenizer] if isinstance(card, TextCard) else [card.path]


def in_folder(card: AnyCard, folder: Path) -> AnyCard:
    """The card of the same files in another folder."""
    if isinstance(card, TextCard):
        return dataclasses.replace(
            card, path=folder / card.path.name, tokenizer=folder / card.tokenizer.name
        )
    return dataclasses.replace(card, path=folder / card.path.name)


def _choice(*kinds: type[AnyCard]) -> str:
    names = [listed.card.name for listed in models() if isinstance(listed.card, kinds)]
    return f"known are {', '.join(names)}" if names else "none is known"


def write_card(card: AnyCard, path: Path) -> None:
    """Write a card whole or not at all.

    Raises:
        ModelFileError: it cannot be written.
    """
    try:
        # A name of its own: several processes may write the same card at once.
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f"{path.name}.part", delete=False
        ) as file:
            file.write(card_as_toml(card))
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}") from error
