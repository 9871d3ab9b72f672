"""`python -m benchmarks.draft`: what decoding a JPEG at a fraction of its size does to its vector.

For each photograph the cosine of the vector made from all pixels and the one made from a JPEG
decoded to at least 2, 3 or 4 times the model's input. See README.md.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import photographs
from benchmarks.common import ROOT, BenchmarkError, machine, say
from benchmarks.table import markdown
from searchlib.encoder import ImageEncoder, built_in_card, load_card
from searchlib.errors import SearchlibError
from searchlib.images import load

FACTORS = (2, 3, 4)
LEAST = 0.999
"""The cosine that every photograph must reach for a model to be given less than all pixels."""


def main() -> int:
    """Run it."""
    options = _options()
    try:
        encoders = [ImageEncoder(load_card(path)) for path in options.models or []]
        encoders = encoders or [ImageEncoder(built_in_card())]
        cosines: dict[str, dict[int, list[float]]] = {
            encoder.card.path.stem: {factor: [] for factor in FACTORS} for encoder in encoders
        }
        for name, content in _jpegs(options):
            full = load(content).pixels
            for encoder in encoders:
                whole = encoder.embed(full)
                spec = encoder.card.preprocessing
                for factor in FACTORS:
                    part = load(content, min_side=(factor * spec.width, factor * spec.height))
                    if part.pixels.size == full.size:
                        continue  # too small for a fraction
                    cosine = float(encoder.embed(part.pixels) @ whole)
                    cosines[encoder.card.path.stem][factor].append(cosine)
                    if cosine < LEAST:
                        say(f"{name}, {encoder.card.path.stem}, {factor}: {cosine:.5f}")
    except (SearchlibError, BenchmarkError) as error:
        say(f"benchmarks: {error}")
        return 1
    lines = [["model", "at least", "photographs", "min", "1 %", "mean", f"below {LEAST}"]]
    for model, by_factor in cosines.items():
        for factor, values in by_factor.items():
            if values:
                lines.append(
                    [
                        model,
                        f"{factor} x",
                        str(len(values)),
                        f"{min(values):.5f}",
                        f"{np.percentile(values, 1):.5f}",
                        f"{np.mean(values):.5f}",
                        str(sum(value < LEAST for value in values)),
                    ]
                )
    print(markdown(lines))
    raw = {"machine": machine(), "cosines": cosines}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    say(f"all figures: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.draft", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of photographs, used as they are too")
    parser.add_argument("--models", type=Path, nargs="+", metavar="CARD", help="card.toml of each")
    parser.add_argument("--count", type=int, default=60, help="edited photographs of 12 MP")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "draft.json")
    return parser.parse_args()


def _jpegs(options: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """Large JPEGs: those of the folder, and edited ones of 12 MP."""
    if options.data is not None:
        for path in sorted(options.data.rglob("*")):
            if path.suffix.lower() in (".jpg", ".jpeg") and _is_large(path):
                yield path.name, path.read_bytes()
    origin = photographs.source(options.data)
    edited = photographs.pictures(origin, "draft", "12mp", options.count)
    for number, (image, quality) in enumerate(edited):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        yield f"12-MP photograph {number}", buffer.getvalue()


def _is_large(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return min(image.size) >= 800
    except Exception:  # whatever a broken file makes a plugin raise
        return False


if __name__ == "__main__":
    sys.exit(main())
