"""`searchlib images`: the images of the library, by what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import results as output
from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.catalog import ImageRecord
    from searchlib.catalog.conditions import Condition
    from searchlib.library import Library

_PAGE = 1000


@click.command()
@click.option("--where", metavar="CONDITIONS", help="Only images that meet these conditions.")
@click.option("-n", "count", type=click.IntRange(1), help="So many at most.  [default: all]")
@click.option("--oldest-first", is_flag=True, help="In the order in which they were added.")
@output.form_options
@shared.library_options
@click.pass_context
def images(
    ctx: click.Context,
    /,
    where: str | None,
    count: int | None,
    oldest_first: bool,
    folder: Path | None,
    **forms: bool,
) -> None:
    """List images, those that were added last first.

    A line has the id, the size, when the picture was taken, and where it lies. Conditions are
    described in docs/filters.md: --where "taken:2024 and tag:beach".
    """
    form = output.chosen_form(**forms)
    found = 0
    with shared.open_library(folder) as library:
        pages = _pages(library, shared.conditions(where), count, newest_first=not oldest_first)
        if form == "json":  # one value
            pages = iter([[image for page in pages for image in page]])
        for page in pages:
            if form is None:
                _print(page)
            else:
                output.write_images(page, form, first=not found)
            found += len(page)
    if not found:
        if form in (None, "paths", "null"):
            shared.say("no image meets the conditions" if where else "the library has no images")
        ctx.exit(shared.NOTHING_FOUND)


def _pages(
    library: Library, where: Condition | None, count: int | None, *, newest_first: bool
) -> Iterator[list[ImageRecord]]:
    after: int | None = None
    left = count
    while left is None or left > 0:
        limit = _PAGE if left is None else min(_PAGE, left)
        page = library.images(where, after=after, limit=limit, newest_first=newest_first)
        if page:
            yield page
        if len(page) < limit:
            return
        after = page[-1].id
        left = None if left is None else left - len(page)


def _print(page: list[ImageRecord]) -> None:
    from searchlib.images import printable

    for image in page:
        facts = image.facts
        size = f"{facts.width} x {facts.height}"
        taken = (facts.taken_at or "")[:16].replace("T", " ")
        click.echo(f"{image.id:>8}  {size:13}  {taken:16}  {printable(image.paths[0])}")
