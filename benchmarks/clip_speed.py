"""`python -m benchmarks.clip_speed`: an exported CLIP, its plain matrix work, and onnxruntime.

The models have random weights, are exported once and kept in the cache. See README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.common import ROOT, cache_folder, installed, machine, median, say
from benchmarks.table import markdown
from searchlib.encoder import load_card
from searchlib.encoder.engine import Engine, open_engine, set_threads
from searchlib.errors import SearchlibError
from searchlib.export import clip, clip_weights, lower

BATCHES = (1, 8, 32)
PAIRED_BATCHES = (1, 4, 8)
LARGEST_BATCH = 32
PICTURES_A_ROUND = 16
BAR_BATCH = 8
MOST_OF_MATRIX_WORK = 1.15
LEAST_OF_ONNXRUNTIME = 3.0

Work = Callable[[], object]


class MatrixWork(nn.Module):  # type: ignore[misc]
    """The matrix products of an image tower, with the same sizes, and nothing between them.

    The last layer is as in the tower: for one place but for its keys and values.
    """

    def __init__(self, sizes: clip.Vision) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.patch = _linear(3 * sizes.patch**2, width)
        # The gains keep the numbers of the chain from growing without bound.
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    _linear(width, width, 0.1),
                    _linear(width, width, 0.5),
                    _linear(width, width),
                    _linear(width, width),
                    _linear(width, sizes.hidden),
                    _linear(sizes.hidden, width),
                ]
            )
            for _ in range(sizes.layers)
        )
        self.head = _linear(width, sizes.dimension)

    def forward(self, patches: Tensor, places: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
        """All products.

        Args:
            patches: [n, patches, 3 * patch²].
            places: [n, places, width].
            one: [n, 1, width].
        """
        first: Tensor = self.patch(patches)
        x, part = places, self.sizes.width // self.sizes.heads
        for number, (query, key, value, out, fc1, fc2) in enumerate(self.layers):
            asking = one if number == self.sizes.layers - 1 else x
            known = x.shape[1]
            count = asking.shape[1]
            scores = torch.bmm(
                self._by_head(query(asking), count, part), self._by_head(key(x), part, known)
            )
            mixed = torch.bmm(scores, self._by_head(value(x), known, part))
            x = fc2(
                fc1(
                    out(
                        mixed.reshape(x.shape[0], self.sizes.heads, count, part).reshape(
                            x.shape[0], count, -1
                        )
                    )
                )
            )
        return first, self.head(x)

    def _by_head(self, x: Tensor, rows: int, columns: int) -> Tensor:
        # In two steps, each of which leaves one dimension to be inferred.
        split = x.reshape(x.shape[0], self.sizes.heads, rows, columns)
        return split.reshape(-1, rows, columns)


def _linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=gain / math.sqrt(inputs))
    return linear


def main() -> int:
    """Run it all."""
    options = _options()
    try:
        say("exporting what is not in the cache")
        files = _files(cache_folder(options.cache), options.patch)
        set_threads(options.threads)
        results = {batch: _speeds(files, batch, options) for batch in options.batches}
        arrangements = _arrangements(files["int8"], options)
        cards = [load_card(path) for path in options.models or []]
        own = {str(card.path): _card_speeds(card.path, options) for card in cards}
    except SearchlibError as error:
        say(f"benchmarks: {error}")
        return 1
    delegates = {name: _delegates(files[name]) for name in ("int8", "fp32", "matrix")}
    raw = {
        "machine": machine(),
        "model": f"ViT-B/{options.patch}, random weights",
        "threads": options.threads,
        "delegates": delegates,
        "seconds": results,
        "images_per_second": arrangements,
        "cards": own,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    facts: Any = raw["machine"]
    print(f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, {facts['date']}")
    print(f"\nViT-B/{options.patch}, {options.threads} threads; milliseconds for a picture\n")
    print(markdown(_lines(results)))
    print(f"\n{markdown(_arrangement_lines(arrangements))}\n")
    if own:
        print(f"{markdown(_card_lines(own))}\n")
    print(f"- Delegates: int8 {delegates['int8']}, fp32 {delegates['fp32']}.")
    bars = results.get(BAR_BATCH)
    if bars:
        ratio, faster = _ratio(bars, "int8", "matrix"), _ratio(bars, "onnxruntime", "int8")
        print(
            f"- Batch {BAR_BATCH}: {ratio:.2f} x the matrix work (at most {MOST_OF_MATRIX_WORK}: "
            f"{_met(ratio <= MOST_OF_MATRIX_WORK)}), {faster:.1f} x as fast as onnxruntime fp32 "
            f"(at least {LEAST_OF_ONNXRUNTIME:.0f}: {_met(faster >= LEAST_OF_ONNXRUNTIME)})."
        )
    if options.quick:
        print("- --quick: too little was measured for these figures to mean anything.")
    say(f"all figures: {options.out}")
    return 0


def _met(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clip_speed", description="Speed of an exported CLIP."
    )
    parser.add_argument("--patch", type=int, choices=[16, 32], default=32, help="of ViT-B (32)")
    parser.add_argument("--threads", type=int, default=2, help="for each of the peers (2)")
    parser.add_argument("--rounds", type=int, default=10, help="of all, one after another (10)")
    parser.add_argument(
        "--models", type=Path, nargs="+", metavar="CARD", help="card.toml of models to time as well"
    )
    parser.add_argument("--cache", type=Path, help="where the exported models are kept")
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "clip_speed.json"
    )
    options = parser.parse_args()
    options.batches = BATCHES
    if options.quick:
        options.rounds, options.batches = 2, (1, BAR_BATCH)
    return options


# -- The models ---------------------------------------------------------------------------------


def _files(cache: Path, patch: int) -> dict[str, Path]:
    """The programs and the ONNX file, made where they are missing."""
    digest = hashlib.sha256()
    for module in (clip, clip_weights, lower, sys.modules[__name__]):
        digest.update(Path(str(module.__file__)).read_bytes())
    for package in ("torch", "torchao", "executorch", "transformers"):
        digest.update(importlib.metadata.version(package).encode())
    folder = cache / "clip" / f"vit-b-{patch}-{digest.hexdigest()[:16]}"
    names = ["matrix.pte", "int8.pte", "fp32.pte"]
    if installed("onnx"):
        names.append("onnxruntime.onnx")
    files = {Path(name).stem: folder / name for name in names}
    if not all(file.exists() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        _export(files, patch)
    return files


def _export(files: dict[str, Path], patch: int) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(patch_size=patch, projection_dim=512)
    reference = CLIPVisionModelWithProjection(config)
    reference.train(False)
    tower = clip_weights.image_tower(reference)
    sizes = tower.sizes
    pixels = torch.zeros(2, 3, sizes.side, sizes.side)
    dynamic = (0, LARGEST_BATCH)
    inputs = (
        torch.zeros(2, sizes.places - 1, 3 * patch**2),
        torch.zeros(2, sizes.places, sizes.width),
        torch.zeros(2, 1, sizes.width),
    )
    work = MatrixWork(sizes)
    _write(files["matrix"], lower.lower(work, *inputs, precision="int8", dynamic=dynamic))
    _write(files["fp32"], lower.lower(tower, pixels, precision="fp32", dynamic=dynamic))
    tower.turn()
    tower.round_patches()
    _write(files["int8"], lower.lower(tower, pixels, precision="int8", dynamic=dynamic))
    if "onnxruntime" in files:
        _write_onnx(files["onnxruntime"], reference, pixels)


class _Vectors(nn.Module):  # type: ignore[misc]
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.model(pixel_values=pixels).image_embeds
        return vectors


def _write_onnx(path: Path, reference: nn.Module, pixels: Tensor) -> None:
    partial = path.with_suffix(".partial")
    with warnings.catch_warnings():
        # The exporter's remarks on transformers' code.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Vectors(reference),
            (pixels,),
            str(partial),
            input_names=["pixels"],
            output_names=["vectors"],
            dynamic_axes={"pixels": {0: "n"}, "vectors": {0: "n"}},
            dynamo=False,
        )
    partial.replace(path)


def _write(path: Path, program: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(program)
    partial.replace(path)


def _delegates(path: Path) -> int:
    from executorch.exir._serialize._program import deserialize_pte_binary

    read = deserialize_pte_binary(path.read_bytes())
    plan = getattr(read, "program", read).execution_plan[0]
    return len(plan.delegates)


# -- The measurements ---------------------------------------------------------------------------


def _speeds(
    files: dict[str, Path], batch: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds for a picture, of each round: one peer after the other in each."""
    say(f"batch {batch}")
    random = np.random.default_rng(0)
    work: dict[str, Work] = {}
    for name, path in files.items():
        if name == "onnxruntime":
            work[name] = _onnxruntime(path, _pixels(random, batch), options.threads)
        else:
            work[name] = _engine_work(open_engine(path), random, batch)
    times: dict[str, list[float]] = {name: [] for name in work}
    for one in work.values():
        one()
    for _ in range(options.rounds):
        for name, one in work.items():
            times[name].append(_seconds(one, max(1, PICTURES_A_ROUND // batch)) / batch)
    return times


def _seconds(work: Work, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def _pixels(random: np.random.Generator, batch: int) -> NDArray[np.float32]:
    return random.random((batch, 3, 224, 224), dtype=np.float32)


def _engine_work(engine: Engine, random: np.random.Generator, batch: int) -> Work:
    inputs = [
        random.random((min(batch, spec.shape[0]), *spec.shape[1:]), dtype=np.float32)
        for spec in engine.inputs
    ]
    return lambda: engine.run(inputs)


def _onnxruntime(path: Path, pixels: NDArray[np.float32], threads: int) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads wait for the next run on the processor; the next one to run is not of its own.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"pixels": pixels})


def _arrangements(path: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Pictures a second: one engine on two threads, or two engines with a thread each."""
    say("one engine or two")
    random = np.random.default_rng(0)
    engines = [open_engine(path), open_engine(path)]
    rates: dict[str, list[float]] = {}
    for number in range(options.rounds // 2 + 1):
        for threads in (2, 1):
            set_threads(threads)
            for batch in PAIRED_BATCHES:
                used = engines[: 3 - threads]
                pixels = _pixels(random, batch)
                repeats = max(1, PICTURES_A_ROUND // batch)
                # The first run after a change of the threads prepares the weights again.
                _together(used, pixels, 1)
                seconds = _together(used, pixels, repeats)
                if number:
                    name = f"{len(used)} x {threads} thread{'s' * (threads > 1)}, batch {batch}"
                    rates.setdefault(name, []).append(len(used) * batch * repeats / seconds)
    set_threads(options.threads)
    return rates


def _together(engines: Sequence[Engine], pixels: NDArray[np.float32], repeats: int) -> float:
    def run(engine: Engine) -> None:
        for _ in range(repeats):
            engine.run([pixels])

    workers = [threading.Thread(target=run, args=(engine,)) for engine in engines]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - start


def _card_speeds(path: Path, options: argparse.Namespace) -> list[float]:
    """Seconds for one picture with the model of a card."""
    work = _engine_work(open_engine(path), np.random.default_rng(0), 1)
    work()
    return [_seconds(work, PICTURES_A_ROUND) for _ in range(options.rounds)]


# -- The tables ---------------------------------------------------------------------------------


def _ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """The median over the rounds; what disturbs a round disturbs both."""
    return median([a / b for a, b in zip(times[over], times[under], strict=True)])


def _lines(results: dict[int, dict[str, list[float]]]) -> list[list[str]]:
    lines = [["batch", "matrix work", "int8", "ratio", "fp32", "onnxruntime fp32", "speed-up"]]
    for batch, times in results.items():
        peer = ["", ""]
        if "onnxruntime" in times:
            faster = _ratio(times, "onnxruntime", "int8")
            peer = [_milliseconds(times["onnxruntime"]), f"{faster:.2f}"]
        lines.append(
            [
                str(batch),
                _milliseconds(times["matrix"]),
                _milliseconds(times["int8"]),
                f"{_ratio(times, 'int8', 'matrix'):.3f}",
                _milliseconds(times["fp32"]),
                *peer,
            ]
        )
    return lines


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{median(seconds) * 1000:.2f}"


def _arrangement_lines(rates: dict[str, list[float]]) -> list[list[str]]:
    return [["int8, engines", "images/s"], *([k, f"{median(v):.1f}"] for k, v in rates.items())]


def _card_lines(speeds: dict[str, list[float]]) -> list[list[str]]:
    return [["model", "single ms"], *([Path(k).stem, _milliseconds(v)] for k, v in speeds.items())]


if __name__ == "__main__":
    sys.exit(main())
