"""The Python reference: what the package names, and the types that this takes and gives."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from docs.pages import MADE, anchor, cell, code, link
from docs.reading import (
    ERRORS,
    PACKAGE,
    Alias,
    Docstring,
    Member,
    importable,
    is_made_by_callers,
    members,
    others,
    read_docstring,
)

LINE = 96
MANY = 3
"""A class with more members has a table of them."""

_EMPTY: dict[Any, str] = {list: "[]", dict: "{}"}


def python_reference() -> str:
    """docs/reference.md."""
    package = import_module(PACKAGE)
    named = {name: getattr(package, name) for name in package.__all__ if name != "errors"}
    functions = {name: thing for name, thing in named.items() if inspect.isfunction(thing)}
    classes = {
        name: thing
        for name, thing in named.items()
        if inspect.isclass(thing) and not issubclass(thing, BaseException)
    }
    objects = {n: c for n, c in classes.items() if not dataclasses.is_dataclass(c)}
    objects = dict(sorted(objects.items(), key=lambda item: item[0] != "Library"))
    records = {n: c for n, c in classes.items() if dataclasses.is_dataclass(c)}
    chapters: dict[str, dict[str, Any]] = {
        "Functions": functions,
        "Classes": objects,
        "Records": records,
        "Other types": others({**functions, **classes}),
    }
    out = ["# Python reference", MADE, read_docstring(package.__doc__ or "").text, "## Contents"]
    for title, things in chapters.items():
        links = ", ".join(link(name) for name in things)
        out.append(f"**[{title}](#{anchor(title)})**: {links}")
    out.append(f"**[Errors](#errors)**: all are of `{PACKAGE}.errors`")
    lead = {
        "Records": "What the functions and methods give. They are frozen where nothing else is "
        "said; the fields stand in their order.",
        "Other types": "What the signatures above name and the package itself does not; each says "
        "where it is imported from.",
    }
    for title, things in chapters.items():
        out += [f"## {title}", *([lead[title]] if title in lead else [])]
        for name, thing in things.items():
            out += describe(name, thing)
    return "\n\n".join([*out, *_error_reference()]) + "\n"


def describe(title: str, thing: Any) -> list[str]:
    """The blocks of Markdown for a function, a class or an alias."""
    out = [f"### {title}"]
    name = thing.name if isinstance(thing, Alias) else thing.__name__
    if not isinstance(thing, Alias) and inspect.isfunction(thing):
        return [*out, *_callable(thing, name)]
    module = importable(thing.module if isinstance(thing, Alias) else thing.__module__, name)
    if module != PACKAGE:
        out.append(f"`from {module} import {name}`")
    if isinstance(thing, Alias):
        meaning = _typed(thing.meaning)
        if len(meaning) > LINE:
            parts = meaning.split(" | ")
            meaning = "(\n    " + "\n    | ".join(parts) + "\n)"
        out += [code(f"{name} = {meaning}"), read_docstring(thing.docstring).text]
        return [block for block in out if block]
    doc = read_docstring(inspect.getdoc(thing) or "")
    if dataclasses.is_dataclass(thing) and thing.__hash__ is None:
        out.append("Its fields can be set.")
    if is_made_by_callers(thing):
        out.append(code(signature(thing.__init__, name, bound=True).removesuffix(" -> None")))
    kinds = [_shown(base) for base in getattr(thing, "__orig_bases__", ()) if _is_outside(base)]
    if kinds:
        out.append(code(f"class {name}({', '.join(kinds)})"))
    out += [doc.text, *_items_of(doc, "Args"), *_items_of(doc, "Raises"), *_fields(thing, doc)]
    found = members(thing)
    if len(found) > MANY:
        out += _overview(name, thing, found)
    for member in found:
        out += [f"#### {name}.{member.name}", *_member(member, name)]
    return [block for block in out if block]


def _overview(name: str, cls: type, found: list[Member]) -> list[str]:
    """A table for each class that gives some of the members."""
    groups: dict[type, list[Member]] = {}
    for member in found:
        groups.setdefault(member.of, []).append(member)
    out = []
    for base, of_base in groups.items():
        if base is not cls:
            out.append(f"{read_docstring(base.__doc__ or '').first}:")
        rows = [
            f"| {link(f'{name}.{each.name}', each.name)} | {cell(_doc_of(each).first)} |"
            for each in of_base
        ]
        out.append("\n".join(["| | |", "| --- | --- |", *rows]))
    return out


def _is_outside(base: Any) -> bool:
    module = getattr(base, "__origin__", base).__module__
    return not module.startswith((PACKAGE, "typing", "builtins", "abc"))


def _shown(base: Any) -> str:
    """A base class without the modules that its names come from."""
    return re.sub(r"(?:[a-z_]\w*\.)+(?=[A-Z])", "", str(base))


def _doc_of(member: Member) -> Docstring:
    return read_docstring(inspect.getdoc(member.function) or "")


def _member(member: Member, owner: str) -> list[str]:
    name = f"{owner}.{member.name}"
    if member.kind == "property":
        given = inspect.signature(member.function).return_annotation
        doc = _doc_of(member)
        return [code(f"{name}: {_typed(given)}"), doc.text, *_items_of(doc, "Raises")]
    return _callable(member.function, name, bound=member.kind != "staticmethod", kind=member.kind)


def _callable(
    function: Callable[..., Any], name: str, *, bound: bool = False, kind: str = "method"
) -> list[str]:
    doc = read_docstring(inspect.getdoc(function) or "")
    decorator = "" if kind == "method" else f"@{kind}\n"
    out = [code(decorator + signature(function, name, bound=bound)), doc.text]
    out += _items_of(doc, "Args")
    out += [f"**{title}** {text}" for title, text in doc.prose.items()]
    return [*out, *_items_of(doc, "Raises")]


def signature(function: Callable[..., Any], name: str, *, bound: bool = False) -> str:
    """How it is called, on one line where that is short."""
    whole = inspect.signature(function)
    parameters = list(whole.parameters.values())[1 if bound else 0 :]
    words: list[str] = []
    star = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            words.append("*")
        word = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        typed = parameter.annotation is not parameter.empty
        word += f": {_typed(parameter.annotation)}" if typed else ""
        if parameter.default is not parameter.empty:
            word += f" = {value(parameter.default)}" if typed else f"={value(parameter.default)}"
        words.append(word)
    given = (
        "" if whole.return_annotation is whole.empty else f" -> {_typed(whole.return_annotation)}"
    )
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    short = f"{prefix}{name}({', '.join(words)}){given}"
    if len(short) <= LINE:
        return short
    lines = "".join(f"    {word},\n" for word in words)
    return f"{prefix}{name}(\n{lines}){given}"


def _typed(annotation: object) -> str:
    """An annotation with its texts quoted as in the code."""
    return str(annotation).replace("'", '"')


def value(default: Any) -> str:
    """A default as it would be written, the same on every machine."""
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        fields = [
            f"{field.name}={value(getattr(default, field.name))}"
            for field in dataclasses.fields(default)
            if field.default != getattr(default, field.name)
        ]
        return f"{type(default).__name__}({', '.join(fields)})"
    if isinstance(default, int) and not isinstance(default, bool) and abs(default) >= 10_000:
        return f"{default:_}"
    if isinstance(default, str):
        return json.dumps(default, ensure_ascii=False)
    if default is None or isinstance(default, int | float | bytes | tuple | frozenset):
        return repr(default)
    return "..."


def _fields(cls: type, doc: Docstring) -> list[str]:
    words = {
        name: text for names, text in doc.items.get("Attributes", []) for name in names.split(", ")
    }
    lines = []
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.name.startswith("_"):
                continue
            given = ""
            if field.default is not dataclasses.MISSING:
                given = f" = {value(field.default)}"
            elif field.default_factory is not dataclasses.MISSING:
                # Others may give something else each time.
                given = f" = {_EMPTY.get(field.default_factory, '...')}"
            name = f"{field.name}: {_typed(field.type)}{given}"
            lines.append(_item(name, words.pop(field.name, "")))
    lines += [_item(name, text) for name, text in words.items()]
    return ["\n".join(lines)]


def _items_of(doc: Docstring, title: str) -> list[str]:
    listed = doc.items.get(title, [])
    if not listed:
        return []
    lines = [
        f"- {', '.join(f'`{name}`' for name in names.split(', '))}: {text}"
        for names, text in listed
    ]
    return [f"**{title}**", "\n".join(lines)]


def _item(name: str, text: str) -> str:
    return f"- `{name}`" + (f": {text}" if text else "")


def _error_reference() -> list[str]:
    errors = import_module(ERRORS)
    out = ["## Errors", read_docstring(errors.__doc__ or "").text]
    for name, error in vars(errors).items():
        if inspect.isclass(error) and error.__module__ == ERRORS and not name.startswith("_"):
            doc = read_docstring(error.__doc__ or "")
            parents = ", ".join(base.__name__ for base in error.__bases__)
            out += [f"### {name}", code(f"class {name}({parents})"), doc.text]
            out += _fields(error, doc)
            for member in members(error):
                if member.of is error:
                    out += _member(member, name)
    return [block for block in out if block]
