"""`searchlib folders`: which folders the library takes care of, and by which rules."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.catalog import FolderRecord


@click.group(invoke_without_command=True)
@shared.json_option
@shared.library_options
@click.pass_context
def folders(ctx: click.Context, as_json: bool, folder: Path | None) -> None:
    """List the folders that are watched or were added, with their rules, or remove one."""
    if ctx.invoked_subcommand is not None:
        return
    with shared.open_library(folder) as library:
        found = library.folders()
    if as_json:
        shared.print_json([_as_json(each) for each in found])
        return
    if not found:
        click.echo("no folders; `searchlib watch FOLDER` watches one")
    for each in found:
        _print(each)


@folders.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, readable=False),
    metavar="FOLDER...",
)
@shared.library_options
@click.pass_context
def rm(ctx: click.Context, paths: tuple[Path, ...], folder: Path | None) -> None:
    """Stop watching folders and forget their rules; their files stay in the library."""
    from searchlib.images import printable

    assert ctx.parent is not None
    with shared.open_library(folder or ctx.parent.params["folder"]) as library:
        removed = {path: library.unregister(path) for path in paths}
    for path, was_known in removed.items():
        words = "removed; its files stay in the library" if was_known else "nothing to remove"
        click.echo(f"{printable(path)}: {words}")
    if not any(removed.values()):
        ctx.exit(shared.NOTHING_FOUND)
    if not all(removed.values()):
        ctx.exit(shared.PARTLY)


def _print(folder: FolderRecord) -> None:
    from searchlib.images import printable

    rules = [
        *([] if folder.recursive else ["not the folders below"]),
        *(["links to folders followed"] if folder.follow_links else []),
        *(f"include {printable(pattern)}" for pattern in folder.include),
        *(f"exclude {printable(pattern)}" for pattern in folder.exclude),
        *([] if folder.marker is None else [f"marker {printable(folder.marker)}"]),
        *([] if folder.events == "auto" else [f"events {folder.events}"]),
    ]
    state = "watched" if folder.watched else "added"
    click.echo("  ".join([f"{state:7}", printable(folder.path), ", ".join(rules)]).rstrip())


def _as_json(folder: FolderRecord) -> dict[str, Any]:
    values = asdict(folder)
    del values["id"]
    return values
