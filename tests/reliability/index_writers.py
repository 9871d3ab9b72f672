"""Libraries of vectors without pictures, and processes that change them and their indexes.

What makes an index large is set so low that some hundred vectors get a base, checkpoints and
compactions. As a program it is a server: for each line `WAY SEED` it forks a process that works on
the library in FOLDER until it is killed, prints its number, and then how it ended.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat
from searchlib.index import NumpyIndex, Subset, load_recipe, merge, tune
from searchlib.search import IndexChoice, LiveIndex, choice, live_index, merging, write_choice

DIMENSION = 16
IDENTITY = "c" * 64
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)

F32 = npt.NDArray[np.float32]


@contextmanager
def small() -> Iterator[None]:
    """Some hundred vectors are many."""
    recipe = replace(load_recipe("inverted"), least=100)
    known = {"inverted": recipe, "exact": load_recipe("exact")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "load_recipe", known.__getitem__)
        patch.setattr(merge, "tune", partial(tune, sample=80))
        patch.setattr(live_index, "REPLAY_AT_MOST", 60)
        patch.setattr(choice, "FRESH_AT_LEAST", 80)
        patch.setattr(choice, "FRESH_AT_MOST", 200)
        patch.setattr(live_index, "_CHOICE_SECONDS", 0.05)
        patch.setattr(merging, "_PAUSE_SECONDS", 0.05)
        yield


def vector(number: int) -> F32:
    """Of length 1, near one of twenty centres."""
    centre = np.random.default_rng(number % 20).standard_normal(DIMENSION)
    values = centre + 0.4 * np.random.default_rng(1_000 + number).standard_normal(DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def path_of(number: int) -> str:
    return f"/{number:09}.jpg"


class Vectors:
    """A catalog of vectors, and what happens to them."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = folder
        self.catalog = Catalog(folder, create=create)
        self.model: ModelRecord = self.catalog.use_model(
            identity=IDENTITY, name="test", dimension=DIMENSION
        )

    def close(self) -> None:
        self.catalog.close()

    def index(self, *, background: bool = False) -> LiveIndex:
        return LiveIndex(self.catalog, self.model, self.folder, background=background)

    def add(self, numbers: Iterable[int]) -> None:
        files = [
            ReadFile(
                path_of(number),
                Stat(1, number, number),
                number.to_bytes(32, "big"),
                None,
                NewContent(FACTS, vector(number)),
            )
            for number in numbers
        ]
        self.catalog.record(self.model, files, gone=lambda *_: False)

    def numbers(self) -> list[int]:
        """What was added and not removed since."""
        with self.catalog.database.reading() as connection:
            rows = connection.exec_driver_sql("SELECT path FROM file").all()
        return [int(path[1:-4]) for (path,) in rows]

    def remove(self, numbers: Iterable[int]) -> None:
        self.catalog.places.mark_missing([path_of(number) for number in numbers])
        while self.catalog.places.purge(missing_before=time.time() + 3600).files:
            pass

    def replace(self, count: int, seed: int) -> None:
        """Other vectors for some images that have one."""
        _, ids, _ = self.catalog.all_vectors(self.model)
        chosen = np.random.default_rng(seed).choice(ids, min(count, len(ids)), replace=False)
        with self.catalog.database.writing() as connection:
            for id in chosen.tolist():
                stored = vector(seed * 1_000 + id).astype("<f2").tobytes()
                connection.exec_driver_sql(
                    "UPDATE embedding SET vector = ? WHERE image_id = ?", (stored, id)
                )
                connection.exec_driver_sql(
                    "INSERT INTO change (model_id, image_id) VALUES (?, ?)", (self.model.id, id)
                )

    def content(self) -> NumpyIndex:
        """All vectors of the catalog."""
        _, ids, vectors = self.catalog.all_vectors(self.model)
        oracle = NumpyIndex(DIMENSION)
        oracle.upsert(ids, vectors)
        return oracle


def assert_right(index: LiveIndex, oracle: NumpyIndex) -> None:
    """Every vector is found under its id, and nothing else is."""
    now = index.current()
    ids = oracle.ids()
    assert now.ids().tolist() == ids.tolist()
    assert len(now) == len(ids)
    assert (now.vectors(ids) == oracle.vectors(ids)).all()
    assert_answers(index, oracle)


def assert_answers(index: LiveIndex, oracle: NumpyIndex) -> None:
    """The answers are those of brute force where they are exact, and else true as well."""
    ids = oracle.ids()
    queries = np.stack([vector(10**8 + number) for number in range(8)])
    for among in (None, Subset.of(ids[::2])):
        truth = oracle.search(queries, 10, among=among)
        for exact in (True, False):
            found = index.search(queries, 10, among=among, exact=exact)
            assert found.ids.shape == truth.ids.shape
            assert np.isin(found.ids, ids if among is None else among.ids).all()
            assert all(len(set(row)) == len(row) for row in found.ids.tolist())
            if exact:
                np.testing.assert_allclose(found.scores, truth.scores, atol=1e-6)
            for row, query in enumerate(queries):
                scores = oracle.vectors(found.ids[row]) @ query
                np.testing.assert_allclose(found.scores[row], scores, atol=1e-6)


