"""`searchlib status`: what is in the library."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.catalog import Heartbeat
    from searchlib.status import Status

_SILENT_SECONDS = 60.0


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
        **_troubles(found),
        "folders": f"{found.folders:,}",
        "model": f"{found.model}, {found.dimension} dimensions, {found.identity[:12]}",
        "index": _index(found),
        **({"build": f"due: {shared.HOW_TO_BUILD}"} if found.build_due else {}),
        "on disk": (
            f"catalog {shared.size_in_words(found.catalog_bytes)}, "
            f"index {shared.size_in_words(found.index_bytes)}"
        ),
        "last change": changed,
    }
    if found.watcher is not None:
        rows.update(_watcher(found.watcher))
    for name, value in rows.items():
        click.echo(f"{name:12} {value}")
    for model in found.models if len(found.models) > 1 else ():
        used = ", in use" if model.in_use else ""
        click.echo(f"{'vectors':12} {model.vectors:,} of {model.name}, {model.identity[:12]}{used}")


def _index(found: Status) -> str:
    line = f"{found.recipe}, {found.vectors:,} vectors"
    if found.recipe in ("exact", "milvus"):
        return line
    recall = "not measured" if found.recall is None else f"{found.recall:.3f} measured"
    return (
        f"{line} ({found.fresh:,} fresh, {found.dead:,} dead), recall@10 {recall}, "
        f"{found.recall_target:g} asked for"
    )


def _troubles(found: Status) -> dict[str, str]:
    rows = {
        "offline": (found.offline, "on drives that are not mounted"),
        "failed": (found.failed, "see `searchlib failures`"),
        "queued": (found.queued, "changed, and not looked at yet"),
    }
    return {name: f"{count:,}, {words}" for name, (count, words) in rows.items() if count}


def _watcher(beat: Heartbeat) -> dict[str, str]:
    now = time.time()
    since = shared.local_time(beat.started_at)
    event, scan = beat.last_event_at, beat.scanned_at
    silent = now - beat.beat_at
    alive = f"{_duration(silent)} ago"
    if silent > _SILENT_SECONDS:
        alive = f"no sign of life for {silent:.0f} s; see what pid {beat.pid} on {beat.host} does"
    return {
        "watcher": f"pid {beat.pid} on {beat.host} since {since}: {beat.stage}",
        "queue": f"{beat.queued:,} ({beat.settling:,} settling), lag {_duration(beat.lag)}",
        "rate": f"{beat.per_second:.1f} files/s; {beat.done:,} done, {beat.failed:,} failed",
        "last event": "none yet" if event is None else f"{_duration(now - event)} ago",
        "last scan": "none yet" if scan is None else f"{_duration(now - scan)} ago",
        "heartbeat": alive,
    }


def _duration(seconds: float) -> str:
    """For a person; a clock that was set back makes no negative ones."""
    seconds = max(seconds, 0.0)
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
