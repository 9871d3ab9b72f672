"""Vectors of a file into a library, without running the encoder for them.

    read and check all rows -> embed a sample and compare -> read again and store in batches

Nothing is written before all rows were checked. What is committed stays: after an interruption the
next import finds these rows to have a vector and does the rest.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchlib.catalog import Catalog, KnownImage, ModelRecord, ReadFile
from searchlib.errors import ImageError, OutputError, VectorFileError
from searchlib.exchange.checks import Repeats, checked_blocks
from searchlib.exchange.disk import stamp
from searchlib.exchange.drift import Cosines
from searchlib.exchange.formats import open_vectors
from searchlib.exchange.model import Target, require_model
from searchlib.exchange.pictures import Picture, read_picture, stat_at
from searchlib.exchange.report import MOST_LISTED, ImportReport, UnmatchedRow, VectorProgress
from searchlib.exchange.rows import Block, Key, local_path
from searchlib.images import open_file, printable
from searchlib.ingest.place import gone_from, processors

logger = logging.getLogger(__name__)

REFUSED_BELOW = 0.9
"""Vectors of one model are at 0.99 and above for the same picture, those of two models around 0."""

# For each picture to be verified so many rows are remembered: some turn out not to be readable.
_SPARE = 4


class Encoder(Protocol):
    """What embeds pictures to compare with; an ImageEncoder is one."""

    @property
    def min_side(self) -> tuple[int, int] | None:
        """What a picture should be decoded to at least."""

    def embed(self, image: Image.Image) -> NDArray[np.float32]:
        """A picture's vector, float32 [dimension] of length 1."""


def import_vectors(
    catalog: Catalog,
    in_use: ModelRecord | None,
    encoder: Encoder,
    target: Target,
    path: Path,
    *,
    begin: Callable[[], ModelRecord],
    identity_of: Callable[[str], str],
    max_pixels: int,
    model: str | None = None,
    root: Path | None = None,
    verify: int = 16,
    warn_below: float = 0.99,
    on_progress: Callable[[VectorProgress], None] | None = None,
) -> ImportReport:
    """Take over the vectors of a file.

    Args:
        catalog: of the library.
        in_use: the model in use; None in a library that has no vector yet.
        encoder: of that model, or the one that the library begins with.
        target: what the vectors must be of.
        path: of the file; its end tells the format, see `formats`.
        begin: gives the record of the target, which a library without vectors gets now.
        identity_of: the identity of a model's name.
        max_pixels: refuse pictures with more.
        model: name or identity of the model of the vectors, where the file does not say.
        root: what relative paths are below; the file's folder if None.
        verify: how many of the new vectors are compared with those of the encoder; 0 for none, and
            then whatever was measured refuses nothing.
        warn_below: rows with a lower cosine are listed.
        on_progress: called from this thread.

    Raises:
        VectorFileError: the file or a row of it cannot be used, or the vectors are not like those
            of the encoder. Nothing was written.
        ModelMismatchError: the vectors are of another model.
        EncoderError: the encoder cannot be used to verify.
        LibraryError: the catalog cannot be read or written; what was committed stays.
    """
    started = time.monotonic()
    file = open_vectors(path)
    require_model(file.header, target, path, declared=model, identity_of=identity_of)
    root = path.absolute().parent if root is None else root.absolute()
    tell = on_progress or (lambda _: None)
    library = _Known(catalog, in_use, root)

    before = stamp(file.parts)
    survey = _Survey(library, _SPARE * verify, warn_below)
    total = file.header.count
    tell(VectorProgress("checking", 0, total))
    for block in checked_blocks(file, target.dimension):
        survey.see(block)
        tell(VectorProgress("checking", survey.rows, total))
    survey.repeats.require_agreement(file, target.dimension)

    cosines = Cosines(warn_below)
    if verify and survey.new:
        _verify(survey, encoder, library, verify, max_pixels, cosines)
        _require_likeness(path, target, cosines, survey.cosines)
    if stamp(file.parts) != before:
        raise VectorFileError(f"{path}: it was changed while it was read; import it when at rest")

    storing = _Storing(library, begin, max_pixels, cosines)
    tell(VectorProgress("importing", 0, survey.rows))
    with ThreadPoolExecutor(processors(), thread_name_prefix="searchlib-import") as pool:
        for block in checked_blocks(file, target.dimension):
            storing.take(block, pool)
            done = block.first + len(block.keys) - 1
            tell(VectorProgress("importing", done, survey.rows, storing.unmatched))
    return ImportReport(
        file=path,
        model=target.name,
        identity=target.identity,
        rows=survey.rows,
        stored=storing.stored,
        added=storing.added,
        kept=storing.kept,
        unmatched=storing.unmatched,
        unmatched_rows=tuple(storing.unmatched_rows),
        drift=cosines.drift(),
        seconds=time.monotonic() - started,
    )


