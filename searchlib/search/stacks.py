"""One match for one shot: the raw file beside its JPEG, the film beside a live photograph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from searchlib.images import kind_of, leader, stack_key
from searchlib.search.match import Match


def collapse(matches: Iterable[Match]) -> list[Match]:
    """Put the files of one shot into one match.

    A raw file and the picture that was developed beside it look alike, so both match wherever one
    does. The better score counts, and the developed picture stands for both. Two developed pictures
    of one name are two pictures.

    Args:
        matches: best first.

    Returns:
        The matches, best first, each with the other files of its shot.
    """
    shots: list[Match] = []
    by_key: dict[str, int] = {}
    for match in matches:
        key = stack_key(match.path)
        at = by_key.setdefault(key, len(shots))
        if at == len(shots) or not _are_one_shot(shots[at], match):
            shots.append(replace(match, stack=match.image.videos))
            continue
        first = shots[at]
        chosen = match if leader([first.path, match.path]) == match.path else first
        others = {*first.stack, *match.image.videos, first.path, match.path} - {chosen.path}
        shots[at] = replace(chosen, score=first.score, stack=tuple(sorted(others)))
    return shots


def _are_one_shot(one: Match, other: Match) -> bool:
    return {kind_of(one.path), kind_of(other.path)} == {"raw", "still"}
