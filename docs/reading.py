"""What the code says of itself: its docstrings in their parts, members, annotations, aliases."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

PACKAGE = "searchlib"
ERRORS = f"{PACKAGE}.errors"

_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
_ITEM = re.compile(r"([*\w]+(?:\.\w+)*(?:, [*\w]+(?:\.\w+)*)*): +(\S.*)")
_WORD = re.compile(r"(?<![\w.\"'])[A-Za-z]\w*")


@dataclasses.dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring in its parts.

    Attributes:
        text: all before the first section, as Markdown.
        items: of a section: names and their words, as Markdown.
        prose: of a section without names.
    """

    text: str
    items: dict[str, list[tuple[str, str]]]
    prose: dict[str, str]

    @property
    def first(self) -> str:
        """The first sentence, on one line."""
        paragraph = " ".join(self.text.partition("\n\n")[0].split())
        return re.split(r"(?<=[.;])\s", paragraph, maxsplit=1)[0].rstrip(".;:")


def read_docstring(docstring: str) -> Docstring:
    """Its sections, which begin with a line such as `Args:`; other text may follow them."""
    parts: dict[str, list[str]] = {"": []}
    title = ""
    for line in inspect.cleandoc(docstring).splitlines():
        heading = _SECTION.fullmatch(line)
        if heading:
            title = heading[1]
        elif title and line and not line.startswith(" "):
            title = ""
            parts[title].append("")
        if not heading:
            parts.setdefault(title, []).append(line)
    items: dict[str, list[tuple[str, str]]] = {}
    prose: dict[str, str] = {}
    for title, lines in parts.items():
        body = textwrap.dedent("\n".join(lines)).strip("\n")
        if title in ("Returns", "Yields"):
            prose[title] = markdown(body)
        elif title:
            items[title] = list(_items(body))
    return Docstring(markdown("\n".join(parts[""])), items, prose)


def _items(body: str) -> Iterator[tuple[str, str]]:
    name, words = "", ""
    for line in body.splitlines():
        begin = _ITEM.fullmatch(line)
        if begin:
            if name:
                yield name, escape(words)
            name, words = begin[1], begin[2]
        else:
            words = f"{words} {line.strip()}".strip()
    if name:
        yield name, escape(words)


def markdown(text: str) -> str:
    """Paragraphs as they are, indented blocks as code."""
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    out: list[str] = []
    code: list[str] = []

    def end_code() -> None:
        if code:
            body = textwrap.dedent("\n\n".join(code))
            out.append(f"```{'text' if '─' in body else 'python'}\n{body}\n```")
            code.clear()

    for block in blocks:
        if block.startswith("    "):
            code.append(block)
        elif block:
            end_code()
            out.append(escape(block))
    end_code()
    return "\n\n".join(out)


def escape(text: str) -> str:
    """Keeps what stands outside of backticks from being taken for Markdown or HTML."""
    parts = re.split(r"(``?[^`]+``?)", text)
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"(\*|__)", r"\\\1", parts[at]).replace("<", "&lt;")
    return "".join(parts)


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))


def home_of(module: str, name: str) -> str | None:
    """The module of the package that defines what a name of a module means; None for others."""
    if not module.startswith(PACKAGE):
        return None
    bodies = [_tree(module).body]
    bodies += [node.body for node in bodies[0] if isinstance(node, ast.If)]
    for node in (node for body in bodies for node in body):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return home_of(node.module, alias.name)
        elif _defines(node, name):
            return module
    return None


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.ClassDef):
        return node.name == name
    target: ast.expr | None = node.target if isinstance(node, ast.AnnAssign) else None
    if isinstance(node, ast.Assign):
        target = node.targets[0]
    return isinstance(target, ast.Name) and target.id == name


@dataclasses.dataclass(frozen=True, slots=True)
class Alias:
    """A name that stands for a type, and the words below it."""

    name: str
    module: str
    meaning: str
    docstring: str


def read_alias(module: str, name: str) -> Alias:
    """An assignment of a module, with the text that follows it."""
    body = _tree(module).body
    at = next(at for at, node in enumerate(body) if _defines(node, name))
    node = body[at]
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    assert node.value is not None
    meaning = _text_of(node.value) or ast.unparse(node.value)
    after = body[at + 1] if at + 1 < len(body) else None
    words = _text_of(after.value) if isinstance(after, ast.Expr) else None
    return Alias(name, module, meaning, words or "")


def _text_of(node: ast.expr) -> str | None:
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return str(ast.literal_eval(node)) if text else None


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A public method or property of a class.

    Attributes:
        name: of it.
        of: the class that defines it.
        function: what is called.
        kind: "method", "classmethod", "staticmethod" or "property".
    """

    name: str
    of: type
    function: Callable[..., Any]
    kind: str


def members(cls: type) -> list[Member]:
    """Its own, then those of the classes of the package that it is made from, as they stand."""
    found: dict[str, Member] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith(PACKAGE):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or name in found:
                continue
            if isinstance(value, property) and value.fget is not None:
                found[name] = Member(name, base, value.fget, "property")
            elif isinstance(value, functools.cached_property):
                found[name] = Member(name, base, value.func, "property")
            elif isinstance(value, classmethod | staticmethod):
                found[name] = Member(name, base, value.__func__, type(value).__name__)
            elif inspect.isfunction(value):
                found[name] = Member(name, base, value, "method")
    return list(found.values())


def given_types(thing: Any) -> Iterator[tuple[str, str]]:
    """The module and the text of each annotation that a reader of the reference sees."""
    if isinstance(thing, Alias):
        yield thing.module, thing.meaning
    elif inspect.isclass(thing):
        if dataclasses.is_dataclass(thing):
            yield from ((thing.__module__, str(field.type)) for field in dataclasses.fields(thing))
        elif is_made_by_callers(thing):
            yield from given_types(thing.__init__)
        for member in members(thing):
            yield from given_types(member.function)
    else:
        signature = inspect.signature(thing)
        given = [parameter.annotation for parameter in signature.parameters.values()]
        for annotation in [*given, signature.return_annotation]:
            yield thing.__module__, annotation if isinstance(annotation, str) else ""


def others(named: Mapping[str, Any]) -> dict[str, Any]:
    """The types of the package that what is named takes and gives, and that they are made of,
    by their names; where two have the same one, the second by its module as well.
    """
    seen = {(thing.__module__, name) for name, thing in named.items() if inspect.isclass(thing)}
    found: dict[str, Any] = {}
    waiting = list(named.values())
    while waiting:
        for module, annotation in given_types(waiting.pop()):
            for name in _WORD.findall(annotation):
                home = home_of(module, name)
                if home is None or home == ERRORS or (home, name) in seen:
                    continue
                seen.add((home, name))
                title = f"{name} of {home}" if name in found or name in named else name
                value = getattr(import_module(home), name)
                found[title] = value if inspect.isclass(value) else read_alias(home, name)
                waiting.append(found[title])
    return dict(sorted(found.items()))


def importable(module: str, name: str) -> str:
    """The shortest module that gives a name away."""
    parts = module.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if name in getattr(import_module(package), "__all__", ()):
            return package
    return module


def is_made_by_callers(cls: type) -> bool:
    """Whether its docstring says what it is made from."""
    made = "Args" in read_docstring(cls.__doc__ or "").items
    return made and not dataclasses.is_dataclass(cls)
