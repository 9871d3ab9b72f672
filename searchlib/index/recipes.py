"""Recipes: how an index is built, as data.

A recipe is a TOML file in `indexes/`, named after itself:

    name     what it is called
    factory  how vectors are searched, in the words of FAISS's index factory; "SQfp16" compares a
             query with every vector, anything else proposes candidates that are ranked again with
             the stored vectors. `{lists}` stands for a number of lists that fits the library.
    metric   what a score is
    use      when to choose it, in one sentence
    build    for all but SQfp16: what building takes
        lists       lists for each square root of a vector, for factories with `{lists}`
        training    vectors that it is trained on, for each list
        iterations  of the training
        least       fewer vectors than this are not worth it, and are searched one by one
    search   for all but SQfp16: what a search looks at until `tune` measured what it takes
        probes      lists (inverted) or candidates (graph) that are looked at
        factor      candidates that are ranked again, for each neighbour asked for
    measured what it was measured to do; a table for people, which no code reads
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from searchlib.errors import InputError

EXACT = "SQfp16"
"""The factory that compares a query with every vector."""

METRICS = ("inner_product",)

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (_PACKAGE / "indexes", _PACKAGE.parent / "indexes")
"""Where recipes lie: in the installed package, or beside it in a checkout."""

_TEXTS = {"name", "factory", "metric", "use"}
_BUILD = {"lists": float, "training": int, "iterations": int, "least": int}
_SEARCH = {"probes": int, "factor": int}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an index is built; the module's docstring says what the fields mean."""

    name: str
    factory: str
    metric: str
    use: str
    lists: float = 0.0
    training: int = 0
    iterations: int = 0
    least: int = 0
    probes: int = 0
    factor: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether a query is compared with every vector."""
        return self.factory == EXACT

    @property
    def fingerprint(self) -> bytes:
        """32 bytes, equal where two recipes build the same index: BLAKE3 of what building takes."""
        text = f"{self.factory}\n{self.metric}\n"
        if not self.is_exact:
            text += f"{self.lists}\n{self.training}\n{self.iterations}\n"
        return blake3(text.encode()).digest()

    def lists_for(self, vectors: int) -> int:
        """How many lists an index of so many vectors has, at least 1."""
        return max(1, round(self.lists * math.sqrt(vectors)))

    def factory_for(self, vectors: int) -> str:
        """The factory string for an index of so many vectors."""
        return self.factory.replace("{lists}", str(self.lists_for(vectors)))


def recipe_names() -> list[str]:
    """The names of all recipes, in alphabetical order."""
    return sorted(_files())


def load_recipe(name: str) -> Recipe:
    """Reads the recipe of this name.

    Raises:
        InputError: there is none of this name, or its file is not a recipe.
    """
    files = _files()
    if name not in files:
        known = ", ".join(sorted(files)) or "none; install searchlib again"
        raise InputError(f"there is no index recipe {name!r}; known are: {known}")
    recipe = read_recipe(files[name])
    if recipe.name != name:
        raise InputError(
            f"{files[name]}: the recipe calls itself {recipe.name!r}; name it as its file"
        )
    return recipe


def read_recipe(file: Path) -> Recipe:
    """Reads a recipe from a file, wherever it lies.

    Raises:
        InputError: it is not a recipe.
    """
    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: the recipe cannot be read ({error}); correct it") from error
    fields.pop("measured", None)
    build, search = fields.pop("build", {}), fields.pop("search", {})
    if set(fields) != _TEXTS or not all(isinstance(value, str) for value in fields.values()):
        raise InputError(
            f"{file}: a recipe has the texts name, factory, metric and use; correct it"
        )
    if fields["metric"] not in METRICS:
        raise InputError(
            f"{file}: metric {fields['metric']!r} is not known; use {' or '.join(METRICS)}"
        )
    if fields["factory"] == EXACT:
        if build or search:
            raise InputError(f"{file}: factory {EXACT} takes neither build nor search; remove them")
        return Recipe(**fields)
    numbers = _numbers(file, "build", build, _BUILD) | _numbers(file, "search", search, _SEARCH)
    return Recipe(**fields, **numbers)


def _numbers(file: Path, table: str, given: object, wanted: Mapping[str, type]) -> dict[str, Any]:
    if not isinstance(given, dict) or set(given) != set(wanted):
        raise InputError(f"{file}: [{table}] has the numbers {', '.join(wanted)}; correct it")
    for name, value in given.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (wanted[name] is float and isinstance(value, float))) or value < 0:
            raise InputError(f"{file}: {table}.{name} is {value!r}; give a number from 0")
    return {name: wanted[name](value) for name, value in given.items()}


def _files() -> dict[str, Path]:
    return {file.stem: file for folder in reversed(FOLDERS) for file in folder.glob("*.toml")}
