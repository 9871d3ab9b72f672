"""Take over the vectors that a phone made, without embedding a picture again.

    python examples/phone_vectors.py [FOLDER] [--model clip]

An app that runs React Native ExecuTorch has a vector for each photograph. It writes them as JSON
lines, and the library takes them over: it keeps its own where it has one and says how far the two
are apart. This script plays the phone as well: it makes the vectors of the same encoder from
pixels that OpenCV would give it. The folder (default: demo-phone) gets the photographs, the
phone's file and the library.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import skimage.data
from PIL import Image

import searchlib
from searchlib import ImageEmbeddings, ImageEncoder
from searchlib.encoder import registry

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "page", "moon")
OURS = 3


def write_photographs(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in PHOTOGRAPHS:
        paths.append(folder / f"{name}.png")
        Image.fromarray(getattr(skimage.data, name)()).convert("RGB").save(paths[-1])
    return paths


def write_as_the_phone(paths: list[Path], model: ImageEmbeddings, file: Path) -> None:
    """One line for each photograph, as an app would write it."""
    with file.open("w", encoding="utf-8") as lines:
        for path in paths:
            row = {"path": path.name, "vector": model.forward(path).tolist()}
            lines.write(json.dumps(row) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Take over vectors that a phone made.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo-phone"))
    parser.add_argument("--model", default="tiny-vit-5m", help="of the phone and of the library")
    options = parser.parse_args()
    try:
        photographs = write_photographs(options.folder / "photographs")
        phone = ImageEmbeddings.from_model_name(options.model)
        vectors = options.folder / "phone.jsonl"
        write_as_the_phone(photographs, phone, vectors)

        encoder = ImageEncoder(registry.find(options.model))
        with searchlib.open_library(options.folder / "library", encoder=encoder) as library:
            library.add(*photographs[:OURS])
            report = library.import_vectors(
                vectors, model=options.model, root=options.folder / "photographs"
            )
            print(f"taken over: {report.stored}, had a vector already: {report.kept}")
            if report.drift is not None:
                print(f"cosine of the phone's vectors and ours: at least {report.drift.min:.4f}")
            match = library.search(photographs[-1], k=1)[0]
            print(f"nearest to {photographs[-1].name}: {Path(match.path).name}, {match.score:.3f}")
    except searchlib.SearchlibError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
