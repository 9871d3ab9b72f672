"""Percentiles are those of random pairs of the library, and are kept with it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat
from searchlib.search import LiveIndex
from searchlib.search.background import LEAST, SAMPLE, Background, Backgrounds

DIMENSION = 32
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path, create=True)
    yield catalog
    catalog.close()


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="c" * 64, name="test", dimension=DIMENSION)


def put(catalog: Catalog, model: ModelRecord, vectors: np.ndarray, first: int = 0) -> None:
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    files = [
        ReadFile(
            f"/{n:06}.jpg", Stat(1, n, n), n.to_bytes(32, "big"), None, NewContent(FACTS, vector)
        )
        for n, vector in enumerate(unit, first)
    ]
    catalog.record(model, files, gone=lambda _: False)


def backgrounds(catalog: Catalog, model: ModelRecord) -> Backgrounds:
    return Backgrounds(catalog, model, LiveIndex(catalog, model, catalog.database.folder))


def shifted(count: int, seed: int = 1) -> np.ndarray:
    """Vectors that have something in common, as pictures in the space of a model have."""
    random = np.random.default_rng(seed)
    vectors: np.ndarray = random.normal(size=(count, DIMENSION)) + 0.5
    return vectors


def of(background: Background | None) -> Background:
    assert background is not None
    return background


def test_a_percentile_is_the_share_of_pairs_that_are_less_alike(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, shifted(300))
    _, _, stored = catalog.all_vectors(model)
    vectors = stored.astype(np.float64)
    cosines = (vectors @ vectors.T)[np.triu_indices(300, 1)]
    background = of(backgrounds(catalog, model).pairs())
    assert (background.of, background.images) == ("pairs", 300)
    for cosine in np.quantile(cosines, [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0]):
        expected = 100 * (cosines < cosine).mean()
        assert background.percentile(float(cosine)) == pytest.approx(expected, abs=0.6)
        back = background.cosine(background.percentile(float(cosine)))
        assert back == pytest.approx(cosine, abs=0.02)
    high = 100 * (cosines < np.quantile(cosines, 0.999)).mean()
    assert background.percentile(float(np.quantile(cosines, 0.999))) == pytest.approx(
        high, abs=0.01
    )
    assert background.percentile(1.0) == 100
    assert background.percentile(-1.0) == 0


def test_a_sample_tells_about_a_library_that_is_larger(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, shifted(3000))
    _, _, stored = catalog.all_vectors(model)
    vectors = stored.astype(np.float64)
    cosines = (vectors @ vectors.T)[np.triu_indices(3000, 1)]
    background = of(backgrounds(catalog, model).pairs())
    assert background.images == SAMPLE
    for percent in (5, 50, 95, 99, 99.9):
        expected = np.percentile(cosines, percent)
        assert background.cosine(percent) == pytest.approx(expected, abs=0.03)


def test_a_small_library_has_none(catalog: Catalog, model: ModelRecord) -> None:
    put(catalog, model, shifted(LEAST - 1))
    measured = backgrounds(catalog, model)
    assert measured.pairs() is None
    assert measured.of_question(np.eye(DIMENSION, dtype=np.float32)[0]) is None
    put(catalog, model, shifted(1, seed=2), first=LEAST)
    assert measured.pairs() is not None


def test_it_is_kept_with_the_library_until_that_has_doubled(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, shifted(100))
    first = of(backgrounds(catalog, model).pairs())
    put(catalog, model, shifted(90, seed=2), first=100)
    kept = of(backgrounds(catalog, model).pairs())
    assert kept.images == 100
    np.testing.assert_allclose(kept.cosines, first.cosines, atol=1e-6)
    put(catalog, model, shifted(20, seed=3), first=190)
    assert of(backgrounds(catalog, model).pairs()).images == 210


def test_what_another_version_kept_is_measured_anew(catalog: Catalog, model: ModelRecord) -> None:
    put(catalog, model, shifted(60))
    name = f"background:{model.identity[:16]}"
    for text in ("", "[]", "[1,60,60,[0.5]]", "[9,60,60,[]]", "null", "{"):
        catalog.put_setting(name, text)
        assert of(backgrounds(catalog, model).pairs()).images == 60
        assert catalog.setting(name) != text


def test_a_question_is_compared_with_the_images_that_were_drawn(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, shifted(200))
    vector = np.ones(DIMENSION, np.float32) / np.float32(np.sqrt(DIMENSION))
    background = of(backgrounds(catalog, model).of_question(vector))
    _, _, stored = catalog.all_vectors(model)
    cosines = stored.astype(np.float64) @ vector
    assert background.of == "question"
    assert background.cosine(50) == pytest.approx(np.median(cosines), abs=0.01)
