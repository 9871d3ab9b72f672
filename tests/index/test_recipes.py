"""Recipes are found by name, and a file that is not a recipe is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchlib.errors import InputError
from searchlib.index import Recipe, load_recipe, recipes

EXACT = """
name = "exact"
factory = "SQfp16"
metric = "inner_product"
use = "Always."
"""

INVERTED = """
name = "exact"
factory = "IVF{lists},SQ8"
metric = "inner_product"
use = "Always."

[build]
lists = 1.5
training = 40
iterations = 8
least = 0

[search]
probes = 4
factor = 2
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    installed, checkout = tmp_path / "installed", tmp_path / "checkout"
    installed.mkdir()
    checkout.mkdir()
    monkeypatch.setattr(recipes, "FOLDERS", (installed, checkout))
    return installed, checkout


def test_the_shipped_recipe_is_found() -> None:
    recipe = load_recipe("exact")
    assert (recipe.name, recipe.factory, recipe.metric) == ("exact", "SQfp16", "inner_product")
    assert recipe.use.endswith(".")


def test_the_number_of_lists_follows_the_square_root_of_the_vectors(
    folders: tuple[Path, Path],
) -> None:
    (folders[0] / "exact.toml").write_text(INVERTED)
    recipe = load_recipe("exact")
    assert not recipe.is_exact
    assert recipe.factory_for(10_000) == "IVF150,SQ8"
    assert [recipe.lists_for(count) for count in (0, 1, 1_000_000)] == [1, 2, 1500]


def test_what_only_a_search_heeds_is_not_in_the_fingerprint(folders: tuple[Path, Path]) -> None:
    prints = []
    for text in (
        INVERTED,
        INVERTED.replace("probes = 4", "probes = 5"),
        INVERTED.replace("iterations = 8", "iterations = 9"),
    ):
        (folders[0] / "exact.toml").write_text(text)
        prints.append(load_recipe("exact").fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_every_shipped_recipe_loads() -> None:
    files = [file for folder in recipes.FOLDERS for file in folder.glob("*.toml")]
    assert files
    for file in files:
        assert load_recipe(file.stem).name == file.stem


def test_the_installed_recipe_comes_before_that_of_a_checkout(folders: tuple[Path, Path]) -> None:
    installed, checkout = folders
    (checkout / "exact.toml").write_text(EXACT)
    assert load_recipe("exact").use == "Always."
    (installed / "exact.toml").write_text(EXACT.replace("Always", "Installed"))
    assert load_recipe("exact").use == "Installed."


def test_measured_figures_are_allowed_and_not_read(folders: tuple[Path, Path]) -> None:
    (folders[0] / "exact.toml").write_text(EXACT + "[measured]\nrecall_at_10 = 1.0\n")
    assert load_recipe("exact") == Recipe("exact", "SQfp16", "inner_product", "Always.")


def test_the_fingerprint_is_that_of_what_is_built_and_not_of_the_prose() -> None:
    recipe = Recipe("exact", "SQfp16", "inner_product", "Always.")
    assert len(recipe.fingerprint) == 32
    assert recipe.fingerprint == Recipe("e", "SQfp16", "inner_product", "x").fingerprint
    assert recipe.fingerprint != Recipe("exact", "SQ8", "inner_product", "Always.").fingerprint
    assert recipe.fingerprint != Recipe("exact", "SQfp16", "l2", "Always.").fingerprint


@pytest.mark.parametrize("name", ["", "none", "../exact", "EXACT"])
def test_an_unknown_name_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(InputError, match="known are: exact"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "cannot be read"),
        ("\udcff", "cannot be read"),
        (EXACT.replace('"Always."', "3"), "has the texts"),
        (EXACT.replace("use", "usage"), "has the texts"),
        (EXACT + 'speed = "high"\n', "has the texts"),
        (EXACT.replace('"exact"', '"other"'), "calls itself 'other'"),
        (EXACT.replace("SQfp16", "HNSW32"), r"\[build\] has the numbers lists"),
        (EXACT + "[search]\nprobes = 1\nfactor = 1\n", "takes neither build nor search"),
        (INVERTED.replace("least = 0\n", ""), r"\[build\] has the numbers lists, training"),
        (INVERTED.replace("factor = 2", "factor = 2.5"), "search.factor is 2.5"),
        (INVERTED.replace("lists = 1.5", "lists = -1"), "build.lists is -1"),
        (INVERTED.replace("probes = 4", "probes = true"), "search.probes is True"),
        (EXACT.replace("inner_product", "l2"), "metric 'l2' is not known; use inner_product"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_named(
    folders: tuple[Path, Path], text: str, reason: str
) -> None:
    (folders[1] / "exact.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=reason) as caught:
        load_recipe("exact")
    assert str(folders[1] / "exact.toml") in str(caught.value)
    assert "\n" not in str(caught.value)
