"""Which index a library has: what its user chose, else what fits its size; and when it is built.

The choice is kept in the catalog, because it is a decision and no cache.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass, field
from typing import Any

from searchlib.catalog import Catalog
from searchlib.errors import InputError
from searchlib.index import Recipe, load_recipe
from searchlib.index.recipes import FOLDERS

EXACT_BYTES = 200_000_000
"""Up to how many bytes of vectors every one is compared with a query: 200,000 of 512 dimensions,
which two cores do in about 6 ms. Below that an index that looks at a part of them saves little."""

BACK_AGAIN = 0.5
"""At which share of that a library that shrinks goes back; in between it stays as it is."""

FRESH_AT_LEAST, FRESH_AT_MOST = 8192, 65_536
"""Vectors beside a base are compared one by one, so there should not be many: a sixteenth of all,
within these bounds. The upper one takes two cores 3 ms at 512 dimensions."""

DEFAULT_RECALL = 0.99

EXACT = "exact"
"""The recipe of an index that compares a query with every vector."""

MILVUS = "milvus"
"""The recipe of an index that a Milvus server keeps."""

_FRESH_SHARE = 1 / 16
_DEAD_SHARE = 1 / 8
_SETTING = "index"


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """What was chosen for the index of a library.

    Attributes:
        recipe: its name; None where it is chosen by the size of the library.
        recall: the recall@10 that an approximate index is tuned to, above 0 and up to 1.
        uri: of the Milvus server, where the recipe is `MILVUS`. It may hold a password; what may
            be shown is `shown_uri`.
    """

    recipe: str | None = None
    recall: float = DEFAULT_RECALL
    uri: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise InputError(f"recall is {self.recall}; give a number above 0 and up to 1")
        if self.recipe == MILVUS:
            if not self.uri:
                raise InputError("the milvus index needs the URI of its server")
            return
        if self.uri:
            raise InputError(f"the recipe {self.recipe or 'auto'} takes no URI; only {MILVUS} does")
        if self.recipe is not None:
            load_recipe(self.recipe)

    @property
    def shown_uri(self) -> str | None:
        """The URI without user, password and token."""
        if self.uri is None:
            return None
        # What stands before the last @ is user and password, whatever characters they hold.
        return re.sub(r"^(\w+://)?.*@", r"\1", self.uri).partition("?")[0].partition("#")[0]


@dataclass(frozen=True, slots=True)
class Parts:
    """What an index consists of, as far as it tells whether it should be built anew.

    Attributes:
        vectors: how many it has.
        fresh: of these, that are compared one by one.
        recipe: name of the recipe of its base; None where every row of that is compared.
        rows: of its base, dead ones included; None where it has none.
        dead: how many rows of the base do not count.
    """

    vectors: int
    fresh: int
    recipe: str | None = None
    rows: int | None = None
    dead: int = 0


def read_choice(catalog: Catalog) -> IndexChoice:
    """What was chosen for a library.

    Raises:
        InputError: what this version does not have or understand.
    """
    text = catalog.setting(_SETTING)
    if text is None:
        return IndexChoice()
    try:
        return IndexChoice(**json.loads(text))
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "the index chosen for this library is of another version; choose one with "
            "`searchlib index use`"
        ) from error


def recall_of(catalog: Catalog) -> float:
    """The recall that was chosen for a library, whatever else was; the usual one if none."""
    try:
        return read_choice(catalog).recall
    except InputError:
        return DEFAULT_RECALL


def write_choice(catalog: Catalog, choice: IndexChoice) -> None:
    """Choose the index of a library."""
    # In one value, so that nobody reads half of it.
    text = None if choice == IndexChoice() else json.dumps(asdict(choice))
    catalog.put_setting(_SETTING, text)


def recipe_for(choice: IndexChoice, *, vectors: int, dimension: int, now: str | None) -> Recipe:
    """The recipe of an index beside the catalog.

    Args:
        choice: what was chosen.
        vectors: how many there are.
        dimension: how many numbers each has.
        now: the approximate recipe that the index has already; None where it has none.
    """
    if choice.recipe is not None and choice.recipe != MILVUS:
        return load_recipe(choice.recipe)
    limit = EXACT_BYTES * (BACK_AGAIN if now else 1)
    return load_recipe(EXACT if 2 * vectors * dimension <= limit else "inverted")


def is_build_due(recipe: Recipe, parts: Parts) -> bool:
    """Whether it would be worth it to build an index anew.

    Args:
        recipe: that it should have.
        parts: what it consists of.
    """
    if recipe.is_exact:
        return parts.rows is not None
    if parts.vectors < recipe.least:
        return False
    if parts.rows is None or parts.recipe != recipe.name:
        return True
    limit = min(max(FRESH_AT_LEAST, parts.vectors * _FRESH_SHARE), FRESH_AT_MOST)
    return parts.fresh > limit or parts.dead > _DEAD_SHARE * parts.rows


def recipe_figures(name: str) -> dict[str, Any]:
    """What a recipe was measured to do: the table `measured` of its file, for people to read.

    Raises:
        InputError: there is no recipe of this name, or its file cannot be read.
    """
    load_recipe(name)
    for folder in FOLDERS:
        try:
            fields = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        figures: dict[str, Any] = fields.get("measured", {})
        return figures
    return {}
