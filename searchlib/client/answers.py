"""Answers as they come: JSON to the dataclasses that a library gives."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from typing import Any

import httpx2

from searchlib.catalog import Facts, ImageRecord
from searchlib.errors import ServerError
from searchlib.search import Contribution, Match, Results, Threshold, Timings


def refusal(answer: httpx2.Response) -> ServerError:
    """What a server says when it does not answer as it was asked."""
    try:
        problem = answer.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code = "no-answer"
        detail = f"{answer.url}: {answer.status_code} {answer.reason_phrase}"
    retry_after = None
    with suppress(KeyError, ValueError):
        retry_after = float(answer.headers["Retry-After"])
    return ServerError(detail, status=answer.status_code, code=code, retry_after=retry_after)


def results(answer: dict[str, Any]) -> Results:
    """The answer to a search."""
    asked = answer["min_similarity"]
    spent = answer["timings"]
    return Results(
        matches=tuple(map(_match, listed(answer, "matches"))),
        model=answer["model"],
        cursor=answer["cursor"],
        threshold=None if asked is None else Threshold(asked["value"], asked["kind"]),
        least=None if asked is None else asked["least"],
        exact=answer["exact"],
        timings=Timings() if spent is None else Timings(**spent),
    )


def _match(found: dict[str, Any]) -> Match:
    return Match(
        path=found["path"],
        score=found["score"],
        image=image_of(found),
        stack=tuple(found["stack"]),
        rank=found["rank"],
        percentile=found["percentile"],
        terms=tuple(Contribution(**each) for each in found["terms"]),
        alike=tuple(found["alike"]),
    )


def image_of(found: dict[str, Any]) -> ImageRecord:
    """An image in an answer."""
    return ImageRecord(
        id=found["id"],
        digest=found["digest"],
        facts=Facts(**{each.name: found[each.name] for each in fields(Facts)}),
        paths=tuple(found["paths"]),
        videos=tuple(found["videos"]),
        tags=tuple(found["tags"]),
        properties=tuple(sorted(found["properties"].items())),
        added_at=found["added_at"],
    )


def listed(answer: dict[str, Any], name: str) -> Iterable[dict[str, Any]]:
    """The objects of a list in an answer."""
    found: list[dict[str, Any]] = answer[name]
    return found
