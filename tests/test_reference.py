"""The references are what the code says, and hold all of it."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import searchlib
from docs import generate
from docs.http_reference import render
from docs.python_reference import python_reference
from docs.reading import home_of, importable, members, others, read_alias, read_docstring
from searchlib import Library

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def reference() -> str:
    return python_reference()


def headings(page: str) -> list[str]:
    outside = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.*)$", outside, flags=re.MULTILINE)


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    if name == "http-reference.md":
        pytest.importorskip("fastapi")
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page == generate.PAGES[name](), "run python docs/generate.py"


def test_every_public_name_is_described(reference: str) -> None:
    named = headings(reference)
    assert {*searchlib.__all__} - {"errors"} <= {*named}
    errors = [name for name, error in vars(searchlib.errors).items() if inspect.isclass(error)]
    assert {name for name in errors if name.endswith("Error")} <= {*named}


def test_every_method_of_a_library_is_described_wherever_it_is_defined(reference: str) -> None:
    public = {
        f"Library.{name}"
        for name in dir(Library)
        if not name.startswith("_") and callable(getattr(Library, name))
    }
    assert len(public) > 20
    assert public <= {*headings(reference)}


def test_no_two_headings_of_a_page_are_the_same(reference: str) -> None:
    named = [heading.lower() for heading in headings(reference)]
    assert len(named) == len({*named})


def test_every_link_of_the_python_reference_leads_to_a_heading(reference: str) -> None:
    links = {*re.findall(r"\]\(#([^)]*)\)", reference)}
    assert links
    assert links <= {
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings(reference)
    }


def test_every_public_method_and_function_says_what_it_does() -> None:
    for name in searchlib.__all__:
        thing = getattr(searchlib, name)
        assert inspect.getdoc(thing), name
        for member in members(thing) if inspect.isclass(thing) else ():
            assert inspect.getdoc(member.function), f"{name}.{member.name}"


def test_a_docstring_is_taken_apart() -> None:
    doc = read_docstring(
        """First sentence; and more.

            with code:
                below()

            more

        A *starred* word of `a*b`.

        Args:
            one, two: both
                on two lines.
            *three: a condition: with a colon,
            and a line that begins nothing.

        Returns:
            float32 [n].

        Raises:
            InputError, WebError: why.
        Words after all.
        """
    )
    assert doc.first == "First sentence"
    assert doc.text == textwrap.dedent(
        r"""
        First sentence; and more.

        ```python
        with code:
            below()

        more
        ```

        A \*starred\* word of `a*b`.

        Words after all.
        """
    ).strip("\n")
    assert doc.items["Args"] == [
        ("one, two", "both on two lines."),
        ("*three", "a condition: with a colon, and a line that begins nothing."),
    ]
    assert doc.prose == {"Returns": "float32 [n]."}
    assert doc.items["Raises"] == [("InputError, WebError", "why.")]


def test_a_name_is_traced_to_the_module_that_defines_it() -> None:
    assert home_of("searchlib", "Library") == "searchlib.library"
    assert home_of("searchlib.library", "ExportReport") == "searchlib.exchange.report"
    assert home_of("searchlib.library", "Path") is None
    assert importable("searchlib.catalog.records", "Facts") == "searchlib.catalog"
    alias = read_alias("searchlib.images.source", "Source")
    assert alias.meaning.startswith("str | ")
    assert alias.docstring.startswith("A path, a URL")


def test_a_type_whose_name_is_taken_is_told_from_the_other() -> None:
    found = others({"ImageRecord": searchlib.ImageRecord, "Facts": searchlib.Status})
    assert found["Facts of searchlib.catalog.records"].__name__ == "Facts"


def test_the_check_writes_nothing_and_fails_where_a_page_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "PAGES", {"a.md": lambda: "one\n"})
    assert generate.main(["--check"], folder=tmp_path) == 1
    assert "python docs/generate.py" in capsys.readouterr().err
    assert not (tmp_path / "a.md").exists()
    assert generate.main([], folder=tmp_path) == 0
    assert generate.main(["--check"], folder=tmp_path) == 0
    (tmp_path / "a.md").write_text("two\n", encoding="utf-8")
    assert generate.main(["--check"], folder=tmp_path) == 1
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "two\n"


def problem(code: str) -> dict[str, Any]:
    example = {"summary": f"means {code}", "value": {"code": code}}
    return {"content": {"application/problem+json": {"examples": {code: example}}}}


def test_operations_are_described_with_all_that_they_take_and_give() -> None:
    dog = {
        "title": "Dog",
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "maxLength": 9, "description": "what it\nhears"},
            "friends": {"type": "array", "items": {"$ref": "#/components/schemas/Cat"}},
        },
        "examples": [{"name": "Rex"}],
    }
    page = render(
        {
            "security": [{"token": []}],
            "components": {
                "schemas": {
                    "Cat": {"type": "object", "properties": {"lives": {"type": "integer"}}}
                },
                "parameters": {"n": {"name": "n", "in": "path", "required": True, "example": 7}},
            },
            "paths": {
                "/dogs/{n}": {
                    "parameters": [{"$ref": "#/components/parameters/n"}],
                    "put": {
                        "summary": "Call a dog",
                        "parameters": [
                            {
                                "name": "loud",
                                "in": "query",
                                "schema": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                                "description": "or not",
                            }
                        ],
                        "requestBody": {
                            "required": True,
                            "content": {"application/json": {"schema": dog}},
                        },
                        "responses": {
                            "200": {
                                "description": "Successful Response",
                                "content": {"image/webp": {}},
                                "headers": {"ETag": {"description": "Of it."}},
                            },
                            "404": problem("not-found"),
                            "500": problem("internal"),
                        },
                    },
                },
                "/health": {
                    "get": {
                        "security": [],
                        "responses": {"204": {"description": ""}, "500": problem("internal")},
                    }
                },
            },
        }
    )
    assert headings(page) == [
        "HTTP reference",
        "PUT /dogs/{n}",
        "GET /health",
        "Refusals",
        "Schemas",
        "Cat",
        "Dog",
    ]
    lines = page.splitlines()
    for line in (
        "Call a dog",
        "- `n` (path, anything, required) For instance `7`.",
        "- `loud` (query, boolean or null): or not",
        "`application/json`: [Dog](#dog)",
        "- **200** `image/webp`; header `ETag`: Of it",
        "- **404** `not-found`",
        "- **204** no content",
        "It needs no token.",
        "- **500** `internal`: means internal",
        "- **404** `not-found`: means not-found",
        "- `name` (string, at most 9 characters, required): what it hears",
        "- `friends` (list of [Cat](#cat))",
        "- `lives` (integer)",
    ):
        assert line in lines, line
    assert '"name": "Rex"' in page
    # What any request may get is said once.
    assert page.count("`internal`") == 1
