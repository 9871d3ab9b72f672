"""`searchlib index`: what finds the nearest vectors, and how well."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchlib.cli import shared
from searchlib.cli.progress import steps
from searchlib.cli.signals import stopping

if TYPE_CHECKING:
    from searchlib.search import IndexCheck, IndexStatus, IndexTuning

_AUTO, _EXACT, _MILVUS = "auto", "exact", "milvus"
_MILVUS_USE = (
    "The vectors are kept and searched by a Milvus server: for those who outgrow a machine."
)

_recall_option = click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="R",
    help="The share of the ten nearest that an approximate index is to find.  [default: as before, "
    "0.99 at first]",
)


@click.group()
def index() -> None:
    """Choose, build, verify and tune what finds the nearest vectors.

    A small library needs none of this: all its vectors are compared with the question. One that
    outgrows that gets an approximate index, in the background of `searchlib watch` or by `build`.
    """


@index.command("list")
@shared.json_option
@shared.library_options
def list_(as_json: bool, folder: Path | None) -> None:
    """List the recipes by which an index can be built, and which one the library uses."""
    status = _status_if_any(folder)
    listed = [_recipe_as_json(name, status) for name in _names()]
    if as_json:
        shared.print_json(listed)
        return
    for each in listed:
        marks = [
            *(["in use"] if each["in_use"] else []),
            *(["chosen"] if each["chosen"] else []),
            *(["by size"] if each["by_size"] else []),
        ]
        click.echo(f"{each['name']}  {', '.join(marks)}".rstrip())
        click.echo(f"    {each['use']}")
        for line in _figures_in_words(each["measured"]):
            click.echo(f"    {line}")


@index.command()
@click.argument("recipe")
@click.option("--uri", metavar="URI", help="Of the Milvus server; only for milvus.")
@_recall_option
@shared.json_option
@shared.library_options
def use(
    recipe: str, uri: str | None, recall: float | None, as_json: bool, folder: Path | None
) -> None:
    """Choose the index of the library; RECIPE is one of the list, or auto for one by its size.

    Nothing stops for it: the index that there is serves until the new one is built.
    """
    with shared.open_library(folder) as library:
        library.use_index(None if recipe == _AUTO else recipe, uri=uri, recall=recall)
        status = library.index_status()
        vectors = library.status().vectors
    if as_json:
        shared.print_json(_status_as_json(status))
    else:
        click.echo(_chosen_in_words(status, vectors))


@index.command()
@click.option("--always", is_flag=True, help="Also where it is not due.")
@shared.json_option
@shared.library_options
@click.pass_context
def build(ctx: click.Context, always: bool, as_json: bool, folder: Path | None) -> None:
    """Build now what was chosen, where that is due; the library can be used meanwhile.

    Interrupt it as you like: the index stays as it was.
    """
    started = time.monotonic()
    with shared.open_library(folder) as library:
        was_due = library.index_status().is_due
        with stopping() as stop, steps() as on_progress:
            built = library.build_index(always=always, cancel=stop.event, on_progress=on_progress)
        status = library.index_status()
    seconds = time.monotonic() - started
    if as_json:
        shared.print_json({"built": built, "seconds": seconds, **_status_as_json(status)})
    elif built:
        click.echo(f"built in {seconds:.1f} s: {_index_in_words(status)}")
    elif stop.code is None and status.recipe == _MILVUS:
        click.echo(f"nothing to build: {_index_in_words(status)} has all vectors")
    elif stop.code is None and not was_due and not always:
        click.echo(f"nothing to build: {_index_in_words(status)}")
    if built:
        return
    if stop.code is not None:
        shared.say("searchlib: interrupted; the index is as it was")
        ctx.exit(stop.code)
    if status.is_due or always:
        shared.say(
            "searchlib: not built: the library is empty, or another process is building; "
            "`searchlib status` tells"
        )
        ctx.exit(shared.FAILED)


@index.command()
@shared.json_option
@shared.library_options
@click.pass_context
def verify(ctx: click.Context, as_json: bool, folder: Path | None) -> None:
    """Compare the index with the catalog, vector by vector, and heal it where it is wrong.

    Exit code 0: it was right; 1: it was wrong and was healed; 2: it is wrong, and the library
    cannot be written.
    """
    with shared.open_library(folder) as library, steps() as on_progress:
        check = library.verify_index(on_progress=on_progress)
        status = library.index_status()
    if as_json:
        shared.print_json({"right": check.is_right, **asdict(check)})
    else:
        for line in _check_in_words(check):
            click.echo(line)
        if status.is_due:
            shared.say(f"until it is built again, every vector is compared; {shared.HOW_TO_BUILD}")
    if not check.is_right:
        ctx.exit(shared.HEALED if check.healed else shared.FAILED)


@index.command()
@_recall_option
@shared.json_option
@shared.library_options
def tune(recall: float | None, as_json: bool, folder: Path | None) -> None:
    """Measure with the library's own vectors what the index finds, and set it to a recall."""
    with shared.open_library(folder) as library, steps() as on_progress:
        tuned = library.tune_index(recall, on_progress=on_progress)
    if as_json:
        shared.print_json(asdict(tuned))
    else:
        click.echo(_tuning_in_words(tuned))


