"""Pictures that wait for an engine are run together, each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from searchlib.encoder import ImageEncoder
from searchlib.encoder.contract import bare_card
from searchlib.encoder.engine import Engine
from searchlib.encoder.pool import EnginePool
from searchlib.errors import EncoderError, EngineError, OutputError

DATA = Path(__file__).parent / "data"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "hubble_deep_field")


def photographs() -> list[Image.Image]:
    return [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]


class Counting:
    """An encoder on one processor whose runs are counted, and may be made to fail."""

    def __init__(self, file: str) -> None:
        self.sizes: list[int] = []
        self.refuse: Callable[[NDArray[np.float32]], bool] = lambda _: False
        self.encoder = ImageEncoder(bare_card(DATA / file))
        self.pool: EnginePool[Any, Any] = EnginePool(self._open, processors=1)
        self.encoder._pool = self.pool
        self.encoder.load()

    def _open(self, single_threaded: bool) -> Engine:
        engine = ImageEncoder._open(self.encoder, single_threaded)
        return _Watched(engine, self)

    def at_once(self, images: Sequence[Image.Image]) -> list[NDArray[np.float32] | EncoderError]:
        """What each of the pictures gets, where all wait for the one engine."""
        outcomes: dict[int, NDArray[np.float32] | EncoderError] = {}

        def call(number: int) -> None:
            try:
                outcomes[number] = self.encoder.embed(images[number])
            except EncoderError as error:
                outcomes[number] = error

        threads = [threading.Thread(target=call, args=(n,)) for n in range(len(images))]
        with self.pool.borrow():
            for count, thread in enumerate(threads, 1):
                thread.start()
                while len(self.pool._lines[True]) < count:
                    threading.Event().wait(0.005)
            self.sizes.clear()
        for thread in threads:
            thread.join(30)
        return [outcomes[number] for number in range(len(images))]


class _Watched:
    def __init__(self, engine: Engine, counting: Counting) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine = engine
        self._counting = counting

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        self._counting.sizes.append(len(inputs[0]))
        if any(self._counting.refuse(each) for each in inputs[0]):
            raise EngineError("refused")
        return self._engine.run(inputs)


def test_pictures_that_wait_are_run_in_batches_of_what_the_model_takes() -> None:
    counting = Counting("pictures.pte")
    images = photographs()
    alone = [ImageEncoder(counting.encoder.card).embed(image) for image in images]
    together = counting.at_once(images)
    assert counting.sizes == [4, 2]
    for vector, expected in zip(together, alone, strict=True):
        assert isinstance(vector, np.ndarray)
        np.testing.assert_array_equal(vector, expected)


def test_a_model_that_takes_one_picture_gets_one_at_a_time() -> None:
    counting = Counting("picture.pte")
    images = photographs()[:3]
    alone = [ImageEncoder(counting.encoder.card).embed(image) for image in images]
    together = counting.at_once(images)
    assert counting.sizes == [1, 1, 1]
    for vector, expected in zip(together, alone, strict=True):
        assert isinstance(vector, np.ndarray)
        np.testing.assert_array_equal(vector, expected)


def test_a_picture_without_a_vector_fails_alone() -> None:
    counting = Counting("pictures.pte")
    images = photographs()[:4]
    alone = [ImageEncoder(counting.encoder.card).embed(image) for image in images]
    images[1] = Image.new("RGB", (224, 224))  # the model answers black with zeros
    together = counting.at_once(images)
    assert counting.sizes == [4]
    assert isinstance(together[1], OutputError)
    for number in (0, 2, 3):
        vector = together[number]
        assert isinstance(vector, np.ndarray)
        np.testing.assert_array_equal(vector, alone[number])


def test_where_the_runtime_refuses_a_batch_only_the_picture_that_it_refuses_alone_fails() -> None:
    counting = Counting("pictures.pte")
    images = photographs()[:4]
    alone = [ImageEncoder(counting.encoder.card).embed(image) for image in images]
    images[2] = Image.new("RGB", (224, 224), (255, 255, 255))
    counting.refuse = lambda pixels: bool(pixels.min() == 1)
    together = counting.at_once(images)
    assert counting.sizes == [4, 1, 1, 1, 1]
    assert isinstance(together[2], EngineError)
    for number in (0, 1, 3):
        vector = together[number]
        assert isinstance(vector, np.ndarray)
        np.testing.assert_array_equal(vector, alone[number])


@pytest.mark.parametrize("file", ["pictures.pte", "picture.pte"])
def test_many_threads_get_the_vectors_of_one_to_the_last_bit(file: str) -> None:
    encoder = ImageEncoder(bare_card(DATA / file))
    images = photographs()
    alone = [encoder.embed(image) for image in images]
    wrong: list[int] = []

    def work(first: int) -> None:
        for turn in range(12):
            number = (first + turn) % len(images)
            if not np.array_equal(encoder.embed(images[number]), alone[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
