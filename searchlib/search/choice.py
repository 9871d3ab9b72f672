"""Which index a library has: what its user chose, else what fits its size.

The choice is kept in the catalog, because it is a decision and no cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from searchlib.catalog import Catalog
from searchlib.errors import InputError
from searchlib.index import Recipe, load_recipe

EXACT_BYTES = 200_000_000
"""Up to how many bytes of vectors every one is compared with a query: 200,000 of 512 dimensions,
which two cores do in about 6 ms. Below that an index that looks at a part of them saves little."""

BACK_AGAIN = 0.5
"""At which share of that a library that shrinks goes back; in between it stays as it is."""

DEFAULT_RECALL = 0.99

MILVUS = "milvus"
"""The recipe of an index that a Milvus server keeps."""

_RECIPE, _RECALL, _URI = "index.recipe", "index.recall", "index.uri"


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """What was chosen for the index of a library.

    Attributes:
        recipe: its name; None where it is chosen by the size of the library.
        recall: the recall@10 that an approximate index is tuned to, above 0 and up to 1.
        uri: of the Milvus server, where the recipe is `MILVUS`.
    """

    recipe: str | None = None
    recall: float = DEFAULT_RECALL
    uri: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise InputError(f"recall is {self.recall}; give a number above 0 and up to 1")
        if self.recipe == MILVUS and not self.uri:
            raise InputError("the milvus index needs the URI of its server")
        if self.recipe is not None and self.recipe != MILVUS:
            if self.uri:
                raise InputError(f"the recipe {self.recipe} takes no URI; only milvus does")
            load_recipe(self.recipe)


def read_choice(catalog: Catalog) -> IndexChoice:
    """What was chosen for a library.

    Raises:
        InputError: a recipe that this version does not have.
    """
    recall = catalog.setting(_RECALL)
    return IndexChoice(
        catalog.setting(_RECIPE),
        DEFAULT_RECALL if recall is None else float(recall),
        catalog.setting(_URI),
    )


def write_choice(catalog: Catalog, choice: IndexChoice) -> None:
    """Choose the index of a library."""
    catalog.put_setting(_RECALL, None if choice.recall == DEFAULT_RECALL else str(choice.recall))
    catalog.put_setting(_URI, choice.uri)
    catalog.put_setting(_RECIPE, choice.recipe)


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
    return load_recipe("exact" if 2 * vectors * dimension <= limit else "inverted")
