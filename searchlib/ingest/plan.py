"""What an ingest has to do: the disk as it is against the catalog as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searchlib.catalog import Catalog, KnownFile, ModelRecord
from searchlib.ingest.place import gone, stat_of
from searchlib.ingest.report import Skipped
from searchlib.ingest.walk import Found, walk

_TELL_EVERY = 500


@dataclass(slots=True)
class Plan:
    """What is to be done.

    Attributes:
        read: files to read.
        folders: that were named themselves.
        unchanged: how many files need nothing.
        returned: ids of untouched files that were taken for missing.
        missing: paths of known files that are gone.
        skipped: what cannot be used.
    """

    read: list[Found] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    unchanged: int = 0
    returned: list[int] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)


def make_plan(
    catalog: Catalog,
    model: ModelRecord,
    paths: Sequence[str | os.PathLike[str]],
    *,
    retry: bool,
    on_found: Callable[[int], None],
) -> Plan:
    """List what lies below the paths and compare it with the catalog.

    Args:
        catalog: of the library.
        model: that every image should have a vector of.
        paths: folders and files.
        retry: try untouched files again that could not be used before.
        on_found: told how many files were found, now and then.

    Raises:
        InputError: an ignore file cannot be used.
    """
    plan = Plan()
    seen: set[str] = set()
    for given in paths:
        root = os.path.abspath(given)  # noqa: PTH100 - resolving links would rename the files
        known = catalog.known_files(root, model)
        found_here = 0
        if os.path.isdir(root):  # noqa: PTH112 - a Path raises where it may not look
            plan.folders.append(root)
            listing = walk(root)
        else:
            listing = iter([_single(root)])
        for item in listing:
            found_here += isinstance(item, Found)
            if item.path in seen:
                continue
            seen.add(item.path)
            if len(seen) % _TELL_EVERY == 0:
                on_found(len(seen))
            if isinstance(item, Skipped):
                plan.skipped.append(item)
            else:
                _compare(plan, item, known.get(item.path), retry=retry)
        _look_for_missing(plan, root, known, seen, found_here)
    on_found(len(seen))
    return plan


def _single(path: str) -> Found | Skipped:
    try:
        return Found(path, stat_of(Path(path).stat()), None)
    except FileNotFoundError:
        return Skipped(path, "there is no such file or folder")
    except (OSError, ValueError) as error:
        return Skipped(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _compare(plan: Plan, found: Found, known: KnownFile | None, *, retry: bool) -> None:
    if known is None or known.stat != found.stat:
        plan.read.append(found)
    elif known.state == "skipped":
        if retry:
            plan.read.append(found)
        else:
            plan.skipped.append(Skipped(found.path, known.reason or ""))
    elif not known.embedded:
        # It was away, or could not be read, while the library changed its model.
        plan.read.append(found)
    else:
        plan.unchanged += 1
        if known.state == "missing":
            plan.returned.append(known.id)


def _look_for_missing(
    plan: Plan, root: str, known: dict[str, KnownFile], seen: set[str], found_here: int
) -> None:
    absent = [
        path
        for path, file in known.items()
        if file.state != "missing" and path not in seen and gone(path)
    ]
    # A folder that held pictures and is empty now is most likely a drive that is not mounted.
    if absent and not found_here:
        plan.skipped.append(
            Skipped(
                root,
                f"none of its {len(absent)} known files is there; taken for a drive that is not "
                "mounted, so they stay in the library",
            )
        )
        return
    plan.missing.update(absent)
