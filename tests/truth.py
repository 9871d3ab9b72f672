"""The oracle of the reliability suite: a library against the disk, found out in its own way.

Nothing here uses searchlib's walk, comparison or catalog: the disk is walked with os.walk, the
database is read as SQLite, and each vector is compared with the one that its picture has alone.
Only the last check goes through the library, as whoever searches would.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import urllib.parse
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

import searchlib
from searchlib import ImageEncoder
from searchlib.images import load

PICTURES = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "gif", "webp", "heic", "heif", "hif"),
    *("heics", "heifs", "avif", "avifs", "tif", "tiff", "bmp", "dib", "jp2", "j2k", "j2c", "jpc"),
    *("jpx", "jpf", "ppm", "pgm", "pbm", "pnm", "pfm", "tga", "ico", "psd", "qoi", "pcx", "sgi"),
    *("dds", "cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "srf", "dng", "raf", "orf", "rw2"),
    *("pef", "srw", "raw", "rwl", "3fr", "fff", "iiq", "cap", "mos", "mef", "erf", "mrw", "kdc"),
    *("dcr", "x3f", "gpr"),
)
LITTER = {"@eaDir", "node_modules", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
ENDS_OF_LIBRARY = ("catalog.db",)

_vectors: dict[tuple[str, bytes], bytes] = {}


@dataclass(frozen=True)
class Truth:
    """What was found to be so.

    Attributes:
        present: digests of the files that are in the library, by path.
        failed: reasons, by path.
        changes: how many changes the vector set ever had.
        vectors: how many images have one.
    """

    present: dict[str, bytes]
    failed: dict[str, str]
    changes: int
    vectors: int


@dataclass(frozen=True)
class _File:
    path: str
    state: str
    size: int
    mtime_ns: int
    image: int | None
    failure: str | None
    reason: str | None


@dataclass(frozen=True)
class _Catalog:
    files: dict[str, _File]
    digests: dict[int, bytes]
    embeddings: dict[int, bytes]
    changes: list[tuple[int, int]]
    dirty: list[str]


def pictures_on_disk(roots: Iterable[Path | str]) -> Iterator[str]:
    """The paths that a library of these folders has to know of."""
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name[0] != "." and name not in LITTER]
            if any(end in names for end in ENDS_OF_LIBRARY):
                folders.clear()
                continue
            for name in names:
                end = name.rpartition(".")[2].lower()
                if name[0] != "." and "." in name[1:] and end in PICTURES:
                    yield f"{folder.rstrip(os.sep)}/{name}"


def assert_equals_disk(
    library_folder: Path,
    roots: Iterable[Path | str],
    encoder: ImageEncoder,
    *,
    offline: Collection[Path | str] = (),
    also: Iterable[Path | str] = (),
    failing: Collection[Path | str] | None = (),
    idle: bool = True,
    most_vectors: int | None = None,
) -> Truth:
    """Find the library and the disk equal, or name what is not.

    Args:
        library_folder: of the library.
        roots: the folders whose pictures it must know.
        encoder: of the model in use.
        offline: folders that are not mounted: what is known there is kept as offline.
        also: files outside of the roots that it must know too.
        failing: the files that it must know as failed, no more and no less; any if None.
        idle: whether nothing may be on the list of dirty paths.
        most_vectors: compute no more than so many of those that were not computed before.

    Raises:
        AssertionError: names the first file that is wrong, and how many are.
    """
    catalog = _read(library_folder, encoder.identity)
    on_disk = {*pictures_on_disk(roots), *map(os.fspath, also)}
    # A link that leads nowhere may be known as failed, and need not be known at all.
    nowhere = {path for path in on_disk if _is_lost(path)}
    on_disk -= nowhere
    digests = _check_places(catalog, on_disk, nowhere, list(map(os.fspath, offline)))
    failed = {
        path: file.reason or ""
        for path, file in catalog.files.items()
        if file.failure is not None and path not in nowhere
    }
    if failing is not None:
        wanted = {os.fspath(path) for path in failing}
        _none(wanted - failed.keys(), "should have failed")
        _none([f"{p!r} ({failed[p]})" for p in failed.keys() - wanted], "failed")
    _none([p for p in failed if not failed[p].strip() or "\n" in failed[p]], "has no reason")
    _check_images(catalog)
    _check_vectors(catalog, digests, encoder, most_vectors)
    if idle:
        _none(catalog.dirty, "is on the dirty list")
    _check_search(library_folder, digests, encoder)
    return Truth(digests, failed, len(catalog.changes), len(catalog.embeddings))


def _check_places(
    catalog: _Catalog, on_disk: Collection[str], nowhere: Collection[str], offline: list[str]
) -> dict[str, bytes]:
    """The digest of each file that is present, by path."""
    _none([p for p in on_disk if p not in catalog.files], "is on the disk and not in the library")
    below = tuple(f"{folder}/" for folder in offline)
    digests = {}
    for path, file in catalog.files.items():
        if path.startswith(below) and path not in on_disk:
            assert file.state == "offline", f"{path!r} is {file.state}: its drive is not mounted"
        elif path in nowhere:
            assert file.state in ("skipped", "missing"), f"{path!r} is {file.state}"
        elif path not in on_disk:
            assert file.state == "missing", f"{path!r} is {file.state} and not on the disk"
            assert file.failure is None, f"{path!r} is not on the disk and failed: {file.reason}"
        elif file.failure is None:
            assert file.state == "present", f"{path!r} is on the disk and {file.state}"
            digests[path] = _check_content(file, catalog)
    return digests


def _is_lost(path: str) -> bool:
    """Whether a path is a link whose target does not exist; a link in a circle is none."""
    try:
        Path(path).stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _check_content(file: _File, catalog: _Catalog) -> bytes:
    status = Path(file.path).stat()
    assert stat.S_ISREG(status.st_mode), f"{file.path!r} is present and no file"
    digest = blake3(Path(file.path).read_bytes()).digest()
    assert file.image is not None, f"{file.path!r} is present without an image"
    assert catalog.digests.get(file.image) == digest, f"{file.path!r} has other bytes"
    known = (file.size, file.mtime_ns)
    now = (status.st_size, status.st_mtime_ns)
    assert known == now, f"{file.path!r} is known with size and time {known}, and has {now}"
    return digest


def _check_images(catalog: _Catalog) -> None:
    twice = [n for n, count in Counter(catalog.digests.values()).items() if count > 1]
    _none([digest.hex() for digest in twice], "is an image twice")
    logged = {image for _, image in catalog.changes}
    _none(catalog.embeddings.keys() - logged, "is an image with a vector that no change tells of")


def _check_vectors(
    catalog: _Catalog, digests: dict[str, bytes], encoder: ImageEncoder, most: int | None
) -> None:
    """The vector of each image whose bytes are at hand is the one that they have alone."""
    paths = {digest: path for path, digest in digests.items()}
    for image, digest in catalog.digests.items():
        path = paths.get(digest)
        known = (encoder.identity, digest) in _vectors
        if path is None and not known:
            continue
        stored = catalog.embeddings.get(image)
        if stored is None:
            # An image whose files are all gone may have lost nothing by having no vector.
            assert path is None, f"{path!r} is present and has no vector"
            continue
        if not known:
            assert path is not None
            if most is not None:
                if most == 0:
                    continue
                most -= 1
        assert stored == _vector(digest, path, encoder), f"{path or digest.hex()!r}: another vector"


def _vector(digest: bytes, path: str | None, encoder: ImageEncoder) -> bytes:
    key = encoder.identity, digest
    if key not in _vectors:
        assert path is not None
        pixels = load(Path(path), min_side=encoder.min_side).pixels
        _vectors[key] = encoder.embed(pixels).astype("<f2").tobytes()
    return _vectors[key]


def _check_search(folder: Path, digests: dict[str, bytes], encoder: ImageEncoder) -> None:
    """A few of the files are found by their own content."""
    paths = sorted(digests, key=lambda path: digests[path] + os.fsencode(path))
    with searchlib.open_library(folder, create=False, encoder=encoder) as library:
        for path in paths[:: max(1, len(paths) // 5)]:
            matches = library.search(Path(path), k=50)
            assert matches, f"{path!r}: nothing is found"
            assert matches[0].score > 0.999, f"{path!r}: its best match has {matches[0].score}"
            found = [place for match in matches for place in match.image.paths]
            # Small pictures can be nearly the same: then fifty others are as near.
            crowded = len(matches) == 50 and matches[-1].score > 0.999
            assert path in found or crowded, f"{path!r} does not find itself"
            gone = [place for place in found if not os.path.lexists(place)]
            assert not gone, f"{gone[0]!r} is found, and nothing is there"


def _none(names: Iterable[object], fault: str) -> None:
    wrong = sorted(map(str, names))
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise AssertionError(f"{wrong[0]!r} {fault}{more}")


def _read(folder: Path, identity: str) -> _Catalog:
    """All of the catalog as it stands at one moment."""
    uri = f"file:{urllib.parse.quote(os.fsencode(folder / 'catalog.db'))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=60)) as database:

        def rows(query: str, *values: object) -> list[tuple]:
            return database.execute(query, values).fetchall()

        database.execute("BEGIN")
        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("PRAGMA foreign_key_check") == []
        ((model, used),) = rows("SELECT id, identity FROM model WHERE in_use")
        assert used == identity
        query = "SELECT path, state, size, mtime_ns, image_id, failure, reason FROM file"
        files = [_File(os.fsdecode(path), *others) for path, *others in rows(query)]
        by_path = {file.path: file for file in files}
        assert len(by_path) == len(files), "a path is there twice"
        query = "SELECT image_id, vector FROM embedding WHERE model_id = ?"
        embeddings = rows(query, model)
        query = "SELECT seq, image_id FROM change WHERE model_id = ? ORDER BY seq"
        changes = rows(query, model)
        digests = dict(rows("SELECT id, digest FROM image"))
        dirty = [os.fsdecode(path) for (path,) in rows("SELECT path FROM dirty")]
        database.execute("ROLLBACK")
    assert len(dict(embeddings)) == len(embeddings), "an image has two vectors of one model"
    return _Catalog(by_path, digests, dict(embeddings), changes, dirty)
