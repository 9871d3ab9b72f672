"""How images are written on stdout: for a person, for a shell and for a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.catalog import ImageRecord
    from searchlib.search.match import Match, Results

Form = Literal["json", "jsonl", "csv", "paths", "null"]
_FORMS: dict[Form, str] = {
    "json": "--json",
    "jsonl": "--jsonl",
    "csv": "--csv",
    "paths": "--paths",
    "null": "-0",
}

_IMAGE_COLUMNS = (
    "path",
    "id",
    "digest",
    "format",
    "width",
    "height",
    "bytes",
    "taken_at",
    "camera_make",
    "camera_model",
    "latitude",
    "longitude",
    "tags",
    "properties",
    "places",
)
_MATCH_COLUMNS = ("rank", "score", "percentile")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def form_options(command: _Command) -> _Command:
    """The options for output that shells and programs read; `chosen_form` takes their values."""
    for option in (
        click.option("-0", "null", is_flag=True, help="As --paths, a NUL after each (xargs -0)."),
        click.option("--paths", is_flag=True, help="Print nothing but paths, a line each."),
        click.option("--csv", is_flag=True, help="Print a table with commas."),
        click.option("--jsonl", is_flag=True, help="Print a JSON line for each image."),
        click.option("--json", is_flag=True, help="Print JSON."),
    ):
        command = option(command)
    return command


def chosen_form(**given: bool) -> Form | None:
    """Which of the options was given; None for what a person reads.

    Raises:
        click.UsageError: more than one.
    """
    chosen = [form for form in _FORMS if given[form]]
    if len(chosen) > 1:
        names = list(_FORMS.values())
        raise click.UsageError(f"{', '.join(names[:-1])} and {names[-1]} exclude each other")
    return chosen[0] if chosen else None


def write_results(results: Results, form: Form, *, explain: bool = False) -> None:
    """Write what was found for a shell or a program."""
    if form == "json":
        shared.print_json(results_as_json(results, explain=explain))
    elif form == "jsonl":
        for match in results:
            shared.print_json_line(match_as_json(match))
    elif form == "csv":
        rows = ((*_match_row(match), *_image_row(match.image, match.path)) for match in results)
        _write_csv((*_MATCH_COLUMNS, *_IMAGE_COLUMNS), rows)
    else:
        write_paths([match.path for match in results], form)


def write_paths(paths: Iterable[str], form: Form) -> None:
    """Write paths and nothing else."""
    end = b"\0" if form == "null" else b"\n"
    # As bytes: a path that is not valid text must arrive as it is on the disk.
    click.echo(b"".join(os.fsencode(path) + end for path in paths), nl=False)


def write_images(images: Sequence[ImageRecord], form: Form, *, first: bool = True) -> None:
    """Write what is known of images for a shell or a program; `first`: of several times."""
    if form == "json":
        shared.print_json([image_as_json(image) for image in images])
    elif form == "jsonl":
        for image in images:
            shared.print_json_line(image_as_json(image))
    elif form == "csv":
        rows = (_image_row(image, image.paths[0]) for image in images)
        _write_csv(_IMAGE_COLUMNS if first else None, rows)
    else:
        write_paths([image.paths[0] for image in images], form)


def write_lines(results: Results) -> None:
    """A line for each match, with what belongs to it below; the same for ever, for scripts."""
    from searchlib.images import printable

    for match in results:
        click.echo(f"{match.score:.3f}  {printable(match.path)}")
        for words in beside(match):
            click.echo(f"       {words}")


def write_table(results: Results, *, explain: bool = False) -> None:
    """The same for a person at a terminal, with what tells the pictures apart."""
    from searchlib.images import printable

    head = ("score", "percentile", "size", "taken")
    rows = [_table_row(match) for match in results]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    # The path is the last, and whole: a terminal that wraps it leaves it one to be copied.
    click.secho(f"{_padded(head, widths)}  path", bold=True)
    for match, row in zip(results, rows, strict=True):
        click.echo(f"{_padded(row, widths)}  {printable(match.path)}")
        for words in (*beside(match), *(contributions(match) if explain else ())):
            click.echo(f"{'':{sum(widths) + 2 * len(widths)}}{words}")


def write_explanation(results: Results) -> None:
    """What the scores are made of, on stderr."""
    from searchlib.images import printable

    for match in results:
        shared.say(f"{match.rank}. {match.score:.3f}  {printable(match.path)}")
        for words in contributions(match):
            shared.say(f"    {words}")


def say_timings(results: Results) -> None:
    """How the answer came about, and where the time went, on stderr."""
    times = results.timings
    steps = ", ".join(
        f"{name} {getattr(times, name) * 1000:.1f} ms"
        for name in ("decode", "encode", "search", "fetch", "total")
    )
    compared = "every vector compared" if results.exact else "with the approximate index"
    shared.say(f"{results.model}, {compared}: {steps}")
    if results.threshold is not None and results.least is not None:
        asked = results.threshold
        if asked.kind == "percentile":
            shared.say(f"the {asked.value:g}th percentile is a cosine of {results.least:.3f}")
    if results.cursor is not None:
        shared.say(f"more: --cursor {results.cursor}")


def beside(match: Match) -> list[str]:
    """The other places of a match, and what else belongs to it."""
    from searchlib.images import printable

    copies = [path for path in match.image.paths if path != match.path]
    return [
        *(f"same bytes: {printable(path)}" for path in copies),
        *(f"alike: {printable(path)}" for path in match.alike),
    ]


def contributions(match: Match) -> list[str]:
    """What each term adds to the score, a line each."""
    from searchlib.images import printable

    return [
        f"{term.share:+.3f}  {term.weight:g} x {term.kind} {printable(term.term)}, "
        f"cosine {term.cosine:.3f}"
        for term in match.terms
    ]


def known_of(image: ImageRecord) -> dict[str, str]:
    """What is known of an image, in words; not what is unknown."""
    facts = image.facts
    camera = " ".join(word for word in (facts.camera_make, facts.camera_model) if word)
    values = {
        "size": f"{facts.width} x {facts.height}, {shared.size_in_words(facts.bytes)}",
        "format": facts.format,
        "taken": None if facts.taken_at is None else _moment(facts.taken_at),
        "camera": camera,
        "place": place_in_words(facts.latitude, facts.longitude),
        "tags": ", ".join(image.tags),
        "properties": ", ".join(f"{key}={value}" for key, value in image.properties),
    }
    return {name: value for name, value in values.items() if value}


def place_in_words(latitude: float | None, longitude: float | None) -> str:
    """Degrees, as maps take them."""
    if latitude is None or longitude is None:
        return ""
    return f"{latitude:.5f}, {longitude:.5f}"


def percentile_in_words(percentile: float) -> str:
    """Rounded down, so that what is not above all is not said to be."""
    return f"{int(percentile * 100) / 100:.2f} %"


def results_as_json(results: Results, *, explain: bool = False) -> dict[str, Any]:
    """All of an answer, as plain values; paths with odd bytes have lone surrogates."""
    threshold = results.threshold
    values = {
        "model": results.model,
        "matches": [match_as_json(match) for match in results],
        "cursor": results.cursor,
        "exact": results.exact,
        "min_similarity": None
        if threshold is None
        else {"value": threshold.value, "kind": threshold.kind, "cosine": results.least},
    }
    return {**values, "timings": asdict(results.timings)} if explain else values


def match_as_json(match: Match) -> dict[str, Any]:
    """A match as plain values."""
    return {
        "rank": match.rank,
        "path": match.path,
        "score": round(match.score, 6),
        "percentile": match.percentile,
        "stack": match.stack,
        "alike": match.alike,
        "thumbnail": None if match.thumbnail is None else os.fspath(match.thumbnail),
        "terms": [asdict(term) for term in match.terms],
        "image": image_as_json(match.image),
    }


def image_as_json(image: ImageRecord) -> dict[str, Any]:
    """What is known of an image, as plain values."""
    return {**asdict(image), "properties": dict(image.properties)}


def _table_row(match: Match) -> tuple[str, ...]:
    facts = match.image.facts
    return (
        f"{match.score:.3f}",
        "" if match.percentile is None else percentile_in_words(match.percentile),
        f"{facts.width} x {facts.height}",
        "" if facts.taken_at is None else _moment(facts.taken_at)[:16],
    )


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{value:{width}}" for value, width in zip(row, widths, strict=True))


def _moment(taken_at: str) -> str:
    """Without the fraction of a second: 2024-06-01 10:30:00."""
    return taken_at[:19].replace("T", " ")


def _match_row(match: Match) -> tuple[Any, ...]:
    return match.rank, f"{match.score:.6f}", match.percentile


def _image_row(image: ImageRecord, path: str) -> tuple[Any, ...]:
    facts = image.facts
    return (
        path,
        image.id,
        image.digest,
        facts.format,
        facts.width,
        facts.height,
        facts.bytes,
        facts.taken_at,
        facts.camera_make,
        facts.camera_model,
        facts.latitude,
        facts.longitude,
        ";".join(image.tags),
        ";".join(f"{key}={value}" for key, value in image.properties),
        len(image.paths),
    )


def _write_csv(head: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> None:
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if head is not None:
        writer.writerow(head)
    writer.writerows(rows)
    click.echo(text.getvalue().encode("utf-8", "surrogateescape"), nl=False)
