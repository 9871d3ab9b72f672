"""Our indexes, as the product builds and opens them.

    python -m benchmarks.index_ours FOLDER SIZE RECIPE

builds one over the first SIZE vectors of a folder of `index_vectors`, writes its checkpoint, and
prints what that took. Recipes are those of the product and those of `benchmarks/recipes`, which
were measured and did not earn a place.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT
from benchmarks.index_vectors import Vectors
from searchlib.index import FaissIndex, read_checkpoint, write_checkpoint
from searchlib.index import recipes as recipe_room
from searchlib.index.recipes import Recipe, load_recipe

IDENTITY = "0" * 64
CANDIDATES = ROOT / "benchmarks" / "recipes"
TARGET = 0.99


def recipes() -> dict[str, Recipe]:
    """All recipes by name, the product's first."""
    files = [*sorted((ROOT / "indexes").glob("*.toml")), *sorted(CANDIDATES.glob("*.toml"))]
    # A checkpoint names its recipe, so those that the product does not have must be found too.
    if CANDIDATES not in recipe_room.FOLDERS:
        folders: Any = (*recipe_room.FOLDERS, CANDIDATES)
        recipe_room.FOLDERS = folders
    return {file.stem: load_recipe(file.stem) for file in files}


def is_of_product(name: str) -> bool:
    """Whether a recipe is one that users can choose."""
    return not (CANDIDATES / f"{name}.toml").exists()


def default(size: int, dimension: int) -> Recipe:
    """The recipe that the product chooses for a library of this size."""
    from searchlib.search.choice import IndexChoice, recipe_for

    return recipe_for(IndexChoice(), vectors=size, dimension=dimension, now=None)


def checkpoint(made: Vectors, name: str, size: int) -> Path:
    """Where the checkpoint of an index lies."""
    return made.folder / "ours" / f"{name}-{size}" / "index.ckpt"


def opened(made: Vectors, name: str, size: int) -> FaissIndex:
    """An index from its checkpoint."""
    recipes()
    path = checkpoint(made, name, size)
    dimension = made.queries.shape[1]
    return read_checkpoint(path, identity=IDENTITY, dimension=dimension)[0]


def built(made: Vectors, name: str, size: int, *, any_code: bool = False) -> dict[str, Any] | None:
    """What was kept of the building of an index; None where it has to be built (again).

    That is so where the recipe or the code has changed since, unless it may be of `any_code`.
    """
    facts = checkpoint(made, name, size).with_name("built.json")
    if not facts.exists():
        return None
    found: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    return found if any_code or found.get("of") == _code(recipes()[name]) else None


def build(made: Vectors, name: str, size: int) -> dict[str, Any]:
    """Builds an index and writes its checkpoint; what that took, and how large it is."""
    recipe = recipes()[name]
    path = checkpoint(made, name, size)
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    index = FaissIndex.over(np.arange(size), np.asarray(made.base(size)))
    steps: dict[str, float] = {}
    last = time.perf_counter()

    def on_progress(step: str, _done: int, _total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        steps[step] = steps.get(step, 0.0) + now - last
        last = now

    start = time.perf_counter()
    index.merge(recipe, checkpoint=path, target=TARGET, on_progress=on_progress)
    write_checkpoint(path, index, identity=IDENTITY, seq=size)
    seconds = time.perf_counter() - start
    lengths = {file.suffix: file.stat().st_size for file in path.parent.iterdir()}
    facts, base = index.base, index.state().base
    found: dict[str, Any] = {
        "of": _code(recipe),
        "seconds": seconds,
        "steps": steps,
        "disk_bytes": sum(lengths.values()),
        "lists": base.accelerator.lists if base and base.accelerator else 0,
        # Beside what FAISS keeps, ids and codes lie in mapped files, which the kernel may drop.
        "memory_bytes": lengths.get(".faiss", lengths[".ckpt"]),
    }
    if facts and facts.tuning:
        tuning = facts.tuning
        found |= {"probes": tuning.probes, "factor": tuning.factor, "tuned_recall": tuning.recall}
    (path.parent / "built.json").write_text(json.dumps(found), encoding="utf-8")
    return found


def _code(recipe: Recipe) -> str:
    """Names what built it: the recipe and the code of the package's index."""
    digest = hashlib.sha256(repr(recipe).encode())
    for file in sorted((ROOT / "searchlib" / "index").glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Build one."""
    folder, size, name = sys.argv[1:]
    print(json.dumps(build(Vectors(Path(folder), ""), name, int(size))))


if __name__ == "__main__":
    main()
