"""How well does a model find pictures of the same label? Figures and two plots for your own folder.

    python examples/quality_report.py FOLDER [--into report] [--model clip] [-k 20]
    python examples/quality_report.py demo

Each folder in FOLDER is a label, whatever lies below it. All pictures go into a library, each asks
for all others (leave one out), and an answer is right where it shares a label. `demo` makes such
folders of photographs that come with scikit-image, and edits of them. It writes report.png beside
its library, and needs the extra `report`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

import searchlib
from searchlib import ImageEncoder, SearchlibError
from searchlib.encoder import registry

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "page", "moon")
LONELY = ("clock", "cell")
MILLION = 1_000_000
STEP = 1_000
"""Between two thresholds, in millionths of a cosine."""
BLOCK = 128
"""Questions that are ranked at once; each takes some tens of bytes for each picture."""

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """How well pictures find those that share a label with them.

    A picture whose label no other has asks nothing, as no answer would be right; it is a wrong
    answer for the others. Of equal scores, which are compared to six decimals, any may come first:
    the figures are the means over all their orders.

    Attributes:
        questions: pictures whose label another one has; the figures by rank are means over them.
        average_precision: mean of the average precision of the whole ranking (mAP).
        precision: share of right ones among the first 1, 2, ... k answers; the first is R@1.
        recall: share of all right ones that is among them.
        thresholds: cosines, rising.
        precision_above: of all answers to all pictures with at least that cosine the share of right
            ones; NaN where there is none.
        recall_above: of all right ones the share that has at least that cosine.
    """

    questions: int
    average_precision: float
    precision: Numbers
    recall: Numbers
    thresholds: Numbers
    precision_above: Numbers
    recall_above: Numbers


def measure(vectors: NDArray[np.float32], labels: Sequence[frozenset[str]], k: int) -> Quality:
    """Ask with each vector for all others.

    Average precision is the mean of the precisions at the ranks of the right answers (Manning,
    Raghavan, Schütze: Introduction to Information Retrieval, 8.4); for equal scores see McSherry,
    Najork: Computing Information Retrieval Performance Measures Efficiently in the Presence of
    Tied Scores, 2008.

    Args:
        vectors: float32 [n, dimension], of length 1.
        labels: of each; usually one.
        k: how many ranks precision and recall are wanted for.

    Raises:
        ValueError: no label has two pictures.
    """
    if len(labels) < 2:
        raise ValueError("there are no two pictures below a folder that is a label")
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(labels))}
    kind_of = np.array([kinds[kind] for kind in labels])
    shared = np.array([[bool(one & other) for other in kinds] for one in kinds])
    k = min(k, len(labels) - 1)
    questions, precisions = 0, 0.0
    found, recall = np.zeros(k), np.zeros(k)
    bins = 2 * MILLION // STEP + 1
    wrong_at, right_at = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    for first in range(0, len(labels), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(labels)))
        scores, right = _ranked(vectors, rows, kind_of, shared)
        steps = (scores + MILLION) // STEP
        right_at += np.bincount(steps[right], minlength=bins)
        wrong_at += np.bincount(steps[~right], minlength=bins)
        asked = right.any(axis=1)
        average, hits, total = _expected(scores[asked], right[asked])
        questions += int(asked.sum())
        precisions += float(average.sum())
        found += hits[:, :k].sum(axis=0)
        recall += (hits[:, :k] / total[:, None]).sum(axis=0)
    if not questions:
        raise ValueError("no label has two pictures, so no answer can be right")
    rights, wrongs = (np.cumsum(at[::-1])[::-1] for at in (right_at, wrong_at))
    with np.errstate(invalid="ignore"):
        precision_above = rights / (rights + wrongs)
    return Quality(
        questions=questions,
        average_precision=precisions / questions,
        precision=found / questions / np.arange(1, k + 1),
        recall=recall / questions,
        thresholds=(np.arange(bins) * STEP - MILLION) / MILLION,
        precision_above=precision_above,
        recall_above=rights / rights[0],
    )


def _ranked(
    vectors: NDArray[np.float32],
    rows: Counts,
    kind_of: Counts,
    shared: NDArray[np.bool_],
) -> tuple[Counts, NDArray[np.bool_]]:
    """The cosines of all others in millionths, best first, and which are right: [rows, n - 1]."""
    cosines = np.clip((vectors[rows] @ vectors.T).astype(np.float64), -1, 1)
    scores = np.rint(cosines * MILLION).astype(np.int64)
    # Below all others, and cut off with the last column.
    scores[np.arange(len(rows)), rows] = -2 * MILLION
    order = np.argsort(-scores, axis=1)[:, :-1]
    right = np.take_along_axis(shared[kind_of[rows]][:, kind_of], order, axis=1)
    return np.take_along_axis(scores, order, axis=1), right


def _expected(scores: Counts, right: NDArray[np.bool_]) -> tuple[Numbers, Numbers, Counts]:
    """For each question the average precision, the right answers up to each rank, and all of them.

    The first two are means over all orders of equal scores. Among `size` of these, `inside` of
    them right, each rank holds a right one with the same probability; where it does, each of the
    others that stand before it is right with (inside - 1) / (size - 1).
    """
    rank = np.arange(scores.shape[1])
    ends = np.ones(scores.shape, np.bool_)
    ends[:, :-1] = scores[:, 1:] != scores[:, :-1]
    begins = np.ones(scores.shape, np.bool_)
    begins[:, 1:] = ends[:, :-1]
    start = np.maximum.accumulate(np.where(begins, rank, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, rank, len(rank))[:, ::-1], axis=1)[:, ::-1]
    size = last - start + 1
    hits = np.cumsum(right, axis=1, dtype=np.int64)
    before = np.take_along_axis(hits, start, axis=1) - np.take_along_axis(right, start, axis=1)
    inside = np.take_along_axis(hits, last, axis=1) - before
    share = inside / size
    others = (rank - start) * (inside - 1) / np.maximum(size - 1, 1)
    total = hits[:, -1]
    average = (share * (before + 1 + others) / (rank + 1)).sum(axis=1) / total
    return average, before + share * (rank + 1 - start), total


def embed(folder: Path, into: Path, model: str) -> tuple[NDArray[np.float32], list[frozenset[str]]]:
    """The vectors of the pictures in the folders of a folder, and their labels.

    A picture that lies in two of them has two labels.
    """
    encoder = ImageEncoder(registry.find(model))
    with (
        tempfile.TemporaryDirectory() as temporary,
        searchlib.open_library(into / f"library-{encoder.card.name}", encoder=encoder) as library,
    ):
        for skipped in library.add(folder).skipped:
            print(f"{skipped.path}: {skipped.reason}", file=sys.stderr)
        file = Path(temporary) / "vectors.npy"
        library.export_vectors(file)
        vectors: NDArray[np.float32] = np.load(file)
        lines = file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    labels = [
        frozenset(filter(None, (label_of(path, folder) for path in paths)))
        for paths in (row.get("paths") or [row["path"]] for row in rows if "searchlib" not in row)
    ]
    kept = np.array([bool(label) for label in labels], np.bool_)
    return vectors[kept], [label for label in labels if label]


def label_of(path: str, folder: Path) -> str | None:
    """The folder in `folder` that a file lies in or below; None where it lies in none."""
    try:
        below = Path(path).relative_to(folder.absolute()).parts
    except ValueError:
        return None
    return below[0] if len(below) > 1 else None


def print_figures(quality: Quality, labels: Sequence[frozenset[str]]) -> None:
    names = Counter(name for label in labels for name in label)
    alone = len(labels) - quality.questions
    print(f"{len(labels)} pictures of {len(names)} labels; {alone} ask nothing, being the only one")
    print("\nfirst k  precision  recall")
    for k in (1, 2, 5, 10, 20, 50, 100):
        if k <= len(quality.precision):
            print(f"{k:7}  {quality.precision[k - 1]:9.3f}  {quality.recall[k - 1]:6.3f}")
    print("\nscore >=  precision  recall")
    for wanted in (0.5, 0.8, 0.9, 0.95, 0.99):
        enough = np.flatnonzero(quality.precision_above >= wanted)
        if len(enough):
            at = enough[0]
            figures = f"{quality.precision_above[at]:9.3f}  {quality.recall_above[at]:6.3f}"
            print(f"{quality.thresholds[at]:8.3f}  {figures}")


def plot(quality: Quality, title: str, target: Path) -> None:
    """Two plots side by side: over the first k answers, and over the least score."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    ranks, scores = figure.subplots(1, 2)
    k = np.arange(1, len(quality.precision) + 1)
    ranks.plot(k, quality.precision, marker=".", label="precision")
    ranks.plot(k, quality.recall, marker=".", label="recall")
    ranks.set(title="the first k answers", xlabel="k", ylim=(0, 1.03))
    ranks.xaxis.get_major_locator().set_params(integer=True)
    scores.plot(quality.thresholds, quality.precision_above, label="precision")
    scores.plot(quality.thresholds, quality.recall_above, label="recall")
    # Where every answer is good enough, nothing changes.
    least = quality.thresholds[quality.recall_above == 1].max()
    scores.set(title="answers with at least a score", xlabel="cosine", ylim=(0, 1.03))
    scores.set_xlim(min(least, 0.99), 1)
    for axes in (ranks, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(target, dpi=120)


def make_labelled(folder: Path) -> None:
    """Write a folder of edits for each photograph, and two with a single picture."""
    for name in (*PHOTOGRAPHS, *LONELY):
        image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        (folder / name).mkdir(parents=True, exist_ok=True)
        image.save(folder / name / "whole.png")
        if name in LONELY:
            continue
        width, height = image.size
        edits = {
            "small": image.resize((width // 3, height // 3)),
            "grey": ImageOps.grayscale(image).convert("RGB"),
            "mirrored": ImageOps.mirror(image),
            "left": image.crop((0, 0, width * 2 // 3, height)),
            "middle": image.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4)),
            "quarter": image.crop((width // 2, height // 2, width, height)),
            "corner": image.crop((0, 0, width // 4, height // 4)),
        }
        for what, edit in edits.items():
            edit.save(folder / name / f"{what}.jpg", quality=70)


def main() -> int:
    parser = argparse.ArgumentParser(description="How well are pictures of the same label found?")
    parser.add_argument("folder", type=Path, help="its folders are the labels; or demo")
    parser.add_argument("--into", type=Path, help="for the library and the plot")
    parser.add_argument("--model", default="tiny-vit-5m", help="whose quality it is")
    parser.add_argument("-k", type=int, default=20, help="how many answers are looked at")
    options = parser.parse_args()
    if options.k < 1:
        parser.error("-k must be at least 1")
    folder: Path = options.folder
    demo = str(folder) == "demo"
    into: Path = options.into or Path("demo-report" if demo else "report")
    if demo:
        folder = into / "labelled"
        make_labelled(folder)
    try:
        vectors, labels = embed(folder, into, options.model)
        quality = measure(vectors, labels, options.k)
    except (SearchlibError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print_figures(quality, labels)
    figures = f"mAP {quality.average_precision:.3f}, R@1 {quality.precision[0]:.3f}"
    plot(quality, f"{options.model}, {len(labels)} pictures: {figures}", into / "report.png")
    print(f"\n{figures}; the plot is {into / 'report.png'}")
    return 1 if demo and quality.precision[0] < 0.9 else 0


if __name__ == "__main__":
    sys.exit(main())
