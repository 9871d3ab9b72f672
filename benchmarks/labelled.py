"""Labelled photographs: sets in which pictures with the same label should find each other.

The folder, of which any part may be missing:

    retrieval/grocery/train.txt       path, fine class, coarse class; the fine one is the label
    retrieval/clothing/images.csv     image,sender_id,label,...; the files are images/IMAGE.jpg
    retrieval/caltech101/CLASS/*.jpg  the folder's name is the label
    copydet/pdq_groups.csv            path,group,relation; the group, one of copies of one picture,
                                      is the label
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# What people gave pictures of the clothing set that they could not name.
_NO_LABEL = {"Not sure", "Other", "Skip"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One set.

    Attributes:
        name: of the set.
        items: path and label of each picture.
    """

    name: str
    items: tuple[tuple[Path, str], ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the pictures of a set find those with their label.

    Attributes:
        queries: pictures whose label at least one other has; only these are counted.
        first: share of them whose nearest other picture has their label (R@1).
        precision: mean over them of the average precision of the whole ranking (mAP).
    """

    queries: int
    first: float
    precision: float


def sets(data: Path) -> tuple[list[Labelled], list[str]]:
    """The sets that are there, and the names of those that are not."""
    found, absent = [], []
    for name, read in _READERS.items():
        items = read(data)
        if items:
            found.append(Labelled(name, tuple(items)))
        else:
            absent.append(name)
    return found, absent


def quality(vectors: NDArray[np.float32], labels: Sequence[str]) -> Quality:
    """Rank for every picture all others by their cosine.

    Average precision is the mean, over the ranks at which a picture with the label stands, of the
    share of such pictures up to there (Manning, Raghavan, Schütze, Introduction to Information
    Retrieval, 8.4).

    Args:
        vectors: unit vectors, float32 [n, dimension].
        labels: one for each.
    """
    sizes = Counter(labels)
    names = np.array(labels)
    first, precision = [], []
    for i, vector in enumerate(vectors):
        if sizes[labels[i]] < 2:
            continue
        scores = vectors @ vector
        order = np.argsort(-scores, kind="stable")
        order = order[order != i]
        right = names[order] == names[i]
        ranks = np.flatnonzero(right) + 1
        first.append(bool(right[0]))
        precision.append(float((np.arange(1, len(ranks) + 1) / ranks).mean()))
    return Quality(len(first), float(np.mean(first)), float(np.mean(precision)))


def _grocery(data: Path) -> list[tuple[Path, str]]:
    folder = data / "retrieval" / "grocery"
    rows = _rows(folder / "train.txt")
    return [(folder / row[0], row[1].strip()) for row in rows if len(row) > 1]


def _clothing(data: Path) -> list[tuple[Path, str]]:
    folder = data / "retrieval" / "clothing"
    rows = _rows(folder / "images.csv")[1:]
    return [
        (folder / "images" / f"{row[0]}.jpg", row[2]) for row in rows if row[2] not in _NO_LABEL
    ]


def _caltech101(data: Path) -> list[tuple[Path, str]]:
    files = (data / "retrieval" / "caltech101").glob("*/*.jpg")
    return [(path, path.parent.name) for path in sorted(files)]


def _copies(data: Path) -> list[tuple[Path, str]]:
    folder = data / "copydet"
    rows = _rows(folder / "pdq_groups.csv")[1:]
    return [(folder / row[0], row[1]) for row in rows]


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row]


_READERS: dict[str, Callable[[Path], list[tuple[Path, str]]]] = {
    "grocery": _grocery,
    "clothing": _clothing,
    "caltech101": _caltech101,
    "copies (pdq)": _copies,
}
