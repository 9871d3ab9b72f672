"""Tuning: how far an accelerator must look to find what an exact search finds.

Some rows of the table ask for their own neighbours, themselves left out. The exact answers come
from comparing with every row; then settings are tried, and the cheapest one that finds enough is
taken. What a setting costs is counted and not timed: the bytes that FAISS reads. So a busy machine
does not change the choice, and equal rows give equal settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from searchlib.index.accelerator import Accelerator, Bitmap, Tuning, compared
from searchlib.index.protocol import Ids, Vectors
from searchlib.index.training import Progress, Stop, Stopped, decoded, ignore, never

CONFIDENCE = 1.645
"""Standard deviations below the mean at which 95 of 100 means lie above, by the normal curve."""

SCATTERED = 3
"""A byte of a row that is read by itself costs as much as so many bytes of rows in a row."""

FACTORS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
"""The factors that are tried. Fewer often do for the rows of the table; but the scores of a
question from elsewhere, a text for example, lie closer together, and the few more cost little."""

FEWEST_PROBES = 8
"""The probes that are tried begin here, for the same reason, and end with all lists."""

MOST_CANDIDATES = 1024
"""In a graph they end here."""

_BLOCK = 16_384
"""Rows that are compared at once; they stay in the cache while several questions pass over them."""

_SLICE = 16
"""Questions that are asked at once."""

_SEED = 20_240_229


@dataclass(frozen=True, slots=True, eq=False)
class _Questions:
    """Rows that ask for their neighbours.

    Attributes:
        rows: int64[q] of the table.
        vectors: float32[q, dimension], theirs.
        least: float32[q], the score of the last of the true neighbours.
        k: how many there are for each.
        share: which share of all rows that may ask these are.
    """

    rows: Ids
    vectors: Vectors
    least: npt.NDArray[np.float32]
    k: int
    share: float


def tune(
    accelerator: Accelerator,
    *,
    target: float = 0.99,
    keep: Bitmap | None = None,
    sample: int = 400,
    k: int = 10,
    stop: Stop = never,
    on_progress: Progress = ignore,
) -> Tuning:
    """The cheapest setting that reaches the target recall@k.

    The recall is the mean, over some rows by chance, of the share of a row's true `k` nearest
    neighbours that are found. A row with the score of the last of them counts as found: an exact
    search would not know which of the two to give. A setting reaches the target where the mean does
    with a confidence of 95 %: where the lower bound of the mean over all rows, by the normal curve
    and with the correction for the share of them that was asked, does. Where every row asks, that
    is the mean itself.

    Where no setting reaches the target it is the one that finds most, with its recall. The `recall`
    of what is returned is always the mean that was measured.

    It works in the calling thread, with one thread of OpenMP.

    Args:
        accelerator: attached to its codes.
        target: from 0 to 1.
        keep: the rows that live, as `Accelerator.search` takes them; all where it is None.
        sample: how many rows ask, at most.
        k: how many neighbours.
        stop: asked every second or more often.
        on_progress: called with the steps that are done and all of them, at most.

    Raises:
        Stopped: `stop` said so.
    """
    ladder = _probes(accelerator)
    blocks = -(-accelerator.rows // _BLOCK)
    tries = len(ladder) + len(FACTORS)
    total = blocks + tries
    questions = _asked(accelerator, keep, sample, k, stop, lambda done: on_progress(done, total))
    if not len(questions.rows):
        return Tuning.of(accelerator.recipe)

    best: tuple[float, Tuning] | None = None
    most: tuple[float, float, Tuning] | None = None
    # More probes and a higher factor never find less, so the settings that are just enough lie on
    # a staircase: the more probes, the lower the factor. `high` is the factor of the step before.
    high, tried = len(FACTORS) - 1, 0
    for probes in ladder:
        if best is not None and _cost(accelerator, probes, FACTORS[0], questions.k) >= best[0]:
            break
        low, place, enough = 0, high, False
        while low <= high:
            cost = _cost(accelerator, probes, FACTORS[place], questions.k)
            found = _recalls(accelerator, questions, probes, FACTORS[place], keep, stop)
            tried = min(tried + 1, tries)
            on_progress(blocks + tried, total)
            mean = float(found.mean())
            tuning = Tuning(probes, FACTORS[place], recall=mean, target=target)
            if most is None or (mean, -cost) > most[:2]:
                most = mean, -cost, tuning
            if _surely(found, questions.share) >= target:
                enough, high = True, place - 1
                if best is None or cost < best[0]:
                    best = cost, tuning
            elif not enough:
                break
            else:
                low = place + 1
            place = (low + high) // 2
    on_progress(total, total)
    assert most is not None
    return most[2] if best is None else best[1]


def _surely(found: npt.NDArray[np.float64], share: float) -> float:
    """The lower bound of the mean over all rows, of which `found` is a sample."""
    if len(found) < 2:
        return float(found.mean())
    error = found.std(ddof=1) / np.sqrt(len(found)) * np.sqrt(max(0.0, 1 - share))
    return float(found.mean() - CONFIDENCE * error)


def _asked(
    accelerator: Accelerator,
    keep: Bitmap | None,
    sample: int,
    k: int,
    stop: Stop,
    on_block: Callable[[int], None],
) -> _Questions:
    """Some rows, and their true neighbours by comparing with all."""
    codes = accelerator.codes
    if keep is None:
        allowed = np.arange(accelerator.rows)
    else:
        bits = np.unpackbits(keep, count=accelerator.rows, bitorder="little")
        allowed = np.flatnonzero(bits)
    k = min(k, len(allowed) - 1)
    if k < 1:
        none = np.empty(0, np.int64)
        return _Questions(none, np.empty((0, 0), np.float32), np.empty(0, np.float32), 0, 1.0)
    size = min(sample, len(allowed))
    rows = np.sort(np.random.default_rng(_SEED).choice(allowed, size, replace=False))
    vectors = decoded(codes[rows])
    best = np.full((size, k), -np.inf, np.float32)
    for number, start in enumerate(range(0, len(codes), _BLOCK)):
        for part in _slices(size):
            if stop():
                raise Stopped
            places, scores = compared(
                codes[start : start + _BLOCK],
                vectors[part],
                k + 1,
                None if keep is None else keep[start // 8 : (start + _BLOCK) // 8],
            )
            # The row itself is no neighbour.
            scores[places + start == rows[part, None]] = -np.inf
            both = np.concatenate([best[part], scores], axis=1)
            best[part] = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
        on_block(number + 1)
    return _Questions(rows, vectors, best.min(axis=1), k, size / len(allowed))


def _recalls(
    accelerator: Accelerator,
    questions: _Questions,
    probes: int,
    factor: int,
    keep: Bitmap | None,
    stop: Stop,
) -> npt.NDArray[np.float64]:
    """The share of its true neighbours that each question finds, float64[q]."""
    k = questions.k
    found = np.empty(len(questions.rows))
    for part in _slices(len(found)):
        if stop():
            raise Stopped
        # One more of everything, for the row itself.
        rows, scores = accelerator.ranked(
            questions.vectors[part], k + 1, candidates=k * factor + 1, probes=probes, keep=keep
        )
        other = (rows >= 0) & (rows != questions.rows[part, None])
        good = other & (scores >= questions.least[part, None])
        found[part] = np.minimum(good.sum(axis=1), k) / k
    return found


def _slices(total: int) -> Iterator[slice]:
    for start in range(0, total, _SLICE):
        yield slice(start, start + _SLICE)


def _probes(accelerator: Accelerator) -> list[int]:
    """The probes that are tried, in ascending order."""
    if accelerator.lists:
        most = accelerator.lists
    elif accelerator.links:
        most = min(MOST_CANDIDATES, accelerator.rows)
    else:
        return [accelerator.recipe.probes]
    steps, probes = [], FEWEST_PROBES
    while probes < most:
        steps += [probes, probes * 3 // 2]
        probes *= 2
    return [*(step for step in steps if step < most), most]


def _cost(accelerator: Accelerator, probes: int, factor: int, k: int) -> float:
    """What a search reads, in bytes."""
    rows, size = accelerator.rows, accelerator.code_size
    candidates = min(k * factor, rows)
    ranked = SCATTERED * candidates * accelerator.dimension * 2
    if accelerator.lists:
        return probes * rows / accelerator.lists * size + ranked
    if accelerator.links:
        # Half of the rows that a candidate leads to were seen before.
        return SCATTERED * max(probes, candidates) * accelerator.links / 2 * size + ranked
    return rows * size + ranked
