"""The built-in encoder, on photographs, through the real runtime."""

import dataclasses
import hashlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from searchlib.encoder import ImageEncoder, built_in_card
from searchlib.encoder.contract import bare_card
from searchlib.encoder.engine import get_threads
from searchlib.encoder.priority import step_back
from searchlib.errors import CardError

GOLDEN = Path(__file__).parent / "data" / "golden.npy"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder()


def photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)())


def test_vectors_agree_with_onnxruntime_on_the_published_weights(encoder: ImageEncoder) -> None:
    golden: NDArray[np.float32] = np.load(GOLDEN)
    for name, expected in zip(PHOTOGRAPHS, golden, strict=True):
        vector = encoder.embed(photograph(name))
        assert vector.dtype == np.float32
        assert vector.shape == (encoder.dimension,)
        assert float(vector @ expected) > 0.997, name


def test_vectors_have_length_one(encoder: ImageEncoder) -> None:
    for size in ((1, 1), (3, 500), (224, 224)):
        vector = encoder.embed(Image.new("RGB", size, (90, 10, 200)))
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_an_edit_stays_nearer_than_another_photograph(encoder: ImageEncoder) -> None:
    originals = {name: encoder.embed(photograph(name)) for name in PHOTOGRAPHS}
    for name in PHOTOGRAPHS:
        image = photograph(name)
        width, height = image.size
        for edit in (
            image.resize((width // 3, height // 3)),
            image.crop((width // 12, height // 12, width, height)),
            ImageEnhance.Brightness(image).enhance(1.3),
        ):
            vector = encoder.embed(edit)
            nearest = max(originals, key=lambda other: float(originals[other] @ vector))
            assert nearest == name
            assert float(originals[name] @ vector) > 0.7


def test_many_threads_get_the_vectors_of_one_to_the_last_bit(encoder: ImageEncoder) -> None:
    images = [photograph(name) for name in PHOTOGRAPHS]
    alone = [encoder.embed(image) for image in images]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(
            i for i in [0, 1, 2, 3] * 3 if not np.array_equal(encoder.embed(images[i]), alone[i])
        )

    with encoder.for_throughput(3):
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert np.array_equal(encoder.embed(images[0]), alone[0])


def test_a_model_of_another_shape_than_its_card_says_is_refused() -> None:
    card = built_in_card()
    wrong = dataclasses.replace(card, dimension=512)
    with pytest.raises(CardError, match=r"gives .*320.* and its card says .*512"):
        ImageEncoder(wrong).embed(photograph("coffee"))


def test_a_model_that_takes_another_input_is_refused(tmp_path: Path) -> None:
    card = built_in_card()
    path = tmp_path / "linear.pte"
    shutil.copy(DATA / "linear.pte", path)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    wrong = dataclasses.replace(card, path=path, sha256=digest, bytes=len(data))
    with pytest.raises(CardError, match="the model takes"):
        ImageEncoder(wrong).embed(photograph("coffee"))


def test_an_ingest_leaves_the_threads_of_the_process_alone() -> None:
    before = get_threads()
    encoder = ImageEncoder()
    with encoder.for_throughput(2):
        encoder.embed(photograph("coffee"))
        assert get_threads() == before
    assert get_threads() == before


def test_a_query_gets_the_same_vector_alone_and_beside_an_ingest() -> None:
    encoder = ImageEncoder()
    image = photograph("coffee")
    alone = encoder.embed(image)
    seen: list[NDArray[np.float32]] = []

    def work() -> None:
        step_back()
        seen.extend(encoder.embed(image) for _ in range(5))

    with encoder.for_throughput(2):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        seen.extend(encoder.embed(image) for _ in range(5))
        for thread in threads:
            thread.join()
    seen.append(encoder.embed(image))
    assert len(seen) == 16
    for vector in seen:
        np.testing.assert_array_equal(vector, alone)


def test_pictures_at_once_get_the_vectors_that_each_gets_alone() -> None:
    card = bare_card(DATA / "pictures.pte")
    encoder = ImageEncoder(card)
    images = [photograph(name) for name in PHOTOGRAPHS] * 3
    together = encoder.embed_many(images)
    assert together.shape == (len(images), 512)
    for image, vector in zip(images, together, strict=True):
        np.testing.assert_array_equal(encoder.embed(image), vector)
    assert encoder.embed_many([]).shape == (0, 512)
