"""What an index of FAISS is made of and learns before it can take vectors in.

Inverted lists need centroids, and codes of some kinds need to know how far the numbers reach. Both
are learnt from a sample, in one thread, and the same vectors give the same index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.errors import InputError
from searchlib.index.protocol import Vectors
from searchlib.index.recipes import Recipe
from searchlib.index.scan import load_faiss
from searchlib.index.segments import Codes

Stop = Callable[[], bool]
Progress = Callable[[int, int], None]

BLOCK = 8192
"""Rows that are worked on at once: between two blocks a build can be stopped."""

CENTROID_CANDIDATES = 64
"""How many candidates a graph of centroids looks at, where the recipe has one, at least."""

ENCODER_ROWS = 16_384
"""Rows that decide how a vector is rounded, where the recipe rounds by what it has seen."""

FEW_ROWS = 256
"""With fewer, vectors by chance join in that decision."""

_SEED = 20_240_229


class Stopped(Exception):
    """`stop` said that what is being built is not wanted any more; it never reaches the user."""


def never() -> bool:
    """The `stop` of what nobody stops."""
    return False


def ignore(done: int, total: int) -> None:
    """The `on_progress` that nobody watches."""


def trained(recipe: Recipe, codes: Codes, *, stop: Stop, on_progress: Progress) -> Any:
    """An index of FAISS without rows, fit for vectors like these.

    Args:
        recipe: how it is built.
        codes: float16[n, dimension], contiguous; a sample of them is looked at.
        stop: asked before each block.
        on_progress: called with the rows that were looked at, in all iterations, and all of them.

    Raises:
        Stopped: `stop` said so.
        InputError: FAISS does not know the recipe's factory, or it is of no kind known here.
    """
    index = made(recipe, codes.shape[1], len(codes))
    sample = _sample(codes, max(recipe.training, 1) * recipe.lists_for(len(codes)))
    ivf = load_faiss().try_extract_index_ivf(index)
    if ivf is not None:
        centroids = _centroids(sample, ivf.nlist, recipe.iterations, stop, on_progress)
        _set_centroids(ivf, centroids)
    if stop():
        raise Stopped
    # With its lists there already, FAISS trains only how a vector is rounded.
    seen = decoded(sample[_spread(len(sample), ENCODER_ROWS)])
    if len(seen) < FEW_ROWS:
        # A few rows do not show how far the numbers of others reach.
        seen = np.concatenate([seen, _by_chance(FEW_ROWS, seen.shape[1])])
    index.train(seen)
    return index


def made(recipe: Recipe, dimension: int, vectors: int) -> Any:
    """An index of FAISS as the recipe says, neither trained nor filled."""
    faiss = load_faiss()
    factory = recipe.factory_for(vectors)
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"recipe {recipe.name}: FAISS refuses factory {factory} for {dimension} dimensions "
            f"({first_line(error)}); correct the recipe"
        ) from error
    if not isinstance(index, faiss.IndexIVF | faiss.IndexHNSW | faiss.IndexFlatCodes):
        raise InputError(
            f"recipe {recipe.name}: factory {factory} is neither inverted lists nor a graph nor "
            "flat codes; correct the recipe"
        )
    return index


def kind(index: Any) -> str:
    """What all indexes of one recipe and number of lists are, whatever is in them."""
    ivf = load_faiss().try_extract_index_ivf(index)
    # Read back, a flat index of inner products has a class of its own.
    by = "" if ivf is None else type(centroid_index(ivf)).__name__.replace("FlatIP", "Flat")
    lists = "" if ivf is None else f", {ivf.nlist} lists by {by}"
    return (
        f"{type(index).__name__} of {index.d} dimensions, {code_size(index)} bytes, "
        f"metric {index.metric_type}{lists}"
    )


def code_size(index: Any) -> int:
    """How many bytes an index of FAISS keeps of a vector, its place aside."""
    flat = load_faiss().downcast_index(index.storage) if hasattr(index, "storage") else index
    size: int = flat.code_size
    return size


@contextlib.contextmanager
def exact_lists(index: Any) -> Iterator[None]:
    """Inside, a row that is added is compared with every centroid, by blocks of a matrix product.

    A graph of centroids would now and then miss the list where a search will look for the row, and
    rounded centroids take longer.
    """
    faiss = load_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    quantizer = None if ivf is None else centroid_index(ivf)
    if quantizer is None or isinstance(quantizer, faiss.IndexFlat):
        yield
        return
    flat = faiss.IndexFlatIP(ivf.d)
    flat.add(quantizer.reconstruct_n(0, ivf.nlist))
    ivf.quantizer = flat
    try:
        yield
    finally:
        # The index owns its quantizer and would free this one, too.
        ivf.quantizer = quantizer


def decoded(codes: Codes) -> Vectors:
    """The codes as float32, in a third of the time that numpy takes."""
    faiss = load_faiss()
    codec = faiss.IndexScalarQuantizer(codes.shape[1], faiss.ScalarQuantizer.QT_fp16)
    vectors: Vectors = codec.sa_decode(np.ascontiguousarray(codes).view(np.uint8))
    return vectors


@contextlib.contextmanager
def openmp_threads(count: int) -> Iterator[None]:
    """OpenMP's threads for what this thread does inside; afterwards as many as before."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def first_line(error: RuntimeError) -> str:
    """The first line of what FAISS says, which names its own source files."""
    text = str(error).strip()
    return text.splitlines()[0] if text else "no reason given"


