"""Find near-duplicates of real photographs: makes a small album, adds it, asks for each original.

    python examples/near_duplicates.py [FOLDER]

The photographs come with scikit-image; the edits are what happens to pictures in real life. The
folder (default: demo) gets the album, the library and a contact sheet.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import skimage.data
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

import searchlib

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "page", "moon")
TILE = (160, 116)
CAPTION = 16


def edits(image: Image.Image) -> dict[str, Image.Image]:
    """What messengers, phones and people do to a photograph."""
    width, height = image.size
    return {
        "small": image.resize((width // 3, height // 3)),
        "cropped": image.crop((width // 10, height // 10, width, height)),
        "bright": ImageEnhance.Brightness(image).enhance(1.4),
        "grey": ImageOps.grayscale(image).convert("RGB"),
        "bordered": ImageOps.expand(image, width // 20, "white"),
    }


def make_album(folder: Path) -> list[Path]:
    """Write the photographs and their edits; gives the photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = []
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        originals.append(folder / f"{name}.png")
        image.save(originals[-1])
        for what, edit in edits(image).items():
            edit.save(folder / f"{name}-{what}.jpg", quality=70)
    return originals


def draw(rows: Sequence[Sequence[searchlib.Match]], target: Path) -> None:
    """A contact sheet: a row for each question, the question first."""
    width, height = TILE[0], TILE[1] + CAPTION
    sheet = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, match in enumerate(row):
            with Image.open(match.path) as image:
                tile = ImageOps.pad(image.convert("RGB"), (TILE[0] - 4, TILE[1] - 4), color="white")
            sheet.paste(tile, (x * width + 2, y * height + 2))
            caption = f"{match.score:.3f}  {Path(match.path).name}"
            pen.text((x * width + 3, y * height + TILE[1]), caption, fill="black")
    sheet.save(target, quality=80)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    originals = make_album(folder / "album")
    count = len(edits(Image.new("RGB", (100, 100)))) + 1
    with searchlib.open_library(folder / "library") as library:
        report = library.add(folder / "album")
        print(f"{library.status().images} images, {report.added} of them new")
        rows = [library.search(path, k=count) for path in originals]
    found = 0
    for path, row in zip(originals, rows, strict=True):
        right = [match for match in row[1:] if Path(match.path).name.startswith(path.stem)]
        found += len(right)
        print(f"\n{path.name}: {len(right)} of {count - 1} edits in the first {count - 1}")
        for match in row:
            print(f"  {match.score:.3f}  {Path(match.path).name}")
    draw(rows, folder / "matches.jpg")
    total = (count - 1) * len(originals)
    print(f"\nfound {found} of {total} edits; the contact sheet is {folder / 'matches.jpg'}")


if __name__ == "__main__":
    main()
