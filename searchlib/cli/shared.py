"""What the commands share: options, how errors and warnings are said, how values are written."""

from __future__ import annotations

import atexit
import gc
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from searchlib.errors import SearchlibError, WhereError

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition
    from searchlib.library import Library

OK, NOTHING_FOUND, FAILED, PARTLY, INTERRUPTED = 0, 1, 2, 3, 130
HEALED = 1
"""What was wrong is right now: the exit code that fsck has for it."""

HOW_TO_BUILD = "run `searchlib index build`, or leave `searchlib watch` running"

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Modules(MutableMapping[str, click.Command]):
    """Commands by name, each imported when it is asked for: a query should not wait for the others.

    Args:
        names: of the commands; each is in the module of `searchlib.cli` that is named like it.
    """

    def __init__(self, *names: str) -> None:
        self._commands: dict[str, click.Command | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if command is None:
            module = import_module(f"searchlib.cli.{name}")
            command = self._commands[name] = getattr(module, name)
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


class Commands(click.Group):
    """A group that says errors in a line and has an exit code for each way to end."""

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            # No name is a reason to stop, whatever the terminal can show.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except WhereError as error:
            say(error.pointed())
            ctx.exit(FAILED)
        except SearchlibError as error:
            say(f"searchlib: {_one_line(str(error))}")
            ctx.exit(FAILED)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = "the output" if error.filename is None else _one_line(str(error.filename))
            say(f"searchlib: {where}: {error.strerror or error}")
            # Python would try, and complain, again at its end: the buffer still holds the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            say("searchlib: interrupted")
            ctx.exit(INTERRUPTED)


def library_options(command: _Command) -> _Command:
    """The options that every command on a library has."""
    command = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_up_logging,
        is_eager=True, help="Say more on stderr.",
    )(command)  # fmt: skip
    return click.option(
        "--library",
        "folder",
        type=click.Path(path_type=Path, readable=False),
        metavar="DIR",
        help="The library's folder. [env: SEARCHLIB_LIBRARY]",
    )(command)


def ingest_options(command: _Command) -> _Command:
    """How files are taken in, for every command that does so."""
    command = click.option(
        "--thumbnails/--no-thumbnails",
        default=None,
        help="Keep a small picture of each new image.  [default: as before in this library]",
    )(command)
    return click.option("--workers", type=click.IntRange(1, 256), help="Files worked on at once.")(
        command
    )


def json_option(command: _Command) -> _Command:
    """The option for output that programs read."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


DATABASE = "SEARCHLIB_DATABASE"
"""The environment variable with the URL of a catalog in PostgreSQL; it may hold a password, which a
command line would show to everybody."""


def open_library(folder: Path | None, *, create: bool = False, background: bool = False) -> Library:
    """The library of the command."""
    # Half a second of imports, which `searchlib --help` should not pay. All they make lasts until
    # the end: looking for garbage among it, now and at the end, would take a fifth of a query.
    gc.disable()
    from searchlib.library import open_library

    gc.freeze()
    gc.enable()
    atexit.register(gc.freeze)
    database = os.environ.get(DATABASE) or None
    return open_library(folder, create=create, background=background, database=database)


def conditions(where: str | None) -> Condition | None:
    """Conditions in words; folders in them may be given as seen from the working folder."""
    if where is None or not where.strip():
        return None
    from searchlib.search.where import parse_where

    return parse_where(where, folder=os.getcwd())  # noqa: PTH109 - as text, whatever is in it


def say(line: str) -> None:
    """A line for a person, on stderr."""
    # click's own stderr would write into a bar that is being drawn; this one is the bar's then.
    click.echo(line, file=sys.stderr)


def print_json(value: Any) -> None:
    """JSON on stdout; bytes of a path that are no text come as lone surrogates, escaped."""
    click.echo(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """The same in a line, which a program that waits for it has at once."""
    click.echo(json.dumps(value))


def local_time(seconds: float) -> str:
    """A moment, in seconds since 1970, as a person's clock showed it."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def size_in_words(count: int) -> str:
    """A number of bytes for a person."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _one_line(text: str) -> str:
    from searchlib.images import printable

    return printable(text)


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(f"searchlib: {record.levelname.lower()}: {_one_line(record.getMessage())}")
        except Exception:  # what cannot be said is no reason to stop
            self.handleError(record)


def _set_up_logging(_ctx: click.Context, _option: click.Parameter, verbose: bool) -> None:
    logger = logging.getLogger("searchlib")
    logger.handlers[:] = [_Said()]
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
