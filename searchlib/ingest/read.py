"""One file to its vector: read, hash, look up, decode, embed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from searchlib.catalog import NewContent, ReadFile, SkippedFile, Stat
from searchlib.encoder import ImageEncoder
from searchlib.encoder.priority import give_way
from searchlib.errors import ImageError, OutputError
from searchlib.images import OpenedFile, open_file, write_thumbnail
from searchlib.ingest.place import facts_of, stat_of_opened
from searchlib.ingest.walk import Found


def read_file(
    found: Found,
    encoder: ImageEncoder,
    *,
    known: Callable[[bytes], bool],
    max_pixels: int,
    thumbnails: Path | None,
) -> ReadFile | SkippedFile:
    """Take a file all the way to what the catalog keeps of it.

    Args:
        found: the file.
        encoder: embeds what is new.
        known: tells whether a digest, 32 bytes, has a vector already.
        max_pixels: refuse a picture with more.
        thumbnails: the folder for them, None for none.

    Raises:
        EncoderError: the model cannot be used at all.
    """
    try:
        with open_file(found.path) as opened:
            try:
                return _take_in(found, opened, encoder, known, max_pixels, thumbnails)
            except ImageError as error:
                if not error.lasting:
                    raise
                reason = error.reason
            except OutputError as error:
                reason = str(error)
            return SkippedFile(found.path, _stat(found, opened), found.folder, reason)
    except ImageError as error:
        return SkippedFile(found.path, found.stat, found.folder, error.reason, "access")


def _take_in(
    found: Found,
    opened: OpenedFile,
    encoder: ImageEncoder,
    known: Callable[[bytes], bool],
    max_pixels: int,
    thumbnails: Path | None,
) -> ReadFile:
    content = None
    if not known(opened.digest):
        give_way()
        image = opened.load(min_side=encoder.min_side, max_pixels=max_pixels)
        give_way()
        vector = encoder.embed(image.pixels)
        content = NewContent(facts_of(image.facts, opened.size), vector)
        if thumbnails is not None:
            write_thumbnail(thumbnails, opened.digest, image.pixels)
    stat = _stat(found, opened)
    return ReadFile(found.path, stat, opened.digest, found.folder, content, found.video)


def _stat(found: Found, opened: OpenedFile) -> Stat:
    # Where it was found by a link, the device is that of the link.
    return replace(stat_of_opened(opened), device=found.stat.device)
