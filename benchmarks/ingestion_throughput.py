"""From 12-MP files to the catalog, against what each stage of it can do alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common import BenchmarkError, median, say
from benchmarks.ingestion_stages import numbered, stage
from benchmarks.table import Row
from searchlib.ingest import processors

LEAST_OF_LIMIT = 0.85


def throughput(
    scratch: Path, jpegs: list[bytes], *, warm: int, large: int, rounds: int
) -> tuple[list[Row], dict[str, Any]]:
    """Decode only, embed only, and add, with as many threads and with a half of them.

    Args:
        scratch: an empty folder.
        jpegs: contents of files of 12 MP.
        warm: how many files warm a process up.
        large: how many are measured.
        rounds: of all that is compared.
    """
    counts = {"warm": warm, "large": large}
    folders = {"warm": scratch / "warm", "large": scratch / "large"}
    for number, (name, folder) in enumerate(folders.items()):
        folder.mkdir()
        for place in range(counts[name]):
            content = numbered(jpegs[place % len(jpegs)], number * large + place)
            (folder / f"{place:05}.jpg").write_bytes(content)
    threads = processors()
    # What a pipeline with a half of the threads for each stage could do at most.
    half = max(1, threads // 2)
    runs = {
        "decode": ("decode", threads),
        "encode": ("encode", threads),
        "add": ("add", threads),
        "decode on half": ("decode", half),
        "encode on half": ("encode", half),
    }
    names = list(runs)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            kind, count = runs[name]
            done = stage(kind, folders["large"], folders["warm"], count)
            if done["count"] != large:
                raise BenchmarkError(f"{name}: {done['count']} of {large} files")
            figures[name].append(done)
            say(f"  round {number + 1}: {name} {_rate(done):.1f} images/s")
    shares, of_work = [], []
    of_half = []
    for decoded, encoded, added, half_decoded, half_encoded in zip(
        *(figures[name] for name in names), strict=True
    ):
        of_half.append(_rate(added) / min(_rate(half_decoded), _rate(half_encoded)))
        limit = min(_rate(decoded), _rate(encoded))
        shares.append(_rate(added) / limit)
        of_work.append(_rate(added) * (1 / _rate(decoded) + 1 / _rate(encoded)))
    rates = {name: median([_rate(done) for done in figures[name]]) for name in names}
    both = 1 / (1 / rates["decode"] + 1 / rates["encode"])
    cpu, busy = (
        [
            median([done["cpu_seconds"] / done[by] for done in figures[name]])
            for name in ("decode", "encode", "add")
        ]
        for by in ("count", "seconds")
    )
    of_three = "decode / embed / Library.add"
    what = f"12-MP JPEGs, {threads} threads"
    share = median(shares)
    rows = [
        Row(f"{what}: read, hash and decode alone, images/s", f"{rates['decode']:.1f}"),
        Row(f"{what}: embed alone, images/s", f"{rates['encode']:.1f}"),
        Row(f"{what}: both on the same processors, by calculation, images/s", f"{both:.1f}"),
        Row(f"{what}: Library.add, images/s", f"{rates['add']:.1f}"),
        Row(
            f"{what}: Library.add over the slower of the two",
            f"{share:.2f}",
            {},
            f">= {LEAST_OF_LIMIT}",
            share >= LEAST_OF_LIMIT,
        ),
        Row(f"{what}: Library.add over both on the same processors", f"{median(of_work):.2f}"),
        Row(
            f"12-MP JPEGs, {half} threads: decode alone / embed alone, images/s",
            f"{rates['decode on half']:.1f} / {rates['encode on half']:.1f}",
        ),
        Row(
            f"{what}: Library.add over the slower of the two with {half}",
            f"{median(of_half):.2f}",
        ),
        Row(
            f"{what}: {of_three}, CPU ms an image",
            " / ".join(f"{1000 * each:.1f}" for each in cpu),
        ),
        Row(f"{what}: {of_three}, busy processors", " / ".join(f"{each:.2f}" for each in busy)),
    ]
    return rows, {
        "threads": threads,
        "shares": shares,
        "of_work": of_work,
        "of_half": of_half,
        "stages": figures,
    }


def _rate(figures: dict[str, Any]) -> float:
    return float(figures["count"] / figures["seconds"])
