"""Recipes: how an index is built, as data.

A recipe is a TOML file in `indexes/`, named after itself:

    name     what it is called
    factory  how vectors are stored and searched, in the words of FAISS's index factory
    metric   what a score is
    use      when to choose it, in one sentence
    measured what it was measured to do; a table for people, which no code reads
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from searchlib.errors import InputError

FACTORIES = ("SQfp16",)
METRICS = ("inner_product",)

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (_PACKAGE / "indexes", _PACKAGE.parent / "indexes")
"""Where recipes lie: in the installed package, or beside it in a checkout."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an index is built.

    Attributes:
        name: what it is called.
        factory: one of `FACTORIES`.
        metric: one of `METRICS`.
        use: when to choose it, in one sentence.
    """

    name: str
    factory: str
    metric: str
    use: str

    @property
    def fingerprint(self) -> bytes:
        """32 bytes, equal where two recipes build the same index; BLAKE3 of factory and metric."""
        return blake3(f"{self.factory}\n{self.metric}\n".encode()).digest()


def load_recipe(name: str) -> Recipe:
    """Reads the recipe of this name.

    Raises:
        InputError: there is none of this name, or its file is not a recipe.
    """
    files = {file.stem: file for folder in reversed(FOLDERS) for file in folder.glob("*.toml")}
    if name not in files:
        known = ", ".join(sorted(files)) or "none; install searchlib again"
        raise InputError(f"there is no index recipe {name!r}; known are: {known}")
    file = files[name]
    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: the recipe cannot be read ({error}); correct it") from error
    fields.pop("measured", None)
    if set(fields) != {"name", "factory", "metric", "use"} or not all(
        isinstance(value, str) for value in fields.values()
    ):
        raise InputError(
            f"{file}: a recipe has the texts name, factory, metric and use; correct it"
        )
    recipe = Recipe(**fields)
    if recipe.name != name:
        raise InputError(f"{file}: the recipe calls itself {recipe.name!r}; name it as its file")
    if recipe.factory not in FACTORIES:
        raise InputError(
            f"{file}: factory {recipe.factory!r} is not known; use {' or '.join(FACTORIES)}"
        )
    if recipe.metric not in METRICS:
        raise InputError(
            f"{file}: metric {recipe.metric!r} is not known; use {' or '.join(METRICS)}"
        )
    return recipe