@dataclass(slots=True)
class _Known:
    """What the library knows of the images of rows."""

    catalog: Catalog
    model: ModelRecord | None
    root: Path

    def look_up(self, digest: bytes) -> KnownImage | None:
        return self.catalog.known_images([digest], self.model).get(digest)

    def of(self, keys: list[Key]) -> list[KnownImage | None]:
        """The image of each row: by its digest, else by a path whose file was not touched."""
        digests = [key.digest for key in keys]
        found = self.catalog.known_images({d for d in digests if d is not None}, self.model)
        rest = [n for n, digest in enumerate(digests) if digest not in found]
        local = {n: self._paths(keys[n]) for n in rest}
        places = self.catalog.digests_at({path for some in local.values() for path in some})
        for n in rest:
            for path in local[n]:
                if path not in places:
                    continue
                stat, digest = places[path]
                now = stat_at(path)
                if digests[n] in (None, digest) and now is not None and now.is_untouched(stat):
                    digests[n] = digest
                    break
        more = {d for d in (digests[n] for n in rest) if d is not None}
        found.update(self.catalog.known_images(more, self.model))
        return [None if digest is None else found.get(digest) for digest in digests]

    def readable(self, key: Key) -> bool:
        return any(stat_at(path) is not None for path in self._paths(key))

    def _paths(self, key: Key) -> list[str]:
        local = (local_path(path, self.root) for path in key.paths)
        return [path for path in local if path is not None]


@dataclass(frozen=True, slots=True)
class _Sampled:
    row: int
    key: Key
    vector: NDArray[np.float32]
    image_id: int | None


class _Survey:
    """The first reading: counts rows, compares what is known, and draws a sample of what is new."""

    def __init__(self, library: _Known, sample_size: int, warn_below: float) -> None:
        self.rows = 0
        self.new = 0
        self.cosines = Cosines(warn_below)
        self.repeats = Repeats(library.root)
        self.sample: list[_Sampled] = []
        self._library = library
        self._size = sample_size
        # The same file gives the same sample, so that a refusal can be looked into.
        self._random = random.Random(0)

    def see(self, block: Block) -> None:
        self.rows += len(block.keys)
        self.repeats.see(block)
        known = self._library.of(block.keys)
        for row, (key, vector, image) in enumerate(
            zip(block.keys, block.vectors, known, strict=True), block.first
        ):
            if image is not None and image.vector is not None:
                self.cosines.add(row, key.name, vector, image.vector)
            elif image is not None or self._library.readable(key):
                self._draw(_Sampled(row, key, vector, None if image is None else image.id))

    def _draw(self, candidate: _Sampled) -> None:
        """Each new row is in the sample with the same chance (Vitter's algorithm R)."""
        self.new += 1
        place = len(self.sample)
        if place >= self._size:
            place = self._random.randrange(self.new)
            if place >= self._size:
                return
            self.sample[place] = replace(candidate, vector=candidate.vector.copy())
            return
        self.sample.append(replace(candidate, vector=candidate.vector.copy()))


