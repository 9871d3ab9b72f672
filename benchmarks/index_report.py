"""The tables of `benchmarks.index`: what was measured, the bars, and what goes into `indexes/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import BenchmarkError, median, megabytes, percentile
from benchmarks.index_ours import is_of_product, recipes
from benchmarks.index_peers import TARGET
from benchmarks.table import Row, markdown, table

MOST_OVERHEAD = 0.05
OVERHEAD_FROM = 100_000
GAIN_AT = 100_000
LEAST_GAIN = 2.5
LARGE_FROM = 1_000_000
MOST_MS = 3.0
MOST_MEMORY = 0.8e9
MOST_OPEN_SECONDS = 1.0
MOST_FIRST_SECONDS = 0.2
MOST_SPREAD = 5.0
MOST_JOIN_MEMORY = 1e9
MOST_STOP_MS = 20.0
WINDOW = 100
"""Queries of a growing index that count as of one size."""

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
_MEASURED = re.compile(r"\n*((^#.*\n)+)?^\[measured\]\n.*\Z", re.MULTILINE | re.DOTALL)

Raw = dict[str, Any]


def report(raw: Raw, names: Sequence[str]) -> str:
    """What was measured, in Markdown: the vectors, a table for each part, and the bars."""
    facts = raw["machine"]
    parts = [
        f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, {facts['date']}",
        shapes(raw["vectors"]),
    ]
    texts = {"speed": _speed, "streaming": _streaming, "filters": _filters, "join": _join}
    parts += [texts[name](raw[name]) for name in names if name in texts and name in raw]
    found = bars({name: raw[name] for name in names if name in raw})
    if found:
        parts.append(table(found))
    parts.append("\n".join(f"- {note}" for note in raw.get("notes", [])))
    return "\n\n".join(part for part in parts if part)


def shapes(found: Raw) -> str:
    """The vectors from the queries: the real part and each base."""
    lines = [["base", "intrinsic dimension", "cosine of the first", "cosine of the tenth"]]
    for number, shape in enumerate([found["real"], *found["bases"]]):
        name = f"{shape['vectors']:,}" + (" real" if number == 0 else "")
        spreads = [" / ".join(f"{x:.2f}" for x in shape[which]) for which in ("first", "tenth")]
        lines.append([name, f"{shape['dimension']:.1f}", *spreads])
    return f"{found['what']}; {found['queries']} others to ask with:\n\n{markdown(lines)}"


def bars(raw: Raw) -> list[Row]:
    """What was aimed at."""
    rows: list[Row] = []
    for size, found in sorted(raw.get("speed", {}).items(), key=lambda item: int(item[0])):
        rows += _speed_bars(int(size), found)
    if "memory" in raw:
        rows += _memory_bars(raw["memory"])
    if "streaming" in raw:
        what = f"0 to {raw['streaming']['size']:,} by single additions, p99 over the median"
        for worst in sorted(_spreads(raw["streaming"]["queries"]))[-1:]:
            what = f"{what}, worst of {WINDOW} queries"
            rows.append(_at_most(what, worst, MOST_SPREAD, "{:.1f}"))
    if "checkpoint" in raw:
        found = raw["checkpoint"]
        for name in [key for key in found if key not in ("size", "default")]:
            longest, usual = found[name]["during_ms"]["max"], found[name]["beside_ms"]["max"]
            what = f"checkpoint of {found['size']:,}, {name}: longest query, ms"
            limit = MOST_STOP_MS if name == found["default"] else None
            beside = {"without a checkpoint": f"{usual:.1f}"}
            rows.append(_at_most(what, longest, limit, "{:.1f}", beside))
    if "join" in raw:
        rows += _join_bars(raw["join"])
    return rows


def write(raw: Raw, folder: Path) -> None:
    """Put the figures into the recipes and between the marks of the README beside them.

    Raises:
        BenchmarkError: there are no figures, or the README has no marks.
    """
    if "speed" not in raw:
        raise BenchmarkError("there are no figures of `speed` to write")
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if BEGIN not in text or END not in text:
        raise BenchmarkError(f"{readme}: the marks {BEGIN} and {END} are missing")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    facts, vectors = raw["machine"], raw["vectors"]
    said = (
        f"{facts['cores']} cores of an {facts['cpu']}, {facts['date'][:10]}; "
        f"{vectors['what']}, and from there on vectors made between them; "
        f"{vectors['queries']} real queries that are not among them."
    )
    body = "\n\n".join([BEGIN, said, _speed(raw["speed"]), END])
    readme.write_text(f"{before}{body}{after}", encoding="utf-8")
    for name in filter(is_of_product, recipes()):
        file = folder / f"{name}.toml"
        plain = _MEASURED.sub("\n", file.read_text(encoding="utf-8")).rstrip("\n") + "\n"
        file.write_text(f"{plain}\n{_measured(raw, name)}", encoding="utf-8")


def _measured(raw: Raw, name: str) -> str:
    """The table [measured] of a recipe."""
    facts, vectors = raw["machine"], raw["vectors"]
    lines = [
        f"# By `python -m benchmarks.index` on {facts['cores']} cores of an {facts['cpu']}; a",
        "# query alone, with one thread.",
        "[measured]",
        f"dimension = {vectors['dimension']}",
    ]
    figures: dict[str, dict[str, str]] = {}
    sizes = sorted(map(int, raw["speed"]))
    for size in sizes:
        found = raw["speed"][str(size)]
        if name not in found["built"]:
            continue
        built, single = found["built"][name], found["single"]["of"][name]
        for key, value in (
            ("recall_at_10", f"{single['recall']:.4f}"),
            ("p50_ms", f"{single['p50_ms']:.2f}"),
            ("p95_ms", f"{single['p95_ms']:.2f}"),
            ("build_seconds", f"{built['seconds']:.1f}"),
            ("memory_bytes_per_vector", f"{built['memory_bytes'] / size:.0f}"),
            ("disk_bytes_per_vector", f"{built['disk_bytes'] / size:.0f}"),
        ):
            figures.setdefault(key, {})[_short(size)] = value
    for key, by_size in figures.items():
        inside = ", ".join(f"{size} = {value}" for size, value in by_size.items())
        lines.append(f"{key} = {{ {inside} }}")
    return "\n".join(lines) + "\n"


def _speed(raw: Raw) -> str:
    parts = []
    for size in sorted(map(int, raw)):
        found = raw[str(size)]
        head = [
            "",
            "recall@10",
            "p50 / p95 ms",
            "queries/s",
            "all cores: p50 / p95 ms",
            "queries/s",
        ]
        lines = [[f"{size:,} vectors", *head[1:], "build s", "memory", "disk", "set to"]]
        for name, single in found["single"]["of"].items():
            cores, built = found["cores"]["of"][name], found["built"].get(name, {})
            label = f"**{name}**" if name == found["default"] else name
            lines.append(
                [
                    label,
                    f"{single['recall']:.4f}",
                    f"{single['p50_ms']:.2f} / {single['p95_ms']:.2f}",
                    f"{single['per_second']:,.0f}",
                    f"{cores['p50_ms']:.2f} / {cores['p95_ms']:.2f}",
                    f"{cores['per_second_together']:,.0f}",
                    *_built(built, size),
                    _setting(built, single),
                ]
            )
        parts.append(markdown(lines))
        if found["single"]["overhead"]:
            parts.append(_overhead(size, found["single"]["overhead"]))
    return "\n\n".join(parts)


def _built(built: Raw, size: int) -> list[str]:
    if not built:
        return ["", "", ""]
    # A graph of a peer is one file, all of which is in memory.
    disk, memory = (
        built[which if which in built else "bytes"] for which in ("disk_bytes", "memory_bytes")
    )
    return [f"{built['seconds']:.1f}", f"{memory / size:.0f}", f"{disk / size:.0f}"]


def _setting(built: Raw, single: Raw) -> str:
    if built.get("probes"):
        return f"{built['probes']} x {built['factor']}"
    return str(single["effort"]) if single.get("effort") else ""


def _overhead(size: int, found: Raw) -> str:
    lines = [[f"{size:,} vectors, one thread", "FAISS alone, ms", "ours, ms", "more"]]
    for name, each in found.items():
        lines.append(
            [name, f"{each['plain_ms']:.3f}", f"{each['ours_ms']:.3f}", f"{each['share']:+.1%}"]
        )
    return markdown(lines)


def _speed_bars(size: int, found: Raw) -> list[Row]:
    rows: list[Row] = []
    single, cores = found["single"]["of"], found["cores"]["of"]
    if size >= OVERHEAD_FROM:
        for name, each in found["single"]["overhead"].items():
            if is_of_product(name):
                what = f"{size:,}, {name}: more than FAISS alone"
                rows.append(_at_most(what, each["share"], MOST_OVERHEAD, "{:.1%}"))
    flat = "FAISS IndexFlatIP"
    if size >= OVERHEAD_FROM and "exact" in cores and flat in cores:
        for threads, of in (("all cores", cores), ("one thread", single)):
            aimed = size == GAIN_AT and of is cores
            gain = of[flat]["p50_ms"] / of["exact"]["p50_ms"]
            rows.append(
                Row(
                    f"{size:,}, exact, p50 of IndexFlatIP over ours, {threads}",
                    f"{gain:.2f}",
                    {flat: f"{of[flat]['p50_ms']:.2f} ms"},
                    f">= {LEAST_GAIN}" if aimed else "",
                    gain >= LEAST_GAIN if aimed else None,
                )
            )
    name = found["default"]
    if size >= LARGE_FROM and name in single:
        ours = single[name]
        rows.append(_at_most(f"{size:,}, {name}: p50, one thread, ms", ours["p50_ms"], MOST_MS))
        reached = f"{ours['recall']:.4f}"
        target = f">= {TARGET}"
        rows.append(
            Row(f"{size:,}, {name}: recall@10", reached, {}, target, ours["recall"] >= TARGET)
        )
        peers = {
            peer: figures["per_second"]
            for peer, figures in single.items()
            if figures["kind"] == "peer" and figures["recall"] >= TARGET
        }
        if peers:
            best = max(peers, key=lambda peer: peers[peer])
            rows.append(
                Row(
                    f"{size:,}, {name}: queries/s, one thread",
                    f"{ours['per_second']:,.0f}",
                    {f"best peer ({best})": f"{peers[best]:,.0f}"},
                    ">= best peer",
                    ours["recall"] >= TARGET and ours["per_second"] >= peers[best],
                )
            )
    return rows


def _memory_bars(found: Raw) -> list[Row]:
    what = f"{found['size']:,}, {found['recipe']}"
    after, imported = found["after"], found["imported"]
    all_of_it = {"Python and imports": f"{megabytes(imported['resident']):.0f}"}
    queries = f"after {found['queries']:,} queries"
    return [
        _at_most(
            f"{what}: resident MB {queries}",
            megabytes(after["resident"]),
            megabytes(MOST_MEMORY),
            "{:.0f}",
            all_of_it,
        ),
        _at_most(f"{what}: of these, pages of files", megabytes(after["mapped"]), None, "{:.0f}"),
        _at_most(f"{what}: at most, MB", megabytes(after["peak"]), None, "{:.0f}", all_of_it),
        _at_most(f"{what}: open, s", found["open_seconds"], MOST_OPEN_SECONDS, "{:.3f}"),
        _at_most(f"{what}: first query, s", found["first_seconds"], MOST_FIRST_SECONDS, "{:.3f}"),
    ]


def _streaming(found: Raw) -> str:
    asked = found["queries"]
    lines = [["vectors", "queries", "p50 ms", "p99 ms", "max ms", "most beside", "recall@10"]]
    lower = 0
    while lower < found["size"]:
        upper = max(10_000, lower * 10)
        some = [each for each in asked if lower < each["size"] <= upper]
        if some:
            spread = [percentile([each["ms"] for each in some], share) for share in (50, 99, 100)]
            recalls = [each["recall"] for each in some if "recall" in each]
            lines.append(
                [
                    f"{lower:,} to {min(upper, found['size']):,}",
                    str(len(some)),
                    *(f"{ms:.2f}" for ms in spread),
                    f"{max(each['fresh'] for each in some):,}",
                    f"{sum(recalls) / len(recalls):.4f}" if recalls else "",
                ]
            )
        lower = upper
    adds, merges = found["add_ms"], found["merges"]
    took = sum(each["seconds"] for each in merges)
    said = (
        f"{len(merges)} merges in the background took {took:.0f} of {found['seconds']:.0f} s; an "
        f"addition took {adds['p50']:.3f} ms (p50), {adds['p99']:.3f} ms (p99), "
        f"{adds['max']:.1f} ms at most."
    )
    return f"{markdown(lines)}\n\n{said}"


def _spreads(asked: Sequence[Raw]) -> list[float]:
    """99th percentile over median of each run of WINDOW queries."""
    found = []
    for start in range(0, len(asked) - WINDOW + 1, WINDOW):
        ms = [each["ms"] for each in asked[start : start + WINDOW]]
        found.append(percentile(ms, 99) / median(ms))
    return found


def _filters(found: Raw) -> str:
    head = [f"{found['size']:,}, {found['recipe']}: may be returned", "recall@10", "p50 ms"]
    lines = [[*head, "p95 ms", "over unfiltered"]]
    for how, words in (("by_chance", "by chance"), ("together", "near each other")):
        for share, each in found[how].items():
            lines.append(
                [
                    f"{float(share):.1%}, {words}",
                    f"{each['recall']:.4f}",
                    f"{each['p50_ms']:.2f}",
                    f"{each['p95_ms']:.2f}",
                    f"{each['p50_ms'] / each['unfiltered_p50_ms']:.1f}",
                ]
            )
    return markdown(lines)


def _join(found: Raw) -> str:
    lines = [[f"pairs of {found['size']:,} with a cosine >= 0.9", "s", "peak MB", "pairs"]]
    for way, each in found["ways"].items():
        peak = f"{megabytes(each['peak_bytes']):.0f}"
        lines.append([way, f"{each['seconds']:.1f}", peak, f"{each['pairs']:,}"])
    return markdown(lines)


def _join_bars(found: Raw) -> list[Row]:
    ours = found["ways"]["searchlib"]
    others = {way: each for way, each in found["ways"].items() if way != "searchlib"}
    best = min(others, key=lambda way: float(others[way]["seconds"]))
    seconds = others[best]["seconds"]
    what = f"self-join of {found['size']:,} at 0.9"
    return [
        Row(
            f"{what}, s",
            f"{ours['seconds']:.1f}",
            {f"fastest of FAISS ({best})": f"{seconds:.1f}"},
            "<= FAISS",
            ours["seconds"] <= seconds,
        ),
        _at_most(
            f"{what}, peak MB",
            megabytes(ours["peak_bytes"]),
            megabytes(MOST_JOIN_MEMORY),
            "{:.0f}",
        ),
    ]


def _at_most(
    what: str,
    value: float,
    limit: float | None,
    form: str = "{:.2f}",
    peers: dict[str, str] | None = None,
) -> Row:
    if limit is None:
        return Row(what, form.format(value), peers or {})
    return Row(what, form.format(value), peers or {}, f"<= {form.format(limit)}", value <= limit)


def _short(size: int) -> str:
    """1M, 100k."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)
