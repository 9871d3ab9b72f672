"""`python -m benchmarks.model_quality`: how well encoders retrieve, and how fast they are.

Every model is measured with its picture squashed to the input's shape and with the middle cut out.
See README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import ROOT, machine, median, percentile, say
from benchmarks.labelled import Labelled, Quality, quality, sets
from benchmarks.table import markdown
from searchlib.encoder import ImageEncoder, ModelCard, built_in_card, load_card
from searchlib.encoder.preprocess import prepare
from searchlib.errors import ImageError, SearchlibError
from searchlib.images import load

Resize = Literal["squash", "crop"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SPEED_PICTURES = 64
SPEED_ROUNDS = 3
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """A model with a way to prepare pictures.

    Attributes:
        name: for the table; the model's file and the way.
        encoder: of it.
        resize: the way.
    """

    name: str
    encoder: ImageEncoder | OnnxEncoder
    resize: Resize


class OnnxEncoder:
    """A CLIP image tower in ONNX, run by onnxruntime, with the preprocessing of a card.

    Args:
        path: takes `pixel_values`, normalised as CLIP does it, and gives `image_embeds`.
        card: whose preprocessing it gets, without normalisation.
    """

    def __init__(self, path: Path, card: ModelCard) -> None:
        import onnxruntime

        self.card = replace(card, path=path, bytes=path.stat().st_size, sha256=None)
        self._spec = replace(card.preprocessing, mean=CLIP_MEAN, std=CLIP_STD)
        self._path = path
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.min_side = ImageEncoder(card).min_side

    def embed(self, image: Image.Image) -> NDArray[np.float32]:
        """As ImageEncoder.embed."""
        pixels = prepare(image, self._spec)[None]
        (output,) = self._session.run(["image_embeds"], {"pixel_values": pixels})
        vector: NDArray[np.float32] = output[0] / np.linalg.norm(output[0])
        return vector

    @contextmanager
    def for_throughput(self, workers: int) -> Iterator[None]:  # noqa: ARG002
        """Nothing to arrange: onnxruntime has its threads."""
        yield


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a variant is on decoded pictures: resize and model.

    Attributes:
        single_ms: one picture at a time, the model on all cores; of each picture.
        images_per_second: of each round over all pictures, a thread for each core.
    """

    single_ms: list[float]
    images_per_second: list[float]


