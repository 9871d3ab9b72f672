"""Where does this picture come from? Finds the original of a copy, a crop or a small version.

    python examples/reverse_lookup.py ORIGINALS PICTURE... [--library DIR] [--percentile 99.5]
    python examples/reverse_lookup.py demo

ORIGINALS is a folder; a PICTURE is a path or a URL. The score is a cosine, and what counts as high
differs from model to model and from library to library. The percentile beside it says how rare it
is: at 99.5 one in two hundred pairs of originals, put together at random, is as much alike. What is
below is called not in this library. Ask for more where many originals are alike, as in a series of
shots; for less where small and much cropped copies must be found.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import skimage.data
from PIL import Image, ImageEnhance, ImageOps

import searchlib
from searchlib import Library, Match, SearchlibError
from searchlib.errors import ImageError

PHOTOGRAPHS = (
    *("astronaut", "camera", "chelsea", "coffee", "coins"),
    *("hubble_deep_field", "immunohistochemistry", "page", "retina", "rocket", "stereo_motorcycle"),
)
STRANGERS = ("clock", "colorwheel", "logo")
HALF = (240, 300)
LEAST = 99.5
DEMO_LEAST = 90.0
"""Each original of the demo shares a half with every third other: much more than photographs do."""


def look_up(library: Library, picture: str | Path, least: float) -> tuple[Match | None, bool]:
    """The picture of a library that is most like one, and whether that is its original."""
    found = library.search(picture, k=1)
    match = found[0] if found else None
    return match, match is not None and (match.percentile or 0.0) >= least


def show(picture: str, match: Match | None, found: bool) -> None:
    if match is None:
        print(f"{picture}: not in this library, which is empty")
    elif match.percentile is None:
        print(f"{picture}: perhaps {match.path} (score {match.score:.3f}; too few others to say)")
    else:
        what = "" if found else "not in this library; nearest is "
        figures = f"score {match.score:.3f}, percentile {match.percentile:.2f}"
        print(f"{picture}: {what}{match.path} ({figures})")


def photograph(name: str) -> Image.Image:
    pixels = getattr(skimage.data, name)()
    return Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")


def make_originals(folder: Path) -> list[Path]:
    """Write postcards, two photographs on each: enough to tell what is alike by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: ImageOps.fit(photograph(name), HALF) for name in PHOTOGRAPHS}
    originals = []
    for left, right in itertools.combinations(PHOTOGRAPHS, 2):
        postcard = Image.new("RGB", (2 * HALF[0], HALF[1]))
        postcard.paste(halves[left], (0, 0))
        postcard.paste(halves[right], (HALF[0], 0))
        originals.append(folder / f"{left}-{right}.png")
        postcard.save(originals[-1])
    return originals


def make_copies(originals: list[Path], folder: Path) -> dict[Path, Path | None]:
    """Edits of some originals, and pictures that are none; gives the original of each."""
    folder.mkdir(parents=True, exist_ok=True)
    copies: dict[Path, Path | None] = {}
    for original in originals[::6]:
        with Image.open(original) as opened:
            image = opened.convert("RGB")
        width, height = image.size
        edits = {
            "again": image,
            "small": image.resize((width // 3, height // 3)),
            "cropped": image.crop((width // 10, height // 10, width, height)),
            "bright": ImageEnhance.Brightness(image).enhance(1.3),
        }
        for what, edit in edits.items():
            path = folder / f"{original.stem}-{what}.jpg"
            edit.save(path, quality=60)
            copies[path] = original
    for name in STRANGERS:
        path = folder / f"{name}.jpg"
        photograph(name).save(path)
        copies[path] = None
    return copies


def demo(folder: Path, least: float) -> int:
    """Look up pictures whose originals are known; 0 where all are right."""
    originals = make_originals(folder / "originals")
    copies = make_copies(originals, folder / "pictures")
    right = 0
    with searchlib.open_library(folder / "library") as library:
        library.add(folder / "originals")
        for picture, original in copies.items():
            match, found = look_up(library, picture, least)
            show(picture.name, match, found)
            path = Path(match.path) if match is not None and found else None
            right += path == (original and original.absolute())
    print(f"found {right} of {len(copies)}")
    return 0 if right == len(copies) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Where does this picture come from?")
    parser.add_argument("originals", type=Path, help="a folder; or demo")
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="a path or a URL")
    parser.add_argument("--library", type=Path, default=Path("lookup-library"))
    parser.add_argument("--percentile", type=float, help=f"at least; {LEAST}")
    options = parser.parse_args()
    problems = 0
    try:
        if str(options.originals) == "demo":
            return demo(Path("demo-lookup"), options.percentile or DEMO_LEAST)
        if not options.pictures:
            parser.error("name the pictures to look up")
        with searchlib.open_library(options.library) as library:
            library.add(options.originals)
            for picture in options.pictures:
                try:
                    show(picture, *look_up(library, picture, options.percentile or LEAST))
                except ImageError as error:
                    problems += 1
                    print(error, file=sys.stderr)
    except SearchlibError as error:
        print(error, file=sys.stderr)
        return 2
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
