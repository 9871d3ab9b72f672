"""`searchlib tag`: words and values of your own on images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.catalog import ImageRecord
    from searchlib.library import Library

_ID = "id:"


@click.command()
@click.argument("images", nargs=-1, metavar="IMAGE...")
@click.option("--add", multiple=True, metavar="TAG", help="Put a tag on them.")
@click.option("--remove", multiple=True, metavar="TAG", help="Take a tag away.")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Set a value of your own.")
@click.option("--unset", multiple=True, metavar="KEY", help="Take a value away.")
@click.option("--list", "list_", is_flag=True, help="List all tags, and how many images have them.")
@shared.json_option
@shared.library_options
@click.pass_context
def tag(
    ctx: click.Context,
    images: tuple[str, ...],
    add: tuple[str, ...],
    remove: tuple[str, ...],
    set_: tuple[str, ...],
    unset: tuple[str, ...],
    list_: bool,
    as_json: bool,
    folder: Path | None,
) -> None:
    """Put tags and values of your own on images of the library, and print what they have then.

    IMAGE is a file that was added, or id:NUMBER. The library keeps tags with the content: all
    places of an image share them, and they stay when it is moved. Search for them with
    --where "tag:beach and key.rating:5".
    """
    changes = bool(add or remove or set_ or unset)
    if list_ and (images or changes):
        raise click.UsageError("--list lists the tags of all images, and changes nothing")
    if not (list_ or images):
        raise click.UsageError("say which images, or --list")
    properties = _properties(set_, unset)
    with shared.open_library(folder) as library:
        if list_:
            found = _list(library, as_json=as_json)
            ctx.exit(shared.OK if found else shared.NOTHING_FOUND)
        ids = [_record(library, image).id for image in images]
        if remove:
            library.untag(ids, *remove)
        if add:
            library.tag(ids, *add)
        if properties:
            library.set_properties(ids, properties)
        records = [_record(library, image) for image in images]
    if as_json:
        shared.print_json([_as_json(record) for record in records])
        return
    for image, record in zip(images, records, strict=True):
        _print(image, record)


def _properties(set_: tuple[str, ...], unset: tuple[str, ...]) -> dict[str, str | None]:
    properties: dict[str, str | None] = {}
    for word in set_:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise click.UsageError(f"--set {word}: write KEY=VALUE")
        properties[key] = value
    for key in unset:
        if key in properties:
            raise click.UsageError(f"{key} is both set and unset")
        properties[key] = None
    return properties


def _record(library: Library, image: str) -> ImageRecord:
    """The image that somebody named; a file of an odd name wins over what the name could mean."""
    from searchlib.errors import NotFoundError
    from searchlib.images import printable

    number = image.removeprefix(_ID)
    if image != number and number.isdecimal() and not Path(image).exists():
        record = library.image(int(number))
    else:
        record = library.find(os.path.abspath(image))  # noqa: PTH100 - a Path changes odd names
    if record is None:
        raise NotFoundError(f"{printable(image)}: no image of the library; add it first")
    return record


def _list(library: Library, *, as_json: bool) -> bool:
    from searchlib.images import printable

    tags = library.tags()
    if as_json:
        shared.print_json(tags)
        return bool(tags)
    for name, count in tags.items():
        click.echo(f"{count:>7,}  {printable(name)}")
    if not tags:
        shared.say("no image has a tag; put one on with `searchlib tag IMAGE --add TAG`")
    return bool(tags)


def _as_json(record: ImageRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "paths": record.paths,
        "tags": record.tags,
        "properties": dict(record.properties),
    }


def _print(image: str, record: ImageRecord) -> None:
    from searchlib.images import printable

    words = [*record.tags, *(f"{key}={value}" for key, value in record.properties)]
    click.echo(f"{printable(image)}: {printable(', '.join(words)) or 'no tags'}")
