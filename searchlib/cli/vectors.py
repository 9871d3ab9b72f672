"""`searchlib vectors`: take vectors over from another program, or hand them on."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared
from searchlib.cli.progress import counting

if TYPE_CHECKING:
    from searchlib.exchange import Drift, ExportReport, ImportReport

_MOST_ROWS = 20
_file_argument = click.argument(
    "file", type=click.Path(path_type=Path, readable=False), metavar="FILE"
)


@click.group()
def vectors() -> None:
    """Take vectors over from another program, or hand them on.

    FILE is NAME.npy with NAME.jsonl beside it, NAME.parquet (needs the extra `parquet`), or
    NAME.jsonl alone.
    """


@vectors.command("import")
@_file_argument
@click.option("--model", metavar="NAME", help="Who made the vectors, where the file does not say.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="The folder that relative paths in FILE are below.  [default: the one of FILE]",
)
@click.option(
    "--verify",
    default=16,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="Embed up to N of the new pictures, and refuse vectors that are not like these.",
)
@shared.json_option
@shared.library_options
@click.pass_context
def import_(
    ctx: click.Context,
    file: Path,
    model: str | None,
    root: Path | None,
    verify: int,
    as_json: bool,
    folder: Path | None,
) -> None:
    """Store the vectors of FILE without embedding the images again.

    They must be of the library's model. All rows are checked before the first is stored. Where the
    library has a vector of an image it is kept and compared with the one in FILE. Interrupt it as
    you like: running it again finishes it.
    """
    bar = counting("rows", per_second="rows")
    with shared.open_library(folder, create=True) as library, bar as on_progress:
        report = library.import_vectors(
            file, model=model, root=root, verify=verify, on_progress=on_progress
        )
    if as_json:
        shared.print_json({**asdict(report), "file": os.fspath(report.file)})
    else:
        _say_rows(report)
        click.echo(_summary(report))
        click.echo(_drift_in_words(report.drift, report.model))
    if report.unmatched == report.rows:
        ctx.exit(shared.NOTHING_FOUND)
    if report.unmatched:
        ctx.exit(shared.PARTLY)


def _summary(report: ImportReport) -> str:
    line = f"stored {report.stored:,} of {report.rows:,} vectors of {report.model}"
    if report.added:
        line += f" ({report.added:,} for images that were not in the library)"
    return (
        f"{line}, kept {report.kept:,} that were there, unmatched {report.unmatched:,} "
        f"in {report.seconds:.1f} s"
    )


def _say_rows(report: ImportReport) -> None:
    from searchlib.images import printable

    for row in report.unmatched_rows[:_MOST_ROWS]:
        shared.say(f"unmatched row {row.row}, {printable(row.name)}: {row.reason}")
    if report.unmatched > _MOST_ROWS:
        shared.say(f"unmatched {report.unmatched - _MOST_ROWS} more; --json lists them")
    if report.drift is None:
        return
    for far in report.drift.rows[:_MOST_ROWS]:
        shared.say(f"drift in row {far.row}, {printable(far.name)}: cosine {far.cosine:.3f}")
    if report.drift.below > _MOST_ROWS:
        shared.say(f"drift in {report.drift.below - _MOST_ROWS} more; --json lists them")


def _drift_in_words(drift: Drift | None, model: str) -> str:
    if drift is None:
        return "drift: no image could be compared, so nothing is known of how alike the vectors are"
    of_these = f", {drift.verified} of them embedded for this" if drift.verified else ""
    measured = (
        f"on {drift.count:,} images{of_these}, the cosine to the vectors of {model} here is "
        f"{drift.mean:.4f} on average, {drift.p5:.4f} or more for 95 of 100, {drift.min:.4f} at "
        "least"
    )
    if not drift.below:
        meaning = "they agree and can be searched together"
    elif drift.mean >= drift.warn_below:
        meaning = (
            f"they agree but for {drift.below:,} below {drift.warn_below:g}: other pictures, or "
            "decoded in another way"
        )
    else:
        meaning = (
            f"{drift.below:,} are below {drift.warn_below:g}, so scores across them are off: see "
            "that the same model file and preprocessing were used"
        )
    return f"drift: {measured}; {meaning}"


@vectors.command()
@_file_argument
@click.option(
    "--include-missing", is_flag=True, help="Also vectors of images that have no file in place."
)
@shared.json_option
@shared.library_options
@click.pass_context
def export(
    ctx: click.Context, file: Path, include_missing: bool, as_json: bool, folder: Path | None
) -> None:
    """Write all vectors to FILE, each with its image's digest and paths.

    What is there is replaced when all is written.
    """
    bar = counting("vectors", per_second="vectors")
    with shared.open_library(folder) as library, bar as on_progress:
        report = library.export_vectors(
            file, include_missing=include_missing, on_progress=on_progress
        )
    if as_json:
        shared.print_json({**asdict(report), "files": [os.fspath(path) for path in report.files]})
    else:
        _print_export(report)
    if not report.count:
        ctx.exit(shared.NOTHING_FOUND)


def _print_export(report: ExportReport) -> None:
    from searchlib.images import printable

    names = " and ".join(printable(path) for path in report.files)
    click.echo(
        f"wrote {report.count:,} vectors of {report.model} ({report.dimension} dimensions, "
        f"{report.identity[:12]}) to {names}: {shared.size_in_words(report.bytes)} in "
        f"{report.seconds:.1f} s"
    )
    if report.left_out:
        shared.say(
            f"left out {report.left_out:,} whose images have no file in place; --include-missing "
            "writes them too"
        )