def main() -> int:
    """Run it all."""
    options = _options()
    try:
        variants = _variants(options.models, options.clip_onnx)
        found, absent = sets(options.data)
        for name in absent:
            say(f"{name}: not in {options.data}; skipped")
        if not found:
            say(f"benchmarks: {options.data}: there is no set here")
            return 1
        if options.quick:
            found = [replace(each, items=each.items[:40]) for each in found]
        results, cosines, pictures = _qualities(variants, found)
        speeds = [_speed(variant, pictures, quick=options.quick) for variant in variants]
    except SearchlibError as error:
        say(f"benchmarks: {error}")
        return 1
    raw = {**_as_json(variants, found, results, speeds), "cosines": cosines}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    facts = raw["machine"]
    print(f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, {facts['date']}\n")
    print(markdown(_lines(variants, found, results, speeds)))
    if cosines:
        lines = [["cosines of the vectors", "mean", "1 %", "min"]]
        for pair, (mean, low, least) in cosines.items():
            lines.append([pair, f"{mean:.4f}", f"{low:.4f}", f"{least:.4f}"])
        print(f"\n{markdown(lines)}")
    if options.quick:
        print("\n- --quick: too little was measured for these figures to mean anything.")
    say(f"all figures: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.model_quality", description="Quality and speed of encoders."
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of labelled sets")
    parser.add_argument(
        "--models", type=Path, nargs="+", metavar="CARD", help="card.toml of each; the built-in one"
    )
    parser.add_argument(
        "--clip-onnx", type=Path, metavar="FILE", help="a CLIP image tower for onnxruntime, beside"
    )
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "model_quality.json"
    )
    return parser.parse_args()


def _variants(paths: Sequence[Path] | None, onnx: Path | None) -> list[Variant]:
    variants = []
    cards = [load_card(path) for path in paths] if paths else [built_in_card()]
    for resize in get_args(Resize):
        others = [
            replace(card, preprocessing=replace(card.preprocessing, resize=resize))
            for card in cards
        ]
        for card in others:
            name = f"{card.path.stem}, {resize}"
            variants.append(Variant(name, ImageEncoder(card), resize))
        if onnx is not None:
            name = f"onnxruntime {onnx.stem}, {resize}"
            variants.append(Variant(name, OnnxEncoder(onnx, others[0]), resize))
    return variants


_Cosines = dict[str, tuple[float, float, float]]


def _qualities(
    variants: Sequence[Variant], found: Sequence[Labelled]
) -> tuple[list[list[Quality]], _Cosines, list[Image.Image]]:
    """The quality of each variant on each set, and some decoded pictures to measure speed on.

    Between them: of each two variants that may be compared the cosines of their vectors, as mean,
    1 % and minimum.
    """
    results: list[list[Quality]] = [[] for _ in variants]
    cosines: dict[str, list[NDArray[np.float32]]] = {}
    pictures: list[Image.Image] = []
    for labelled in found:
        say(f"{labelled.name}: {len(labelled.items)} pictures")
        vectors, labels = _embedded(variants, labelled, pictures)
        for row, own in zip(results, vectors, strict=True):
            row.append(quality(own, labels))
        for (one, own), (other, others) in itertools.combinations(
            zip(variants, vectors, strict=True), 2
        ):
            if one.resize == other.resize and own.shape == others.shape:
                parts = cosines.setdefault(f"{one.name} : {other.name}", [])
                parts.append((own * others).sum(axis=1))
    spreads = {}
    for pair, parts in cosines.items():
        values = np.concatenate(parts)
        low = float(np.percentile(values, 1))
        spreads[pair] = (float(values.mean()), low, float(values.min()))
    return results, spreads, pictures


def _embedded(
    variants: Sequence[Variant], labelled: Labelled, pictures: list[Image.Image]
) -> tuple[list[NDArray[np.float32]], list[str]]:
    """The vectors of a set for each variant, and their labels; every picture is decoded once."""
    workers = os.cpu_count() or 1
    vectors: list[list[NDArray[np.float32]]] = [[] for _ in variants]
    labels = []
    with ExitStack() as stack:
        for variant in variants:
            stack.enter_context(variant.encoder.for_throughput(workers))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for result, (path, label) in zip(
            _ahead(pool, partial(_embed, variants), labelled.items, 4 * workers),
            labelled.items,
            strict=True,
        ):
            if isinstance(result, ImageError):
                say(f"{path}: {result.reason}; left out")
                continue
            picture, own = result
            if len(pictures) < SPEED_PICTURES:
                pictures.append(picture)
            labels.append(label)
            for row, vector in zip(vectors, own, strict=True):
                row.append(vector)
    return [np.stack(row) for row in vectors], labels


_Embedded = tuple[Image.Image, list[NDArray[np.float32]]]


def _embed(variants: Sequence[Variant], item: tuple[Path, str]) -> _Embedded | ImageError:
    sides = [variant.encoder.min_side for variant in variants]
    known = [side for side in sides if side is not None]
    # A variant that wants all pixels gets them, and the others with it.
    least = None
    if len(known) == len(sides):
        least = max(width for width, _ in known), max(height for _, height in known)
    try:
        picture = load(item[0], min_side=least).pixels
    except ImageError as error:
        return error
    return picture, [variant.encoder.embed(picture) for variant in variants]


def _ahead(
    pool: ThreadPoolExecutor,
    work: partial[_Embedded | ImageError],
    items: Sequence[tuple[Path, str]],
    count: int,
) -> Iterator[_Embedded | ImageError]:
    """Results in order; decoded pictures are large, so only a few wait to be taken."""
    for first in range(0, len(items), count):
        yield from pool.map(work, items[first : first + count])


def _speed(variant: Variant, pictures: Sequence[Image.Image], *, quick: bool) -> Speed:
    say(f"speed of {variant.name}")
    # A new encoder: the one that embedded the sets has the engines of many threads.
    encoder = variant.encoder
    if isinstance(encoder, ImageEncoder):
        encoder = ImageEncoder(encoder.card)
    single = []
    for number, picture in enumerate([*pictures[:_WARM_UP], *pictures]):
        start = time.perf_counter()
        encoder.embed(picture)
        if number >= _WARM_UP:
            single.append((time.perf_counter() - start) * 1000)
    rates = []
    workers = os.cpu_count() or 1
    with encoder.for_throughput(workers), ThreadPoolExecutor(workers) as pool:
        list(pool.map(encoder.embed, pictures[: 4 * workers]))
        for _ in range(1 if quick else SPEED_ROUNDS):
            start = time.perf_counter()
            list(pool.map(encoder.embed, pictures))
            rates.append(len(pictures) / (time.perf_counter() - start))
    return Speed(single, rates)


def _lines(
    variants: Sequence[Variant],
    found: Sequence[Labelled],
    results: Sequence[Sequence[Quality]],
    speeds: Sequence[Speed],
) -> list[list[str]]:
    heads = [_heads(labelled) for labelled in found]
    lines = [["model", *itertools.chain(*heads), "images/s", "single ms"]]
    for variant, own, speed in zip(variants, results, speeds, strict=True):
        cells = [_cells(labelled, each) for labelled, each in zip(found, own, strict=True)]
        rates = [f"{median(speed.images_per_second):.1f}", f"{median(speed.single_ms):.1f}"]
        lines.append([variant.name, *itertools.chain(*cells), *rates])
    return lines


def _is_copies(labelled: Labelled) -> bool:
    return labelled.name.startswith("copies")


def _heads(labelled: Labelled) -> list[str]:
    if _is_copies(labelled):
        return [f"{labelled.name} mAP"]
    return [f"{labelled.name} R@1", f"{labelled.name} mAP"]


def _cells(labelled: Labelled, result: Quality) -> list[str]:
    if _is_copies(labelled):
        return [f"{result.precision:.3f}"]
    return [f"{result.first:.3f}", f"{result.precision:.3f}"]


def _as_json(
    variants: Sequence[Variant],
    found: Sequence[Labelled],
    results: Sequence[Sequence[Quality]],
    speeds: Sequence[Speed],
) -> dict[str, Any]:
    models = []
    for variant, own, speed in zip(variants, results, speeds, strict=True):
        card = variant.encoder.card
        models.append(
            {
                "name": variant.name,
                "sha256": card.sha256,
                "bytes": card.bytes,
                "preprocessing": asdict(card.preprocessing),
                "sets": {
                    labelled.name: asdict(each) for labelled, each in zip(found, own, strict=True)
                },
                "single_ms_p50": median(speed.single_ms),
                "single_ms_p95": percentile(speed.single_ms, 95),
                **asdict(speed),
            }
        )
    return {"machine": machine(), "speed_pictures": SPEED_PICTURES, "models": models}


if __name__ == "__main__":
    sys.exit(main())