def _set_centroids(ivf: Any, centroids: Vectors) -> None:
    quantizer = centroid_index(ivf)
    if not quantizer.is_trained:
        quantizer.train(centroids)
    quantizer.add(centroids)
    if hasattr(quantizer, "hnsw"):
        quantizer.hnsw.efSearch = CENTROID_CANDIDATES


def centroid_index(ivf: Any) -> Any:
    """What finds the lists near a vector, as the class that it is."""
    return load_faiss().downcast_index(ivf.quantizer)


def _by_chance(rows: int, dimension: int) -> Vectors:
    """Unit vectors in all directions, always the same."""
    drawn = np.random.default_rng(_SEED).standard_normal((rows, dimension)).astype(np.float32)
    unit: Vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def _sample(codes: Codes, size: int) -> Codes:
    """At most so many rows, by chance but always the same, in their order; at least one row."""
    if not len(codes):
        return _by_chance(1, codes.shape[1]).astype(np.float16)
    if size >= len(codes):
        return codes
    rows = np.random.default_rng(_SEED).choice(len(codes), size, replace=False, shuffle=False)
    return codes[np.sort(rows)]


def _spread(total: int, wanted: int) -> npt.NDArray[np.intp]:
    """At most so many places from 0 to total - 1, evenly."""
    return np.linspace(0, total - 1, min(total, wanted)).astype(np.intp)


def _centroids(
    sample: Codes, lists: int, iterations: int, stop: Stop, on_progress: Progress
) -> Vectors:
    """Spherical k-means (Dhillon and Modha 2001): float32[lists, dimension], of unit length.

    FAISS has it too, but cannot be stopped there without stopping every search of the process.
    """
    faiss = load_faiss()
    size, dimension = sample.shape
    chance = np.random.default_rng(_SEED)
    # Fewer rows than lists: some lists begin at the same row and stay empty.
    first = np.resize(chance.permutation(size), lists)
    centroids = decoded(sample[first])
    for iteration in range(iterations):
        coarse = faiss.IndexFlatIP(dimension)
        coarse.add(centroids)
        sums = np.zeros((lists, dimension), np.float32)
        counts = np.zeros(lists, np.int64)
        for start in range(0, size, BLOCK):
            if stop():
                raise Stopped
            vectors = decoded(sample[start : start + BLOCK])
            nearest = coarse.search(vectors, 1)[1][:, 0]
            order = np.argsort(nearest, kind="stable")
            taken, begins = np.unique(nearest[order], return_index=True)
            sums[taken] += np.add.reduceat(vectors[order], begins, axis=0)
            counts += np.bincount(nearest, minlength=lists)
            on_progress(iteration * size + min(start + BLOCK, size), iterations * size)
        centroids = _settled(centroids, sums, counts)
    return centroids


def _settled(before: Vectors, sums: Vectors, counts: npt.NDArray[np.int64]) -> Vectors:
    """The centroids of the next iteration; an empty list takes half of the one most spread out."""
    lengths = np.linalg.norm(sums, axis=1)
    filled = lengths > 0
    after = before.copy()
    after[filled] = sums[filled] / lengths[filled, None]
    # What the cosines of a list's vectors to its centroid lack of 1, all together. By their number
    # alone one vector in many copies would be split for ever.
    spread = counts - lengths
    # As FAISS does it: two centroids a little apart, on both sides of the old one.
    apart = np.where(np.arange(after.shape[1]) % 2, 1 - 1 / 1024, 1 + 1 / 1024).astype(np.float32)
    for empty in np.flatnonzero(counts == 0):
        wide = int(np.argmax(spread))
        if spread[wide] < 0.01:
            break
        after[empty] = after[wide] * apart
        after[wide] *= 2 - apart
        spread[empty] = spread[wide] = spread[wide] / 2
    lengths = np.linalg.norm(after, axis=1, keepdims=True)
    after /= np.where(lengths > 0, lengths, np.float32(1))
    return after
