"""Errors over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from searchlib import errors
from searchlib.server.problems import (
    CODES,
    MEDIA_TYPE,
    SCHEMA,
    Problem,
    problem_of,
    problem_responses,
)


def _all(kind: type[errors.SearchlibError]) -> Iterator[type[errors.SearchlibError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _all(child)


def _made(kind: type[errors.SearchlibError]) -> errors.SearchlibError:
    if issubclass(kind, errors.WhereError):
        return kind("taken:20x4", 6, 10, "is no date")
    if issubclass(kind, errors.ServerError):
        return kind("refused", status=500, code="internal")
    if issubclass(kind, errors.ImageError | errors.WebError):
        return kind("what.jpg", "is broken")
    return kind("what happened")


# Those that a request cannot meet: they are told to nobody but the log.
_OURS = {errors.SearchlibError, errors.ServerError, errors.ServerUnreachableError}
_OURS |= {errors.CheckpointError}


@pytest.mark.parametrize("kind", list(_all(errors.SearchlibError)), ids=lambda kind: kind.__name__)
def test_every_error_of_the_package_has_a_code_and_keeps_its_words(
    kind: type[errors.SearchlibError],
) -> None:
    problem = problem_of(_made(kind))
    if kind in _OURS:
        assert problem.code == "internal"
        return
    assert problem.code != "internal"
    assert problem.detail == str(_made(kind))


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (errors.WhereError, 422, "bad-where"),
        (errors.CursorError, 422, "bad-cursor"),
        (errors.NotFoundError, 404, "not-found"),
        (errors.InputError, 422, "bad-query"),
        (errors.VectorError, 422, "bad-query"),
        (errors.TooLargeError, 413, "too-large"),
        (errors.DecodeError, 422, "not-a-picture"),
        (errors.SourceError, 422, "bad-url"),
        (errors.TextUnsupportedError, 422, "no-text-side"),
        (errors.ModelFileError, 500, "model-unusable"),
        (errors.LibraryBusyError, 503, "busy"),
        (errors.LibraryReadOnlyError, 409, "read-only"),
        (errors.DiskFullError, 507, "disk-full"),
        (errors.ImageGoneError, 410, "image-gone"),
        (errors.LibraryDamagedError, 500, "library-unusable"),
        (errors.IndexServiceError, 503, "index-unreachable"),
    ],
)
def test_the_codes_of_errors_stay(
    kind: type[errors.SearchlibError], status: int, code: str
) -> None:
    problem = problem_of(_made(kind))
    assert (problem.status_code, problem.code) == (status, code)


def test_wrong_conditions_are_pointed_at() -> None:
    body = json.loads(problem_of(_made(errors.WhereError)).body())
    assert body["pointer"] == {"start": 6, "end": 10}
    assert body["detail"] == "'20x4': is no date"


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    response = Problem("busy", "try later", retry_after=0.2).response()
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers["retry-after"] == "1"
    assert json.loads(bytes(response.body)) == {
        "type": "about:blank",
        "title": CODES["busy"][1],
        "status": 503,
        "detail": "try later",
        "code": "busy",
    }


def test_a_problem_names_a_path_that_is_no_text() -> None:
    body = Problem("not-found", "/photos/\udcff.jpg").body()
    assert json.loads(body)["detail"] == "/photos/\udcff.jpg"
    assert body.isascii()


def test_codes_are_words_and_statuses_are_errors() -> None:
    for code, (status, title) in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert 400 <= HTTPStatus(status) < 600
        assert title
    assert SCHEMA["properties"]["code"]["enum"] == list(CODES)


def test_responses_of_one_status_share_an_entry_with_an_example_each() -> None:
    responses = problem_responses("bad-where", "bad-cursor", "busy")
    assert set(responses) == {422, 503}
    examples = responses[422]["content"][MEDIA_TYPE]["examples"]
    assert set(examples) == {"bad-where", "bad-cursor"}
    assert examples["bad-where"]["value"]["status"] == 422
    assert "Retry-After" in responses[503]["headers"]
