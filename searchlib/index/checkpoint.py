"""Checkpoints: a `FaissIndex` on disk, which is whole or refused.

A checkpoint is a sealed file (see `searchlib.index.sealed`) of kind CHECKPOINT, and where the index
has a base, the two files of that base beside it (see `searchlib.index.base_file`). Its facts are

    identity    of the model, 64 hex characters
    dimension
    seq         number of the last change in it
    fresh       how many vectors lie in this file
    base        null, or `generation`, `rows`, `base`, `accelerator`: what names the files of the
                base, which ones they are (their seals), and how many rows they have
    recipe      name of the recipe of the base; null where every row is compared
    tuning      null, or `probes`, `factor`, `recall`, `target`: how the base is searched
    dead        how many rows of the base do not count

and its body, whose digest is that of all of it:

    ids         int64[fresh]
    codes       float16[fresh, dimension]
    live        uint8[(rows + 7) // 8] where any row is dead: bit r from the lowest on is set where
                row r of the base counts

The commit point is the rename of this file. The files of a base are written before it under names
that are new each time, so the checkpoint before stays whole, with its own base, until then; those
that no checkpoint names any more are swept afterwards.

Every byte that is read is under a checksum. What is torn, flipped, cut, too long, or of another
model or format is refused with `CheckpointError`: when it is opened, but for the vectors of a base,
which are verified before they are used and, all of them, by `FaissIndex.check`. A checkpoint is a
cache: who gets that error builds the index again from the catalog. Where only what FAISS made of a
base is damaged, the index opens without it, compares every row, and waits to be merged again.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.errors import CheckpointError, InputError
from searchlib.index.accelerator import Tuning
from searchlib.index.base import Base, Live, Seals
from searchlib.index.base_file import (
    accelerator_path,
    base_path,
    read_accelerator,
    read_base,
    recipe_of,
)
from searchlib.index.faiss_index import FaissIndex
from searchlib.index.recipes import Recipe, load_recipe
from searchlib.index.sealed import (
    PAGE,
    Header,
    Kind,
    bytes_of,
    map_sealed,
    read_header,
    refused,
    verify_body,
    write_sealed,
)

logger = logging.getLogger(__name__)

_IDENTITY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint says of itself.

    Attributes:
        seq: number of the last change in it.
        generation: of its base; empty where it has none.
        vectors: how many it holds.
        recipe: name of the recipe of its base; None where every row is compared.
        rows: of its base, dead ones included.
        fresh: how many vectors lie beside the base.
        dead: how many rows of the base do not count.
        tuning: how the base is searched; None where every row is compared.
    """

    seq: int
    generation: str
    vectors: int
    recipe: str | None = None
    rows: int = 0
    fresh: int = 0
    dead: int = 0
    tuning: Tuning | None = None


def write_checkpoint(path: Path, index: FaissIndex, *, identity: str, seq: int) -> None:
    """Writes the index as it is at this moment, in place of the checkpoint before.

    Searches and changes go on meanwhile. Read `seq` before the call and see that all changes up to
    it are in the index; later ones may be in it too where replaying them does no harm.

    Args:
        path: the checkpoint's file; its folder must exist.
        index: what to write. Its base, if it has one, was merged for a checkpoint at this path.
        identity: the model's identity, 64 hex characters in lower case.
        seq: number of the last change that is certainly in the index, from 0.

    Raises:
        InputError: an identity or seq of another form, or a base that lies in memory alone.
        OSError: it cannot be written, for want of space for example. The checkpoint before stays
            as it was and no temporary file is left.
    """
    state = index.state()
    base, seals = state.base, None
    if base is not None:
        if base.seals is None:
            raise InputError(f"{path}: the index has a base that was not written to files")
        seals = base.seals
        if base.accelerator is None:
            seals = Seals(seals.generation, seals.rows, seals.base)
    segments = state.fresh.segments
    facts = _facts(identity, seq, index.dimension, state.fresh.count) | {
        "base": asdict(seals) if seals else None,
        "recipe": base.accelerator.recipe.name if base and base.accelerator else None,
        "tuning": asdict(base.tuning) if base and base.tuning else None,
        "dead": state.live.dead,
    }
    arrays: list[npt.NDArray[Any]] = [segment.ids for segment in segments]
    arrays += [segment.codes for segment in segments]
    arrays += [] if state.live.bits is None else [state.live.bits]
    write_sealed(path, Kind.CHECKPOINT, bytes_of(*arrays), facts)


def stream_checkpoint(
    path: Path,
    ids: npt.NDArray[np.int64],
    blocks: Iterable[npt.NDArray[np.float16]],
    *,
    identity: str,
    dimension: int,
    seq: int,
) -> None:
    """Writes a checkpoint without a base, of vectors that never are in memory all together.

    Args:
        path: the checkpoint's file; its folder must exist.
        ids: int64 [n], all different.
        blocks: of their vectors in the same order, float16 [m, dimension] each, n in all.
        identity: the model's identity, 64 hex characters in lower case.
        dimension: how many numbers a vector has.
        seq: number of the last change that is in the vectors, from 0.

    Raises:
        InputError: an identity or seq of another form.
        OSError: as `write_checkpoint`.
    """
    facts = _facts(identity, seq, dimension, len(ids)) | {
        "base": None,
        "recipe": None,
        "tuning": None,
        "dead": 0,
    }
    parts = chain(bytes_of(ids), (part for block in blocks for part in bytes_of(block)))
    write_sealed(path, Kind.CHECKPOINT, parts, facts)


