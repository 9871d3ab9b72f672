"""`searchlib purge`: give up what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from searchlib.cli import shared


@click.command()
@click.option(
    "--older-than",
    "days",
    default=0.0,
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Only what is missing for more days; else all that is missing.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared.json_option
@shared.library_options
@click.pass_context
def purge(ctx: click.Context, days: float, yes: bool, as_json: bool, folder: Path | None) -> None:
    """Give up files that are missing, and the vectors of images that have no other file.

    Nothing is deleted from your folders. A file that comes back afterwards is embedded anew; until
    then its vector would have been kept for 30 days. Files on a drive that is not mounted stay.
    """
    with shared.open_library(folder) as library:
        missing = library.status().missing
        if missing and not yes and not _agreed(missing, days):
            shared.say("nothing was given up")
            ctx.exit(shared.NOTHING_FOUND)
        purged = library.purge(older_than_days=days) if missing else 0
        left = library.status().missing
    if as_json:
        shared.print_json({"purged": purged, "missing": left})
    elif not missing:
        click.echo("no files are missing")
    else:
        click.echo(f"{_files(purged)} given up, {left:,} still missing")


def _agreed(missing: int, days: float) -> bool:
    which = f"those missing for more than {days:g} days" if days else "all of them"
    question = f"{_files(missing)} missing; give up {which}?"
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on: say --yes")
    return click.confirm(question, err=True)


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count:,} files are"
