"""`searchlib search`: what looks like this?"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import results as output
from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.cli.terminal_pictures import Way
    from searchlib.library import Library
    from searchlib.search.match import Results
    from searchlib.search.question import Term


@click.command()
@click.argument("terms", nargs=-1, metavar="[TERM [+|- TERM]...]")
@click.option("--text", "texts", multiple=True, metavar="WORDS", help="Like what words say.")
@click.option("--like", "likes", multiple=True, metavar="IMAGE", help="Like this one too.")
@click.option("--unlike", "unlikes", multiple=True, metavar="IMAGE", help="Unlike this one.")
@click.option("--where", metavar="CONDITIONS", help="Only images that meet these conditions.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--all", "all_", is_flag=True, help="All that reach --min-similarity.")
@click.option(
    "--min-similarity",
    "least",
    metavar="COSINE|PERCENT%",
    help="Leave out what is less alike: 0.8 is a score, 99% is of 100 random pairs.",
)
@click.option("--offset", default=0, type=click.IntRange(0), help="Leave out so many of the best.")
@click.option("--cursor", help="Go on behind an earlier answer: what its --json has as cursor.")
@click.option("--collapse", is_flag=True, help="Show pictures that are nearly the same as one.")
@click.option("--exact", is_flag=True, help="Compare every vector, also in a large library.")
@click.option("--explain", is_flag=True, help="Say what the scores are made of, and the times.")
@click.option(
    "--pictures",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "never", "iterm2", "kitty", "sixel"]),
    help="Draw the matches in the terminal.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with all matches and their pictures in it.",
)
@click.option("--open", "open_", is_flag=True, help="Open the page of --html, or the best match.")
@output.form_options
@shared.library_options
@click.pass_context
def search(
    ctx: click.Context,
    /,
    terms: tuple[str, ...],
    texts: tuple[str, ...],
    likes: tuple[str, ...],
    unlikes: tuple[str, ...],
    where: str | None,
    k: int,
    all_: bool,
    least: str | None,
    offset: int,
    cursor: str | None,
    collapse: bool,
    exact: bool,
    explain: bool,
    pictures: str,
    html: Path | None,
    open_: bool,
    folder: Path | None,
    **forms: bool,
) -> None:
    """Find the images nearest to each TERM, best first.

    A TERM is a file, a URL, id:NUMBER of an image in the library, or words in quotes, where the
    model knows words. Join several with + (like it) and - (unlike it); NUMBER: in front of one is
    its weight: "2:dog" + beach.jpg - night.jpg

    The score is the cosine of the two vectors: 1 is the same picture, and what unrelated
    pictures have is around 0. Conditions are described in docs/filters.md.

    Exit codes: 0 found, 1 nothing found, 2 it cannot be done, 3 found, but a part failed.
    """
    form = output.chosen_form(**forms)
    if all_ and least is None:
        raise click.UsageError("--all needs --min-similarity: else it means every image")
    with shared.open_library(folder) as library:
        asked = _asked(terms, texts, likes, unlikes)
        found = library.search(
            asked,
            where=shared.conditions(where),
            k=None if all_ else k,
            min_similarity=least,
            offset=offset,
            cursor=cursor,
            collapse=collapse,
            exact=exact,
        )
        _write(found, form, library, pictures, explain=explain)
        whole = True
        if html is not None:
            lines = [*(_in_words(term) for term in asked), *([f"where: {where}"] if where else [])]
            whole = _write_sheet(html, found, library, lines)
    if explain and found.model is not None:
        output.say_timings(found)
    if not found:
        if form in (None, "paths", "null"):
            shared.say(_none(found, limited=bool(where or offset or cursor)))
        ctx.exit(shared.NOTHING_FOUND)
    if open_ and not _open(html or found[0].path):
        whole = False
    if not whole:
        ctx.exit(shared.PARTLY)


def _asked(
    words: tuple[str, ...], texts: tuple[str, ...], likes: tuple[str, ...], unlikes: tuple[str, ...]
) -> tuple[Term, ...]:
    from searchlib.search.question import Term
    from searchlib.search.terms import parse_terms

    if not (words or texts or likes or unlikes):
        raise click.UsageError("say what to look for: an image, or words with --text")
    unlike = [_image(word, "--unlike") for word in unlikes]
    return (
        *(parse_terms(words) if words else ()),
        *(Term(text=text) for text in texts),
        *(_image(word, "--like") for word in likes),
        *(replace(term, weight=-term.weight) for term in unlike),
    )


def _image(word: str, option: str) -> Term:
    from searchlib.search.terms import parse_terms

    (term,) = parse_terms((word,))
    if term.text is not None:
        raise click.UsageError(f"{option} {word}: no such file; words are for --text")
    return term


def _write(
    found: Results,
    form: output.Form | None,
    library: Library,
    pictures: str,
    *,
    explain: bool,
) -> None:
    at_terminal = sys.stdout is not None and sys.stdout.isatty()
    way = _way(pictures, at_terminal) if form is None and found else None
    if form is not None:
        output.write_results(found, form, explain=explain)
    elif way is not None:
        from searchlib.cli.pictures import small_picture, write_with_pictures

        write_with_pictures(
            found, way, picture=lambda match: small_picture(library, match), explain=explain
        )
    elif at_terminal:
        if found:
            output.write_table(found, explain=explain)
    else:
        output.write_lines(found)
        if explain:
            output.write_explanation(found)


def _way(pictures: str, at_terminal: bool) -> Way | None:
    if pictures == "never" or (pictures == "auto" and not at_terminal):
        return None
    from searchlib.cli.terminal_pictures import WAYS, way_of_terminal

    return next((way for way in WAYS if way == pictures), None) or way_of_terminal()


def _write_sheet(file: Path, found: Results, library: Library, asked: list[str]) -> bool:
    """Whether all pictures are on it."""
    from searchlib.cli.contact_sheet import contact_sheet
    from searchlib.cli.pictures import small_picture
    from searchlib.images import printable

    sheet = contact_sheet(found, asked=asked, picture=lambda match: small_picture(library, match))
    # A browser that shows the file meanwhile never sees half a page.
    written = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        written.write_text(sheet.html, encoding="utf-8")
        written.replace(file)
    finally:
        written.unlink(missing_ok=True)
    for path, reason in sheet.failed:
        shared.say(f"no picture of {printable(path)}: {reason}")
    return not sheet.failed


def _open(target: str | Path) -> bool:
    from searchlib.images import printable

    if click.launch(os.path.abspath(target)) == 0:  # noqa: PTH100 - a Path changes odd names
        return True
    shared.say(f"searchlib: {printable(target)}: no program opens it here")
    return False


def _in_words(term: Term) -> str:
    what = term.label or term.text or (f"id:{term.stored}" if term.stored else str(term.image))
    return f"{'like' if term.weight > 0 else 'unlike'}: {what}"


def _none(found: Results, *, limited: bool) -> str:
    if found.threshold is not None:
        return "no image is so similar"
    if limited:
        return "no image meets the conditions"
    return "the library has no images in place; add some with `searchlib add FOLDER`"
