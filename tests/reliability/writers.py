"""Programs that change a folder of pictures, as other programs and people do.

`storm ROOT COUNT SEED` makes as many files as asked for, as fast as it can. `upset ROOT SEED` does
anything until it is ended, and obeys "pause" and "go" on its standard input.
"""

from __future__ import annotations

import io
import os
import random
import select
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

FOLDERS = 200


def content(number: int, kind: str) -> bytes:
    chance = random.Random(number)
    width, height = chance.randint(8, 24), chance.randint(8, 24)
    image = Image.frombytes("RGB", (width, height), chance.randbytes(3 * width * height))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue() + chance.randbytes(chance.randint(1, 500))


def contents(seed: int) -> Iterator[bytes]:
    """Pictures without end, no two of the same bytes, as quickly as a disk takes them."""
    chance = random.Random(seed)
    some = [content(seed * 10_000 + number, ("JPEG", "PNG")[number % 2]) for number in range(400)]
    while True:
        yield chance.choice(some) + chance.randbytes(chance.randint(8, 300))


def storm(root: Path, count: int, seed: int) -> None:
    """Files into 200 new folders: nested, or filled elsewhere and put in place by a rename.

    A tenth are copies, some are hard links, some come under another name first, some are written
    in two steps, with the file kept open or closed between the two.
    """
    aside = root.parent / f"{root.name}-aside"
    aside.mkdir()
    pictures = contents(seed)
    unfinished = []
    written: list[Path] = []
    for number in range(FOLDERS):
        kind = number % 5
        place = root / f"{number:03}"
        if kind == 1:
            place = place / "deep" / "deeper"
        target = aside / f"{number:03}" if kind == 0 else place
        target.mkdir(parents=True)
        for each in range(number, count, FOLDERS):
            path = target / f"{each:06}{'.jpg' if each % 3 else '.png'}"
            way = each // FOLDERS % 20
            if way in (0, 10) and written:
                shutil.copyfile(written[each % len(written)], path.with_suffix(".jpg"))
                continue
            if way == 1 and written and kind != 0:
                path.hardlink_to(written[-1])
                continue
            data = next(pictures)
            if way in (2, 12):
                file = path.open("wb")
                file.write(data[: len(data) // 2])
                file.flush()
                if way == 12:
                    file.close()
                unfinished.append((path, file, data))
                continue
            if way == 3:
                path.with_suffix(".part").write_bytes(data)
                path.with_suffix(".part").rename(path)
            elif way == 4:
                (target / f".tmp-{each}.jpg").write_bytes(data)
                (target / f".tmp-{each}.jpg").rename(path)
            else:
                path.write_bytes(data)
            if kind != 0:
                written.append(path)
        if len(unfinished) > 60 or number == FOLDERS - 1:
            time.sleep(0.5)
            for path, file, data in unfinished:
                if file.closed:
                    file = path.open("ab")
                with file:
                    file.write(data[len(data) // 2 :])
            unfinished.clear()
        if kind == 0:
            for path, file, data in unfinished:
                if path.parent == target:
                    with file if not file.closed else path.open("ab") as rest:
                        rest.write(data[len(data) // 2 :])
            unfinished = [each for each in unfinished if each[0].parent != target]
            target.rename(place)
    aside.rmdir()
    sys.stdout.write("done\n")


def upset(root: Path, seed: int) -> None:
    """Write, edit, copy, link, move, swap and delete files and folders."""
    chance = random.Random(seed)
    number = seed * 1_000_000
    while True:
        if select.select([sys.stdin], [], [], 0)[0]:
            word = sys.stdin.readline().strip()
            if not word:
                return
            if word == "pause":
                _say("paused")
                word = sys.stdin.readline().strip()
                if not word:
                    return
            _say("going")
        number += 1
        try:
            _upset_once(root, chance, number)
        except FileNotFoundError:
            continue
        time.sleep(chance.choice((0, 0, 0.001, 0.02)))


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def _upset_once(root: Path, chance: random.Random, number: int) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    folders = sorted({path.parent for path in files if path.parent != root})
    ends = (".jpg", ".JPG", ".png", ".jpeg")
    name = f"{chance.choice(('a', 'bé', 'c c'))}{chance.randrange(60)}{chance.choice(ends)}"
    place = root / chance.choice((".", "x", "y", "x/deep", "y/deep/er", "z\n"))
    anywhere = place / name
    if anywhere.is_dir():
        return
    place.mkdir(parents=True, exist_ok=True)
    data = content(number, chance.choice(("JPEG", "PNG")))
    one, other = (chance.choice(files), chance.choice(files)) if files else (anywhere, anywhere)
    # Who writes through one of two hard links is told of under that name alone; the other one is
    # noticed by the next scan.
    for path in (one, anywhere):
        if path.exists() and path.stat().st_nlink > 1:
            path.unlink()
            path.write_bytes(data)
    ways = ("write", "edit", "steps", "temp", "copy", "link", "move", "swap", "delete", "touch",
            "folder", "drop", "twin")  # fmt: skip
    match chance.choice(("write", "write", "delete", *ways) if len(files) > 60 else
                        ("write", "write", "write", *ways)):  # fmt: skip
        case "edit" if files:
            with one.open("r+b") as file:
                file.write(data)
                file.truncate()
        case "steps":
            with anywhere.open("wb") as file:
                file.write(data[:300])
                file.flush()
                time.sleep(0.05)
                file.write(data[300:])
        case "temp":
            aside = place / f".{name}.{number}.tmp"
            aside.write_bytes(data)
            aside.replace(anywhere)
        case "copy" if files and one != anywhere and not _same(one, anywhere):
            shutil.copyfile(one, anywhere)
        case "link" if files and not anywhere.exists():
            anywhere.hardlink_to(one)
        case "move" if files:
            one.replace(anywhere)
        case "swap" if one != other:
            aside = root / f".aside-{number}"
            one.rename(aside)
            other.rename(one)
            aside.rename(other)
        case "delete" if files:
            one.unlink()
        case "touch" if files:
            with one.open("ab") as file:
                os.utime(file.fileno(), ns=(chance.randrange(10**18), chance.randrange(10**18)))
        case "folder" if folders:
            target = root / f"moved-{number % 7}"
            if not target.exists():
                chance.choice(folders).rename(target)
        case "drop" if len(folders) > 4:
            shutil.rmtree(chance.choice(folders))
        case "twin" if files:
            turned = one.with_name(one.name.swapcase())
            if not turned.exists():
                one.rename(turned)
        case _:
            anywhere.write_bytes(data)


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["storm", root, count, seed]:
            storm(Path(root), int(count), int(seed))
        case ["upset", root, seed]:
            upset(Path(root), int(seed))
