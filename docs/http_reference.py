"""The HTTP reference: the server's OpenAPI document, for people to read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Set
from typing import Any

from docs.pages import MADE, anchor

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
LONGEST_EXAMPLE = 2_000
PROBLEM = "application/problem+json"
PROBLEM_FIELDS = "`code` tells a program why, `detail` a person (RFC 9457)."

_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "like `{}`",
}

Json = Mapping[str, Any]


def http_reference() -> str:
    """docs/http-reference.md."""
    return render(open_api())


def open_api() -> Json:
    """The OpenAPI document of a server that wants a token."""
    import searchlib
    from searchlib.server.app import create_app
    from searchlib.server.settings import ServerSettings

    with (
        tempfile.TemporaryDirectory() as folder,
        searchlib.open_library(folder, background=False) as library,
    ):
        document: Json = create_app(library, ServerSettings(token="0" * 32)).openapi()
    return document


def render(document: Json) -> str:
    """An OpenAPI 3.1 document as Markdown."""
    operations = [
        (f"{method.upper()} {path}", operation, item)
        for path, item in document.get("paths", {}).items()
        for method, operation in item.items()
        if method in METHODS
    ]
    info = document.get("info", {})
    out = ["# HTTP reference", MADE, info.get("summary", ""), info.get("description", "").strip()]
    if document.get("security"):
        out.append("A server with a token wants `Authorization: Bearer TOKEN` with each request.")
    out.append("The same as a machine reads it is at `/openapi.json` of a running server.")
    rows = [
        f"| [`{title}`](#{anchor(title)}) | {operation.get('summary', '')} |"
        for title, operation, _ in operations
    ]
    out.append("\n".join(["| | |", "| --- | --- |", *rows]))
    refusals = [_refusals(operation, document) for _, operation, _ in operations]
    common = set.intersection(*(set(each) for each in refusals)) if refusals else set()
    for title, operation, item in operations:
        out += [f"## {title}", *_operation(operation, item, document, common)]
    words = {refusal: text for each in refusals for refusal, text in each.items()}
    if words:
        out += ["## Refusals", f"They are `{PROBLEM}`: {PROBLEM_FIELDS}"]
        for title, chosen in (
            ("Any request may get", sorted(common)),
            ("Where an operation names it", sorted(words.keys() - common)),
        ):
            lines = [f"- **{status}** `{code}`: {words[status, code]}" for status, code in chosen]
            out += [f"{title}:", "\n".join(lines)] if lines else []
    schemas = _schemas(document)
    if schemas:
        out.append("## Schemas")
        for name in sorted(schemas):
            out += [f"### {name}", *_schema(schemas[name])]
    return "\n\n".join(block for block in out if block) + "\n"


def _schemas(document: Json) -> dict[str, Json]:
    """Those that have a name, also where they are written out in place."""
    found: dict[str, Json] = dict(document.get("components", {}).get("schemas", {}))

    def look(part: Any) -> None:
        if isinstance(part, Mapping):
            if _has_name(part):
                found.setdefault(part["title"], part)
            for each in part.values():
                look(each)
        elif isinstance(part, list):
            for each in part:
                look(each)

    look(document.get("paths", {}))
    return found


def _has_name(schema: Json) -> bool:
    return isinstance(schema.get("title"), str) and isinstance(schema.get("properties"), Mapping)


def _refusals(operation: Json, document: Json) -> dict[tuple[str, str], str]:
    """Status and code of the problems that it may answer with, and what they mean."""
    found = {}
    for status, answer in operation.get("responses", {}).items():
        media = _resolved(answer, document).get("content", {}).get(PROBLEM, {})
        for code, example in media.get("examples", {}).items():
            found[status, code] = example.get("summary", "")
    return found


def _operation(
    operation: Json, item: Json, document: Json, common: Set[tuple[str, str]]
) -> Iterator[str]:
    words = [operation.get("summary", ""), operation.get("description", "")]
    yield from (text.strip() for text in words if text)
    if operation.get("security") == []:
        yield "It needs no token."
    parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
    if parameters:
        yield "**Parameters**"
        yield "\n".join(_parameter(_resolved(each, document)) for each in parameters)
    body = _resolved(operation.get("requestBody", {}), document)
    if body:
        yield "**Request body**" + ("" if body.get("required") else ", which may be left out")
        yield body.get("description", "")
        for kind, media in body.get("content", {}).items():
            yield from _media(kind, media)
    refused = _refusals(operation, document)
    lines = []
    examples: list[str] = []
    for status, answer in sorted(operation.get("responses", {}).items()):
        answer = _resolved(answer, document)
        codes = [code for at, code in refused if at == status]
        named = [f"`{code}`" for code in codes if (status, code) not in common]
        if codes and not named:
            continue
        lines.append(_answer(status, answer, named, document))
        if not codes:
            for media in answer.get("content", {}).values():
                examples += _examples(media)
    yield "**Answers**"
    yield "\n".join(lines)
    yield from examples


def _answer(status: str, answer: Json, codes: list[str], document: Json) -> str:
    kinds = [
        f"`{kind}`" + (f" {type_of(media['schema'])}" if media.get("schema") else "")
        for kind, media in answer.get("content", {}).items()
    ]
    description = _line(answer.get("description", ""))
    # What FastAPI says where nothing is said.
    said = [] if description == "Successful Response" else [description.rstrip(".")]
    content = [*said, "; ".join(kinds)] if kinds else said
    text = f"- **{status}** {', '.join(codes) or ': '.join(content) or 'no content'}"
    for name, header in answer.get("headers", {}).items():
        words = _line(_resolved(header, document).get("description", "")).rstrip(".")
        text += f"; header `{name}`" + (f": {words}" if words else "")
    return text


def _parameter(parameter: Json) -> str:
    schema = parameter.get("schema", {})
    facts = [parameter["in"], type_of(schema), *_limits(schema)]
    if parameter.get("required"):
        facts.append("required")
    text = parameter.get("description") or schema.get("description", "")
    example = parameter.get("example", next(iter(schema.get("examples", [])), None))
    if "example" not in parameter and parameter.get("examples"):
        example = next(iter(parameter["examples"].values())).get("value")
    shown = "" if example is None else f" For instance `{_json(example)}`."
    return (
        f"- `{parameter['name']}` ({', '.join(facts)})"
        + (f": {_line(text)}" if text else "")
        + (shown)
    )


def _media(kind: str, media: Json) -> Iterator[str]:
    schema = media.get("schema", {})
    yield f"`{kind}`" + (f": {type_of(schema)}" if schema else "")
    if schema.get("properties") and not _has_name(schema):
        yield _properties(schema)
    yield from _examples(media)


def _schema(schema: Json) -> Iterator[str]:
    yield schema.get("description", "").strip()
    if schema.get("properties"):
        yield _properties(schema)
    elif "$ref" not in schema:
        yield ", ".join([type_of(schema), *_limits(schema)])
    yield from _examples({"schema": schema})


def _properties(schema: Json) -> str:
    required = schema.get("required", [])
    lines = []
    for name, each in schema["properties"].items():
        facts = [type_of(each), *_limits(each), *(["required"] if name in required else [])]
        text = each.get("description", "")
        lines.append(f"- `{name}` ({', '.join(facts)})" + (f": {_line(text)}" if text else ""))
    return "\n".join(lines)


def _examples(media: Json) -> Iterator[str]:
    """Those of a media type, else the first of its schema."""
    named = [
        (each.get("summary") or name, each["value"])
        for name, each in media.get("examples", {}).items()
        if "value" in each
    ]
    if "example" in media:
        named.append(("", media["example"]))
    own = media.get("schema", {})
    if not named:
        named += [("", each) for each in [*own.get("examples", []), own.get("example")][:1] if each]
    for title, example in named:
        whole = example if isinstance(example, str) else _json(example, indent=2)
        if len(whole) > LONGEST_EXAMPLE:
            whole = _json(example)[:LONGEST_EXAMPLE] + " ..."
        language = "text" if isinstance(example, str) else "json"
        yield (f"{title}:\n\n" if title else "") + f"```{language}\n{whole}\n```"


def type_of(schema: Json) -> str:
    """The type of a schema in words; a named one as a link to it."""
    if _has_name(schema):
        return f"[{schema['title']}](#{anchor(schema['title'])})"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{anchor(name)})"
    for key, joint in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if key in schema:
            parts = [
                " ".join([type_of(part), *(f"({limit})" for limit in _limits(part))])
                for part in schema[key]
            ]
            return joint.join(dict.fromkeys(parts))
    if "const" in schema:
        return f"`{_json(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{_json(each)}`" for each in schema["enum"])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {type_of(schema['items'])}" if schema.get("items") else "list"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {type_of(schema['additionalProperties'])}"
    detail = schema.get("format") or schema.get("contentMediaType")
    return f"{kind} ({detail})" if detail else str(kind)


def _limits(schema: Json) -> list[str]:
    found = [words.format(schema[key]) for key, words in _LIMITS.items() if key in schema]
    if schema.get("default") is not None:
        found.append(f"default `{_json(schema['default'])}`")
    return found


def _resolved(part: Json, document: Json) -> Json:
    while "$ref" in part:
        found: Any = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step.replace("~1", "/").replace("~0", "~")]
        part = found
    return part


def _line(text: str) -> str:
    return " ".join(text.split())


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)