def _names() -> list[str]:
    from searchlib.index import recipe_names

    return [*recipe_names(), _MILVUS]


def _status_if_any(folder: Path | None) -> IndexStatus | None:
    """None where nobody named a library and there is none."""
    from searchlib.errors import LibraryNotFoundError

    try:
        with shared.open_library(folder) as library:
            return library.index_status()
    except LibraryNotFoundError:
        if folder is not None:
            raise
        return None


def _recipe_as_json(name: str, status: IndexStatus | None) -> dict[str, Any]:
    from searchlib.index import load_recipe
    from searchlib.search import recipe_figures

    chosen = None if status is None else status.choice.recipe
    by_size = status is not None and chosen is None and name == status.wanted
    return {
        "name": name,
        "use": _MILVUS_USE if name == _MILVUS else load_recipe(name).use,
        "in_use": status is not None and name == status.recipe,
        "chosen": name == chosen,
        "by_size": by_size,
        "uri": status.choice.shown_uri if status and name == chosen else None,
        "measured": {} if name == _MILVUS else recipe_figures(name),
    }


def _figures_in_words(figures: dict[str, Any]) -> list[str]:
    """A line for each figure, those of several sizes with the sizes."""
    lines = []
    for name, value in figures.items():
        words = name.replace("_", " ").replace("recall at 10", "recall@10")
        if isinstance(value, dict):
            value = ", ".join(f"{each} at {size}" for size, each in value.items())
        lines.append(f"{words}: {value}")
    return lines


def _status_as_json(status: IndexStatus) -> dict[str, Any]:
    values = asdict(status)
    choice = values.pop("choice")
    return {
        "chosen": choice["recipe"],
        "uri": status.choice.shown_uri,
        "recall_target": choice["recall"],
        **values,
    }


def _chosen_in_words(status: IndexStatus, vectors: int) -> str:
    choice = status.choice
    chosen = f"{choice.recipe} is chosen" if choice.recipe else "the index is chosen by size"
    if status.recipe == _MILVUS:
        return (
            f"milvus is chosen, at {choice.shown_uri}: the vectors are sent there before the next "
            "question, or now by `searchlib index build`"
        )
    if status.is_due:
        return (
            f"{chosen}: {status.wanted} is built in the background of `searchlib watch` or of an "
            f"app, or now by `searchlib index build`; until then {status.recipe} serves"
        )
    if status.recipe == status.wanted != _EXACT and status.target != choice.recall:
        return (
            f"{chosen} and in use; `searchlib index tune` sets it to a recall of "
            f"{choice.recall:g} now"
        )
    if status.recipe != status.wanted:
        return (
            f"{chosen}: it begins at {status.least:,} vectors and the library has {vectors:,}, so "
            f"{status.recipe} serves, which compares every one"
        )
    return f"{chosen}: {status.recipe} is in use"


def _index_in_words(status: IndexStatus) -> str:
    if status.recipe == _MILVUS:
        return f"milvus at {status.choice.shown_uri}"
    line = f"{status.recipe}, {status.vectors:,} vectors"
    if status.recipe == _EXACT:
        return f"{line}, all compared"
    recall = "not measured" if status.recall is None else f"{status.recall:.3f} measured"
    return f"{line}, recall@10 {recall}, {status.choice.recall:g} asked for"


def _check_in_words(check: IndexCheck) -> list[str]:
    compared = f"{check.checked:,} vectors compared"
    if check.is_right:
        return [f"{compared}: the index is right"]
    counts = {
        "missing": check.missing,
        "different": check.different,
        "that the catalog does not have": check.extra,
    }
    found = ", ".join(f"{count:,} {words}" for words, count in counts.items() if count)
    lines = [] if check.damage is None else [f"damaged: {check.damage}"]
    if found:
        lines.append(f"wrong: {found}")
    end = (
        "the index was built anew from the catalog"
        if check.healed
        else "the library cannot be written, so the index was not healed"
    )
    return [*lines, f"{compared}: {end}"]


def _tuning_in_words(tuned: IndexTuning) -> str:
    if tuned.tuning is None:
        return (
            f"{tuned.recipe}, {tuned.vectors:,} vectors: every one is compared, so the recall is 1 "
            "and there is nothing to tune"
        )
    line = (
        f"{tuned.recipe}, {tuned.vectors:,} vectors: recall@10 {tuned.recall:.4f} measured, "
        f"{tuned.target:g} asked for, with {tuned.tuning.probes:,} probes and "
        f"{10 * tuned.tuning.factor:,} candidates ranked again for 10 neighbours"
    )
    if tuned.recall < tuned.target:
        line += "; more cannot be had with this recipe"
    return line