ROOT = Path(__file__).parents[2]


class Processes:
    """Processes that work on one library, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.reliability.index_writers", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def _line(self) -> int:
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if not line:
            assert self.server.stderr is not None
            pytest.fail(self.server.stderr.read())
        return int(line)

    def start(self, way: str, seed: int) -> int:
        """The number of a process that works now."""
        assert self.server.stdin is not None
        self.server.stdin.write(f"{way} {seed}\n")
        self.server.stdin.flush()
        return self._line()

    def kill(self, process: int) -> None:
        os.kill(process, signal.SIGKILL)
        if self._line() != -signal.SIGKILL:
            assert self.server.stdin is not None
            assert self.server.stderr is not None
            self.server.stdin.close()
            pytest.fail(f"it ended by itself\n{self.server.stderr.read()}")

    def close(self) -> None:
        self.server.kill()
        self.server.communicate()

    def end(self, process: int) -> str:
        """Kill it, and say what all of them had to say."""
        self.kill(process)
        return self.server.communicate()[1]


def work(folder: Path, way: str, seed: int) -> None:
    """Change the library and its index for ever."""
    chance = random.Random(seed)
    vectors = Vectors(folder)
    index = vectors.index(background=way == "background")
    next_number = seed * 10**5
    write_choice(vectors.catalog, IndexChoice("inverted"))
    while True:
        if way == "slow":
            time.sleep(chance.uniform(0, 0.1))
        numbers = vectors.numbers()
        doing = chance.choice(
            ["add", "add", "add", "few", "replace", "remove", "merge", "search", "stream", "reopen"]
            + ["many"] * (len(numbers) > 700)
            + ["recipe"] * (chance.random() < 0.2)
        )
        if doing == "add" or len(numbers) < 150:
            count = chance.randint(1, 90)
            vectors.add(range(next_number, next_number + count))
            next_number += count
        elif doing == "few":
            for _ in range(5):
                vectors.add([next_number])
                next_number += 1
                index.refresh()
        elif doing == "replace":
            vectors.replace(chance.randint(1, 50), next_number)
            next_number += 1
        elif doing == "remove":
            vectors.remove(chance.sample(numbers, 20))
        elif doing == "many":
            vectors.remove(chance.sample(numbers, len(numbers) // 3))
        elif doing == "merge" and way != "background":
            index.merge(always=chance.random() < 0.5)
        elif doing == "stream":
            vectors.index().save()
        elif doing == "reopen":
            index.close()
            index = vectors.index(background=way == "background")
        elif doing == "recipe":
            recipe = chance.choice(["inverted", "inverted", "inverted", "exact", None])
            write_choice(vectors.catalog, IndexChoice(recipe))
            index.forget_choice()
        query = np.stack([vector(chance.randrange(10**8))])
        assert index.search(query, 10).ids.shape[1] >= min(10, len(numbers) // 2)


def read(folder: Path, way: str, seed: int) -> None:
    """Ask the index for ever, and compare with the catalog where that stood still meanwhile.

    A reader that is "late" holds what it has open until it has missed very much.
    """
    vectors = Vectors(folder)
    while True:
        index = vectors.index()
        for _ in range(40 if way == "late" else 15):
            before = vectors.catalog.last_seq(vectors.model)
            oracle = vectors.content()
            seed += 1
            queries = np.stack([vector(10**8 + seed)])
            exact = index.search(queries, 10, exact=True)
            found = index.search(queries, 10)
            if vectors.catalog.last_seq(vectors.model) != before:
                continue
            for answer in (exact, found):
                scores = oracle.vectors(answer.ids[0]) @ queries[0]
                np.testing.assert_allclose(answer.scores[0], scores, atol=1e-6)
            truth = oracle.search(queries, 10)
            np.testing.assert_allclose(exact.scores, truth.scores, atol=1e-6)
            sys.stderr.write("right\n")


def serve(folder: Path) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    with small():
        for line in sys.stdin:
            way, seed = line.split()
            if way == "late":
                live_index.REPLAY_AT_MOST = 10**9
            child = os.fork()
            if child:
                sys.stdout.write(f"{child}\n")
                sys.stdout.flush()
                _, status = os.waitpid(child, 0)
                sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
                sys.stdout.flush()
                continue
            try:
                (read if way in ("reader", "late") else work)(folder, way, int(seed))
            except BaseException:
                traceback.print_exc()
            os._exit(1)


if __name__ == "__main__":
    import faiss  # noqa: F401 - so that not each of the forked processes has to do it

    serve(Path(sys.argv[1]))
