"""`searchlib models`: the encoders that can be used, and the one that a library uses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchlib.cli import shared
from searchlib.cli.progress import counting, share

if TYPE_CHECKING:
    from searchlib.encoder import ModelCard, TextCard
    from searchlib.encoder.registry import Listed

_offline_option = click.option(
    "--offline", is_flag=True, help="Fail where something would be downloaded."
)


@click.group(invoke_without_command=True)
@shared.json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models that can be used, or get, add, remove and use one."""
    if ctx.invoked_subcommand is not None:
        return
    from searchlib.encoder import registry

    listed = registry.models()
    if as_json:
        shared.print_json([_as_json(each) for each in listed])
        return
    width = max(len(each.card.name) for each in listed)
    for each in listed:
        card = each.card
        click.echo(
            f"{card.name:{width}}  {each.state:14}  {_size(card):>9}  {card.dimension:>5}-d  "
            f"{card.licence:8}  {card.summary}"
        )
    for alias, name in registry.ALIASES.items():
        click.echo(f"{alias} is short for {name} with its text model")


@models.command()
@click.argument("name")
@_offline_option
@shared.json_option
def pull(name: str, offline: bool, as_json: bool) -> None:
    """Download a model; `clip` means CLIP's image model for phones and its text model."""
    from searchlib.encoder import registry

    cards: list[ModelCard | TextCard] = [registry.find_any(name)]
    if name in registry.ALIASES:
        cards.append(registry.find_text(name))
    done = []
    for card in cards:
        there = card.installed
        done.append(_pull(card, offline=offline))
        if not as_json:
            words = "is in place" if there else "downloaded"
            click.echo(f"{card.name}: {words}, {_size(done[-1])}, {done[-1].path}")
    if as_json:
        shared.print_json([_card_as_json(card) for card in done])


@models.command()
@click.argument("card", type=click.Path(path_type=Path, readable=False))
@_offline_option
@shared.json_option
def add(card: Path, offline: bool, as_json: bool) -> None:
    """Add a model of your own: a card, and beside it the files that it names."""
    from searchlib.encoder import custom

    with share("adding") as tell:
        added = custom.add(card, on_progress=tell, offline=offline)
    if as_json:
        shared.print_json(_card_as_json(added))
    else:
        click.echo(f"{added.name}: added, {_size(added)}, {added.path}")


@models.command()
@click.argument("name")
@click.pass_context
def rm(ctx: click.Context, name: str) -> None:
    """Remove a downloaded model's files, or a model of your own."""
    from searchlib.encoder import registry

    if registry.remove(name):
        click.echo(f"{name}: removed")
    else:
        click.echo(f"{name}: nothing to remove")
        ctx.exit(shared.NOTHING_FOUND)


@models.command()
@click.argument("name")
@click.option("--workers", type=click.IntRange(1, 256), help="Files worked on at once.")
@_offline_option
@shared.json_option
@shared.library_options
@click.pass_context
def use(
    ctx: click.Context,
    name: str,
    workers: int | None,
    offline: bool,
    as_json: bool,
    folder: Path | None,
) -> None:
    """Embed the library's images with another model, then change over to it.

    Until all is done, the library answers with the model that it has. Interrupt it as you like:
    the next run goes on where this one stopped. The vectors of the old model stay, so going back
    takes no time.
    """
    from searchlib.encoder import registry
    from searchlib.images import printable

    card = registry.find(name)
    installed = _pull(card, offline=offline)
    assert isinstance(installed, type(card))
    with shared.open_library(folder, create=True) as library, counting() as on_progress:
        change = library.use_model(installed, workers=workers, on_progress=on_progress)
    if as_json:
        shared.print_json(asdict(change))
    else:
        for failed in change.failed:
            shared.say(f"not embedded {printable(failed.path)}: {failed.reason}")
        click.echo(
            f"the library uses {change.name} now: {change.embedded} images embedded, "
            f"{change.kept} had a vector, {len(change.failed)} failed in {change.seconds:.1f} s"
        )
    if change.failed:
        ctx.exit(shared.PARTLY)


def _pull(card: ModelCard | TextCard, *, offline: bool) -> ModelCard | TextCard:
    from searchlib.encoder import registry

    if card.installed or card.url is None:
        return registry.pull(card, offline=offline)
    with share(card.name) as tell:
        return registry.pull(card, on_progress=tell, offline=offline)


def _size(card: ModelCard | TextCard) -> str:
    if card.bytes is not None:
        return shared.size_in_words(card.bytes)
    return "?" if card.about_bytes is None else f"~{shared.size_in_words(card.about_bytes)}"


def _as_json(listed: Listed) -> dict[str, Any]:
    return {"state": listed.state, **_card_as_json(listed.card)}


def _card_as_json(card: ModelCard | TextCard) -> dict[str, Any]:
    from searchlib.encoder import ModelCard

    return {
        "name": card.name,
        "summary": card.summary,
        "kind": "image" if isinstance(card, ModelCard) else "text",
        "dimension": card.dimension,
        "bytes": card.bytes,
        "about_bytes": card.about_bytes,
        "licence": card.licence,
        "source": card.source,
        "url": card.url,
        "sha256": card.sha256,
        "identity": None if card.sha256 is None else card.identity,
        "path": str(card.path) if card.installed else None,
    }
