"""`searchlib status`: what is in the library."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.status import Status


@click.command()
@click.option("--skipped", is_flag=True, help="List the files that could not be used, and why.")
@shared.json_option
@shared.library_options
def status(skipped: bool, as_json: bool, folder: Path | None) -> None:
    """Tell what is in the library."""
    from searchlib.images import printable

    with shared.open_library(folder) as library:
        if skipped:
            files = library.skipped()
            if as_json:
                shared.print_json([asdict(file) for file in files])
            for file in [] if as_json else files:
                click.echo(f"{printable(file.path)}: {file.reason}")
            return
        found = library.status()
    if as_json:
        last = found.last_change
        values = {
            **asdict(found),
            "folder": str(found.folder),
            "last_change": None if last is None else last.isoformat(),
        }
        if len(found.models) < 2:
            del values["models"]
        shared.print_json(values)
    else:
        _print(found)


def _print(found: Status) -> None:
    last = found.last_change
    changed = "never" if last is None else last.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    rows = {
        "library": str(found.folder),
        "images": f"{found.images:,}",
        "files": f"{found.files:,} ({found.missing:,} missing, {found.skipped:,} skipped)",
        "folders": f"{found.folders:,}",
        "model": f"{found.model}, {found.dimension} dimensions, {found.identity[:12]}",
        "index": f"{found.recipe}, {found.vectors:,} vectors",
        "on disk": (
            f"catalog {shared.size_in_words(found.catalog_bytes)}, "
            f"index {shared.size_in_words(found.index_bytes)}"
        ),
        "last change": changed,
    }
    for name, value in rows.items():
        click.echo(f"{name:12} {value}")
    for model in found.models if len(found.models) > 1 else ():
        used = ", in use" if model.in_use else ""
        click.echo(f"{'vectors':12} {model.vectors:,} of {model.name}, {model.identity[:12]}{used}")
