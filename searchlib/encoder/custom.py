"""Models of a user's own: a card and the files that it names, copied and tried."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from searchlib.encoder.card import ModelCard
from searchlib.encoder.card_file import SHIPPED, load_any_card
from searchlib.encoder.contract import verify_model_file
from searchlib.encoder.registry import (
    ALIASES,
    CARD,
    NAME,
    AnyCard,
    custom_folder,
    files_of,
    in_folder,
    pull,
    write_card,
)
from searchlib.errors import CardError, ModelFileError


def add(
    path: Path,
    *,
    on_progress: Callable[[float], None] | None = None,
    offline: bool = False,
) -> AnyCard:
    """Take over a custom model: copy its card and its files, and try it.

    Args:
        path: of the card, or the folder that holds a `card.toml`.
        on_progress, offline: as for `pull`, where the card has a url.

    Raises:
        CardError: the card is wrong or contradicts the model, or its name is taken.
        ModelFileError: a file is missing or has another SHA-256 than the card says.
        EncoderError: the model does not run or gives no usable vector.
        DownloadError: a file cannot be downloaded.
    """
    if path.is_dir():
        path = path / CARD
    card = load_any_card(path)
    if not NAME.fullmatch(card.name):
        raise CardError(
            f"{path}: name is {card.name!r}; it must be letters, digits, dots, dashes and "
            "underscores, so that it can be the name of a folder"
        )
    if card.name in ALIASES or (SHIPPED / card.name).exists():
        raise CardError(f"{path}: there is a model {card.name} already; give yours another name")
    target = custom_folder() / card.name
    if target.exists():
        raise CardError(
            f"{path}: there is a model {card.name} already; run searchlib models rm {card.name} "
            "first, or give this one another name"
        )
    _make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".adding-") as name:
        staging = Path(name) / card.name
        staging.mkdir()
        if card.url is None:
            verify_model_file(card)
        for file in files_of(card):
            if file.is_file():
                _copy(file, staging / file.name)
        staged = pull(in_folder(card, staging), on_progress=on_progress, offline=offline)
        try_out(staged)
        write_card(staged, staging / CARD)
        staging.replace(target)
    return in_folder(staged, target)


def try_out(card: AnyCard) -> None:
    """Embed something with a model that was never tried.

    Raises:
        EncoderError: see the errors for the reasons.
    """
    if isinstance(card, ModelCard):
        from searchlib.encoder.encoder import ImageEncoder

        ImageEncoder(card).embed(Image.linear_gradient("L").convert("RGB"))
    else:
        from searchlib.encoder.text import TextEncoder

        TextEncoder(card).embed("a photograph")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"{folder}: cannot be made: {error.strerror}") from error


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise ModelFileError(f"{source}: cannot be copied: {error.strerror}") from error
