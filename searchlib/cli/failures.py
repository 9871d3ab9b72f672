"""`searchlib failures`: the files that could not be used, and when they are tried again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared
from searchlib.cli.add import report_as_json, summary
from searchlib.cli.progress import counting

if TYPE_CHECKING:
    from searchlib.catalog import Failure


@click.command()
@click.argument(
    "paths", nargs=-1, type=click.Path(path_type=Path, readable=False), metavar="[PATH]..."
)
@click.option("--retry", is_flag=True, help="Try them again now.")
@shared.json_option
@shared.library_options
@click.pass_context
def failures(
    ctx: click.Context, paths: tuple[Path, ...], retry: bool, as_json: bool, folder: Path | None
) -> None:
    """List the files whose last try failed: all, or those at and below each PATH.

    A row has the kind, the tries, the time of the next one, the file and the reason. Of the kind
    "content" only other bytes can help; "access" is what the disk refused; "crash" ended the
    process that read it.
    """
    with shared.open_library(folder) as library:
        if not retry:
            found = library.failures(*paths)
            if as_json:
                shared.print_json([asdict(failure) for failure in found])
            else:
                _print(found)
            return
        with counting() as on_progress:
            report = library.retry_failures(*paths, on_progress=on_progress)
        left = library.failures(*paths)
    if as_json:
        values = {**report_as_json(report), "failures": [asdict(failure) for failure in left]}
        shared.print_json(values)
    elif report.found or report.missing:
        _print(left, none="")
        click.echo(summary(report))
    else:
        _print(left)
    if left:
        ctx.exit(shared.PARTLY)


def _print(found: list[Failure], *, none: str = "no failures") -> None:
    from searchlib.images import printable

    rows = [
        (each.kind, str(each.attempts), _next_try(each), f"{printable(each.path)}: {each.reason}")
        for each in found
    ]
    if not rows:
        if none:
            click.echo(none)
        return
    names = ("kind", "tries", "next try", "file: reason")
    widths = [max(len(row[at]) for row in (names, *rows)) for at in range(3)]
    for kind, tries, when, file in (names, *rows):
        click.echo(f"{kind:{widths[0]}}  {tries:>{widths[1]}}  {when:{widths[2]}}  {file}")


def _next_try(failure: Failure) -> str:
    return "if it changes" if failure.next_try is None else shared.local_time(failure.next_try)