def read_saved(path: Path, *, identity: str, dimension: int) -> Saved | None:
    """What the header of a checkpoint says; None where it is unusable.

    Only the header is read: the rest may be damaged all the same.
    """
    try:
        header = read_header(path, Kind.CHECKPOINT)
        facts = _checked(path, header, identity, dimension)
    except CheckpointError:
        return None
    base = facts["base"] or {"generation": "", "rows": 0}
    vectors = facts["fresh"] + base["rows"] - facts["dead"]
    recipe = facts["recipe"]
    return Saved(
        facts["seq"],
        base["generation"],
        vectors,
        recipe=recipe,
        rows=base["rows"],
        fresh=facts["fresh"],
        dead=facts["dead"],
        tuning=Tuning(**facts["tuning"]) if recipe and facts["tuning"] else None,
    )


def read_checkpoint(path: Path, *, identity: str, dimension: int) -> tuple[FaissIndex, int]:
    """Opens a checkpoint and verifies it, all but the vectors of its base.

    Files are mapped and not read into memory of their own; the index copies what it changes. They
    may be replaced or deleted meanwhile.

    Args:
        path: the checkpoint's file.
        identity: the model's identity, 64 hex characters in lower case.
        dimension: how many numbers a vector must have.

    Returns:
        The index, and the number of the last change in it.

    Raises:
        CheckpointError: it is missing, cannot be read, is damaged, or is another's.
        InputError: an identity of another form.
    """
    header, pages = map_sealed(path, Kind.CHECKPOINT)
    facts = _checked(path, header, identity, dimension)
    fresh, dead = facts["fresh"], facts["dead"]
    seals = Seals(**facts["base"]) if facts["base"] else None
    bits = -(-seals.rows // 8) if seals and dead else 0
    if header.length != fresh * (8 + 2 * dimension) + bits:
        raise refused(path, "its header contradicts itself")
    verify_body(path, header, pages)
    ids = np.frombuffer(pages, np.int64, fresh, PAGE)
    start = PAGE + 8 * fresh
    codes = np.frombuffer(pages, np.float16, fresh * dimension, start).reshape(fresh, dimension)
    base, live = None, Live()
    if seals is not None:
        base = _base(path, header, seals, dimension, facts["tuning"])
        if dead:
            start += 2 * fresh * dimension
            live = Live(np.frombuffer(pages, np.uint8, bits, start), dead)
    return FaissIndex.over(ids, codes, base=base, live=live), facts["seq"]


def remove_unused(path: Path, *, keep: str) -> list[Path]:
    """Removes the files of bases that belong to a checkpoint but to another generation.

    Args:
        path: the checkpoint's file.
        keep: the generation that stays.

    Returns:
        What was removed. Whoever has it open keeps it.

    Raises:
        OSError: the folder cannot be listed.
    """
    ours = re.compile(re.escape(path.stem) + r"-([0-9a-f]{16})\.(base|faiss)")
    gone = []
    for file in sorted(path.parent.iterdir()):
        name = ours.fullmatch(file.name)
        if name and name[1] != keep:
            with contextlib.suppress(OSError):
                file.unlink()
                gone.append(file)
    return gone


def _base(
    path: Path, header: Header, seals: Seals, dimension: int, tuning: dict[str, Any] | None
) -> Base:
    base = read_base(base_path(path, seals.generation), seals, dimension)
    if seals.accelerator and tuning:
        file = accelerator_path(path, seals.generation)
        try:
            recipe = _recipe(file)
            base.accelerator = read_accelerator(file, seals, recipe, base.codes)
            base.tuning = Tuning(**tuning)
        except CheckpointError as error:
            # A checkpoint that was replaced meanwhile has lost its files and not suffered damage.
            if read_header(path, Kind.CHECKPOINT).seal != header.seal:
                raise
            logger.warning("%s; until then every vector is compared", error)
    return base


def _recipe(file: Path) -> Recipe:
    try:
        return load_recipe(recipe_of(file))
    except InputError as error:
        raise refused(file, str(error)) from error


def _facts(identity: str, seq: int, dimension: int, fresh: int) -> dict[str, Any]:
    if not 0 <= seq < 1 << 63:
        raise InputError(f"seq is {seq}; give a number from 0 to 2**63 - 1")
    _check_identity(identity)
    return {"identity": identity, "dimension": dimension, "seq": seq, "fresh": fresh}


def _checked(path: Path, header: Header, identity: str, dimension: int) -> dict[str, Any]:
    _check_identity(identity)
    if header.facts["identity"] != identity:
        raise refused(path, "it is of another model")
    if header.facts["dimension"] != dimension:
        raise refused(path, "it is of another dimension")
    return header.facts


def _check_identity(identity: str) -> None:
    if not _IDENTITY.fullmatch(identity):
        raise InputError(f"model identity {identity!r} is not 64 hex characters in lower case")
