"""The OpenAPI document against the server: what it promises is true of every answer.

Requests are made up from the document, such as it allows and such as it does not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    SimpleCheckConfig,
)
from schemathesis.config._checks import NegativeDataRejectionConfig

from searchlib.server.problems import CODES

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
EXAMPLES = 200 if FULL else 12

# What a request that the schema allows may meet all the same: conditions, cursors and pictures
# that mean nothing, and a range of a file that is too short for it. A break of the schema is 400.
ACCEPTED = ("2xx", "3xx", "404", "409", "413", "416", "422", "431")
REFUSED = ("400", "404", "405", "409", "413", "415", "422", "431")


@pytest.fixture
def schema(url: str) -> Any:
    config = SchemathesisConfig(
        seed=1,
        max_time=600 if FULL else 30,
        projects=ProjectsConfig(
            default=ProjectConfig(
                checks=ChecksConfig(
                    positive_data_acceptance=PositiveDataAcceptanceConfig(
                        expected_statuses=ACCEPTED
                    ),
                    negative_data_rejection=NegativeDataRejectionConfig(expected_statuses=REFUSED),
                    # What was deleted and comes again is the same image, with the same id.
                    use_after_free=SimpleCheckConfig(enabled=False),
                ),
                generation=GenerationConfig(max_examples=EXAMPLES),
                request_timeout=30,
            )
        ),
    )
    document = httpx2.get(f"{url}/openapi.json").json()
    # It never ends.
    del document["paths"]["/v1/events"]
    found = schemathesis.openapi.from_dict(document, config=config)
    found.config.base_url = url
    return found


def test_every_answer_is_one_that_the_document_promises(schema: Any) -> None:
    from schemathesis.engine import events, from_schema

    failures: dict[str, str] = {}
    done = 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            for id, checks in event.recorder.checks.items():
                done += len(checks)
                for check in checks:
                    if check.failure_info is not None:
                        failure = check.failure_info.failure
                        case = event.recorder.cases[id].value
                        answer = event.recorder.interactions[id].response
                        failures.setdefault(
                            f"{event.recorder.label} {check.name} {failure.title}",
                            f"{failure.message}\n{case.as_curl_command()[:600]}\n"
                            f"{answer and (answer.status_code, answer.content[:300])}",
                        )
        elif isinstance(event, (events.NonFatalError, events.FatalError)):
            failures[str(event)] = str(getattr(event, "info", None) or event.exception)
    assert not failures, "\n\n".join(f"{at}:\n{why}" for at, why in failures.items())
    assert done > 100


def test_the_guide_lists_every_code_with_its_status() -> None:
    guide = Path(__file__).parents[2] / "docs" / "http.md"
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", guide.read_text("utf-8"), re.MULTILINE)
    assert {code: int(status) for code, status in rows} == {
        code: status for code, (status, _) in CODES.items()
    }


def test_every_answer_of_every_route_is_described(url: str) -> None:
    document = httpx2.get(f"{url}/openapi.json").json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], where
                    assert answer["content"]["application/problem+json"]["examples"], where
