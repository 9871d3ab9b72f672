"""`searchlib search`: what looks like this?"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.search import Match


@click.command()
@click.argument("image", type=click.Path(path_type=str, readable=False))
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="How many.")
@shared.json_option
@click.option("--paths", is_flag=True, help="Print nothing but paths, a line each.")
@click.option("-0", "null", is_flag=True, help="Like --paths, with a NUL after each (xargs -0).")
@shared.library_options
@click.pass_context
def search(
    ctx: click.Context,
    image: str,
    k: int,
    as_json: bool,
    paths: bool,
    null: bool,
    folder: Path | None,
) -> None:
    """Find the images nearest to IMAGE, best first.

    The score is the cosine of the two vectors: 1 is the same picture, and what unrelated
    pictures have is around 0.
    """
    if as_json + paths + null > 1:
        raise click.UsageError("--json, --paths and -0 exclude each other")
    with shared.open_library(folder) as library:
        matches = library.search(image, k=k)
    if as_json:
        shared.print_json([_as_json(match) for match in matches])
    elif paths or null:
        end = b"\0" if null else b"\n"
        # As bytes: a path that is not valid text must arrive as it is on the disk.
        click.echo(b"".join(os.fsencode(match.path) + end for match in matches), nl=False)
    else:
        _print(matches)
    if not matches:
        if not as_json:
            shared.say("the library has no images in place; add some with `searchlib add FOLDER`")
        ctx.exit(shared.NOTHING_FOUND)


def _print(matches: list[Match]) -> None:
    from searchlib.images import printable

    for match in matches:
        click.echo(f"{match.score:.3f}  {printable(match.path)}")
        for copy in match.image.paths[1:]:
            click.echo(f"       same bytes: {printable(copy)}")


def _as_json(match: Match) -> dict[str, Any]:
    return {"path": match.path, "score": round(match.score, 6), "image": asdict(match.image)}