def _verify(
    survey: _Survey,
    encoder: Encoder,
    library: _Known,
    count: int,
    max_pixels: int,
    cosines: Cosines,
) -> None:
    """Embed up to so many pictures of the sample and compare the vectors."""
    for candidate in survey.sample:
        if cosines.verified == count:
            return
        key = candidate.key
        paths = [path for text in key.paths if (path := local_path(text, library.root))]
        if candidate.image_id is not None:
            image = library.catalog.images([candidate.image_id]).get(candidate.image_id)
            if image is not None:
                key = Key(bytes.fromhex(image.digest), key.paths)
                paths = [*image.paths, *paths]
        for path in paths:
            try:
                with open_file(path) as opened:
                    if key.digest not in (None, opened.digest):
                        continue
                    known = library.look_up(opened.digest)
                    if known is not None and known.vector is not None:
                        # It only lies elsewhere now, and needs no encoder.
                        survey.cosines.add(candidate.row, key.name, candidate.vector, known.vector)
                        break
                    picture = opened.load(min_side=encoder.min_side, max_pixels=max_pixels)
                ours = encoder.embed(picture.pixels)
            except (ImageError, OutputError) as error:
                logger.info("not verified: %s", error)
                continue
            cosines.add(candidate.row, key.name, candidate.vector, ours)
            cosines.verified += 1
            break


def _require_likeness(path: Path, target: Target, verified: Cosines, known: Cosines) -> None:
    for cosines, words in (
        (verified, "this machine embedded now"),
        (known, "the library has vectors of"),
    ):
        drift = cosines.drift()
        if drift is not None and drift.mean < REFUSED_BELOW:
            raise VectorFileError(
                f"{path}: these vectors are not of this model: for {drift.count} images that "
                f"{words} the cosine to the vectors of {target.name} is {drift.mean:.3f} on "
                f"average and {drift.min:.3f} at least, and it must be {REFUSED_BELOW} on average. "
                "See that the same model and preprocessing made them and that each row names its "
                "own image; --verify 0 (verify=0) imports them all the same"
            )


class _Storing:
    """The second reading: stores what is new, a block in a transaction or two."""

    def __init__(
        self,
        library: _Known,
        begin: Callable[[], ModelRecord],
        max_pixels: int,
        cosines: Cosines,
    ) -> None:
        self.stored = self.added = self.kept = self.unmatched = 0
        self.unmatched_rows: list[UnmatchedRow] = []
        self._library = library
        self._begin = begin
        self._max_pixels = max_pixels
        self._cosines = cosines

    def take(self, block: Block, pool: ThreadPoolExecutor) -> None:
        rows = list(zip(block.keys, block.vectors, strict=True))
        known = self._library.of(block.keys)
        to_read = [n for n, image in enumerate(known) if image is None]
        results = pool.map(lambda n: self._read(*rows[n]), to_read)
        pictures = dict(zip(to_read, results, strict=True))
        put: list[tuple[int, NDArray[np.float32]]] = []
        files: list[ReadFile] = []
        # By digest: two rows may turn out to be of one image.
        fresh: dict[bytes, NDArray[np.float32]] = {}
        for n, (key, vector) in enumerate(rows):
            image = known[n]
            if image is None:
                picture = pictures[n]
                if isinstance(picture, str):
                    self._count_unmatched(block.first + n, key, picture)
                    continue
                image, digest = picture.known, picture.file.digest
                files.append(picture.file)
            else:
                digest = image.digest
            ours = fresh.get(digest) if image is None or image.vector is None else image.vector
            if ours is not None:
                self.kept += 1
                self._cosines.add(block.first + n, key.name, vector, ours)
                continue
            fresh[digest] = vector
            self.stored += 1
            self.added += image is None
            if image is not None and n not in pictures:
                put.append((image.id, vector))
        self._write(put, files)

    def _read(self, key: Key, vector: NDArray[np.float32]) -> Picture | str:
        library = self._library
        return read_picture(
            key, vector, library.root, look_up=library.look_up, max_pixels=self._max_pixels
        )

    def _count_unmatched(self, row: int, key: Key, reason: str) -> None:
        self.unmatched += 1
        logger.info("row %d is unmatched: %s: %s", row, printable(key.name), reason)
        if len(self.unmatched_rows) < MOST_LISTED:
            self.unmatched_rows.append(UnmatchedRow(row, key.name, reason))

    def _write(self, put: list[tuple[int, NDArray[np.float32]]], files: list[ReadFile]) -> None:
        if not put and not files:
            return
        model = self._library.model = self._begin()
        if put:
            self._library.catalog.put_vectors(model, put)
        if files:
            self._library.catalog.record(model, files, gone=gone_from)
