"""`searchlib watch`: folders into the library, for as long as they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from searchlib.cli import shared
from searchlib.cli.add import report_as_json, summary
from searchlib.cli.progress import Counted, counting
from searchlib.cli.signals import stopping

if TYPE_CHECKING:
    from searchlib import WatchEvent

_RULES = ("include", "exclude", "recursive", "follow_links", "marker", "events")


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(path_type=Path, readable=False, file_okay=False),
    metavar="[FOLDER]...",
)
@click.option("--once", is_flag=True, help="Bring all up to date, and end.")
@click.option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="Only files that it names, as in a .gitignore; may be given again.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out what it names; may be given again.",
)
@click.option("--recursive/--no-recursive", default=True, help="With all folders below, or none.")
@click.option("--follow-links", is_flag=True, help="Follow links to folders.")
@click.option(
    "--marker",
    metavar="NAME",
    help="A file that lies in FOLDER whenever its drive is mounted.",
)
@click.option(
    "--events",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Whether the system tells of changes, as network drives do not.",
)
@click.option(
    "--settle",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Take a file when it has stood still for so long.",
)
@click.option(
    "--rescan",
    type=click.FloatRange(0, min_open=True),
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="Compare the folders with the library so often.",
)
@click.option(
    "--grace-days",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="N",
    help="Give up files that are missing for longer.",
)
@shared.ingest_options
@click.option(
    "--json", "--jsonl", "as_json", is_flag=True, help="Print a JSON line for each event."
)
@shared.library_options
@click.pass_context
def watch(
    ctx: click.Context,
    paths: tuple[Path, ...],
    once: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    recursive: bool,
    follow_links: bool,
    marker: str | None,
    events: Literal["auto", "yes", "no"],
    settle: float,
    rescan: float,
    grace_days: float,
    workers: int | None,
    thumbnails: bool | None,
    as_json: bool,
    folder: Path | None,
) -> None:
    """Watch folders, and keep the library up to date with them until it is stopped.

    They stay registered: without FOLDER, all that are registered are watched. The rules (--include
    to --events) are those of the folders given here, in place of the ones that they had; without
    any rule a folder keeps what it has. SIGTERM and Ctrl-C end it after what is under way.
    """
    rules_given = any(ctx.get_parameter_source(name) != ParameterSource.DEFAULT for name in _RULES)
    if rules_given and not paths:
        raise click.UsageError("rules are of folders; say which ones as well")
    with shared.open_library(folder, create=True, background=True) as library, stopping() as stop:
        if rules_given:
            for path in paths:
                library.register(
                    path,
                    recursive=recursive,
                    follow_links=follow_links,
                    include=include,
                    exclude=exclude,
                    marker=marker,
                    events=events,
                )
        elif not paths and not any(each.watched for each in library.folders()):
            raise click.UsageError("no folder is watched yet; name one: searchlib watch FOLDER")
        with _Teller(once=once) as teller:
            report = library.watch(
                *paths,
                once=once,
                settle=settle,
                rescan=rescan,
                grace_days=grace_days,
                workers=workers,
                thumbnails=thumbnails,
                stop=stop.event,
                on_event=_print_line if as_json else teller.tell,
            )
    if as_json:
        shared.print_json_line({"event": "report", **report_as_json(report)})
    elif once:
        click.echo(summary(report))
    if not once:
        return
    if stop.code is not None and report.cancelled:
        shared.say("searchlib: interrupted; what was added is kept")
        ctx.exit(stop.code)
    if report.skipped:
        ctx.exit(shared.PARTLY)


def _print_line(event: WatchEvent) -> None:
    values = {name: value for name, value in asdict(event).items() if value is not None}
    shared.print_json_line({"event": values.pop("kind"), **values})


class _Teller:
    """Says to a person what happens: a line for each burst of changes, and a bar after a scan."""

    def __init__(self, *, once: bool) -> None:
        self._once = once
        self._bar = ExitStack()
        self._draw: Callable[[Counted], None] | None = None
        self._outcomes: Counter[str] = Counter()
        self._done = 0
        self._total: int | None = None
        self._scanned: set[str | None] = set()
        self._said: dict[tuple[str, str | None], str | None] = {}

    def __enter__(self) -> _Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def tell(self, event: WatchEvent) -> None:
        """Say what there is to say of an event."""
        match event.kind:
            case "started" if not self._once:
                folders = "1 folder" if event.count == 1 else f"{event.count} folders"
                shared.say(f"watching {folders}; Ctrl-C stops")
            case "scanning" if self._draw is None:
                self._draw = self._bar.enter_context(counting())
            case "scanned":
                self._scan(event)
            case "progress" if event.total is not None:
                self._done, self._total = event.count or 0, event.total
                self._show()
            case "file":
                self._file(event)
            case "missing":
                self._outcomes["missing"] += event.count or 0
            case "offline":
                self._complain(event)
            # All other trouble is the library's own, and it logs a warning.
            case "trouble" if event.path is not None:
                self._complain(event)
            case "idle":
                self._sum_up()
            case "stopped" if not self._once:
                self._sum_up()
                shared.say("stopped")

    def _scan(self, event: WatchEvent) -> None:
        if event.path not in self._scanned:
            self._scanned.add(event.path)
            shared.say(f"scanned {_path(event)}: {event.count:,} pictures")
        if event.count:
            self._said.pop(("offline", event.path), None)

    def _file(self, event: WatchEvent) -> None:
        assert event.outcome is not None
        if event.outcome != "skipped":
            self._said.pop(("skipped", event.path), None)
            self._outcomes[event.outcome] += 1
        elif self._complain(event):
            self._outcomes["skipped"] += 1
        self._done += 1
        self._show()

    def _show(self) -> None:
        """How far the files of a scan are; what changes later is soon done, and has no bar."""
        if self._draw is not None:
            from searchlib import Progress

            skipped = self._outcomes["skipped"]
            self._draw(Progress("embedding", self._done, self._total, skipped))

    def _complain(self, event: WatchEvent) -> bool:
        """In a line, and not again at each scan that finds the same; says whether it is new."""
        word = event.outcome or event.kind
        if self._said.get((word, event.path)) == event.reason:
            return False
        self._said[word, event.path] = event.reason
        shared.say(f"{word} {_path(event)}: {event.reason}")
        return True

    def _sum_up(self) -> None:
        self._bar.close()
        self._draw = self._total = None
        self._done = 0
        words = [f"{outcome} {count}" for outcome, count in sorted(self._outcomes.items())]
        self._outcomes.clear()
        if words and not self._once:
            click.echo(", ".join(words))


def _path(event: WatchEvent) -> str:
    from searchlib.images import printable

    return printable(event.path or "")
