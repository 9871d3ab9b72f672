"""Who gets which engine, and when: on real engines of a small program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from searchlib.encoder.engine import Engine, open_engine
from searchlib.encoder.pool import MAX_WORKERS, EnginePool
from searchlib.encoder.priority import ingesting, querying, step_back
from searchlib.errors import EngineError, OutputError

LINEAR = Path(__file__).parent / "data" / "linear.pte"

Pool = EnginePool[NDArray[np.float32], NDArray[np.float32]]


class Opened:
    """What a pool opened: whether single-threaded, in order."""

    def __init__(self) -> None:
        self.kinds: list[bool] = []
        self.narrow: list[Engine] = []
        self.wide: list[Engine] = []
        self.fail: Exception | None = None

    def __call__(self, single_threaded: bool) -> Engine:
        if self.fail is not None:
            raise self.fail
        engine = open_engine(LINEAR, single_threaded=single_threaded)
        self.kinds.append(single_threaded)
        (self.narrow if single_threaded else self.wide).append(engine)
        return engine


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture
def pool(opened: Opened) -> Pool:
    return EnginePool(opened, processors=2)


def row(number: int) -> NDArray[np.float32]:
    return np.full(6, number, np.float32)


def work(
    engine: Engine, rows: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32] | Exception]:
    """A row of negative numbers has no result."""
    (output,) = engine.run([np.stack(rows)])
    return [
        OutputError(f"row {given[0]:g}") if given[0] < 0 else result
        for given, result in zip(rows, output, strict=True)
    ]


class Patient:
    """Holds an engine in a thread that has stepped back, until it is told to let go."""

    def __init__(self, pool: Pool) -> None:
        self.has = threading.Event()
        self._done = threading.Event()
        self._pool = pool
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()

    def _hold(self) -> None:
        step_back()
        with self._pool.borrow():
            self.has.set()
            self._done.wait(30)

    def let_go(self) -> None:
        self._done.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def patient(pool: Pool) -> Iterator[Callable[[], Patient]]:
    held: list[Patient] = []

    def patient() -> Patient:
        held.append(Patient(pool))
        return held[-1]

    yield patient
    for each in held:
        each.let_go()


def waiting(pool: Pool, count: int, *, urgent: bool = True) -> None:
    """Come back when so many wait in a line."""
    for _ in range(3000):
        if len(pool._lines[urgent]) == count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{len(pool._lines[urgent])} wait and not {count}")


def having(patients: Sequence[Patient], count: int) -> None:
    """Come back when so many of them have an engine."""
    for _ in range(3000):
        if sum(each.has.is_set() for each in patients) >= count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{[each.has.is_set() for each in patients]}, and not {count}")


# -- wide or narrow ------------------------------------------------------------------------------


def test_nothing_is_opened_before_it_is_asked_for(pool: Pool, opened: Opened) -> None:
    with pool.for_workers(2):
        pass
    assert opened.kinds == []


def test_who_is_alone_gets_the_wide_engine_each_time(pool: Pool, opened: Opened) -> None:
    for _ in range(3):
        with querying(), pool.borrow() as engine:
            assert engine is opened.wide[0]
    assert opened.kinds == [False]


def test_who_comes_while_another_is_at_work_gets_a_narrow_one(pool: Pool, opened: Opened) -> None:
    with pool.borrow() as first, pool.borrow() as second, pool.borrow() as third:
        assert first is opened.wide[0]
        assert [second, third] == opened.narrow
    with pool.borrow() as engine:
        assert engine is first


def test_beside_an_ingest_or_another_query_the_engine_is_narrow(pool: Pool, opened: Opened) -> None:
    with ingesting(), pool.borrow():
        pass
    with querying(), querying(), pool.borrow():
        pass
    assert opened.kinds == [True]


def test_an_ingest_never_gets_the_wide_engine(
    opened: Opened, patient: Callable[[], Patient]
) -> None:
    assert patient().has.wait(20)
    assert opened.kinds == [True]


def test_one_processor_has_no_use_for_a_wide_engine(opened: Opened) -> None:
    pool: Pool = EnginePool(opened, processors=1)
    with pool.borrow():
        pass
    assert opened.kinds == [True]


# -- how many ------------------------------------------------------------------------------------


def test_an_ingest_gets_an_engine_for_each_worker_and_a_query_finds_one_more(
    pool: Pool, opened: Opened, patient: Callable[[], Patient]
) -> None:
    with pool.for_workers(3):
        first = [patient() for _ in range(3)]
        assert all(each.has.wait(20) for each in first)
        late = patient()
        waiting(pool, 1, urgent=False)
        with pool.borrow():
            assert not late.has.is_set()
        first[0].let_go()
        assert late.has.wait(20)
        for each in (*first, late):
            each.let_go()
        assert len(opened.narrow) == 4
    assert opened.wide == []


def test_without_an_arrangement_one_patient_thread_runs_at_a_time(
    pool: Pool, patient: Callable[[], Patient]
) -> None:
    both = patient(), patient()
    waiting(pool, 1, urgent=False)
    having(both, 1)
    assert both[0].has.is_set() != both[1].has.is_set()


def test_what_an_ingest_opened_is_let_go_but_for_one_and_what_queries_use(
    pool: Pool, opened: Opened, patient: Callable[[], Patient]
) -> None:
    with pool.borrow(), pool.borrow():
        pass
    assert opened.kinds == [False, True]
    with pool.for_workers(3), pool.for_workers(2):
        held = [patient() for _ in range(3)]
        assert all(each.has.wait(20) for each in held)
        for each in held:
            each.let_go()
        assert len(pool._idle) == 3
    assert pool._idle == opened.narrow[:2]
    with pool.borrow() as engine:
        assert engine is opened.wide[0]


def test_an_engine_still_at_work_when_the_ingest_ends_is_let_go_afterwards(
    pool: Pool, patient: Callable[[], Patient]
) -> None:
    with pool.for_workers(2):
        both = [patient(), patient()]
        having(both, 2)
    for each in both:
        each.let_go()
    assert len(pool._idle) == 1


def test_an_engine_that_a_query_opened_beside_an_ingest_stays(
    pool: Pool, opened: Opened, patient: Callable[[], Patient]
) -> None:
    for _ in range(3):
        with ingesting(), pool.for_workers(2):
            held = [patient() for _ in range(2)]
            having(held, 2)
            with pool.borrow():
                pass
            for each in held:
                each.let_go()
        assert len(pool._idle) == 2
    # The second worker's is opened anew each time, the first's and the query's are not.
    assert opened.kinds == [True] * 5


def test_a_great_many_workers_share_a_bounded_number_of_engines(
    pool: Pool, opened: Opened, patient: Callable[[], Patient]
) -> None:
    with pool.for_workers(100):
        held = [patient() for _ in range(MAX_WORKERS + 2)]
        waiting(pool, 2, urgent=False)
        having(held, MAX_WORKERS)
        assert len(opened.narrow) == MAX_WORKERS
        with pool.borrow():
            pass
        for each in held:
            each.let_go()


# -- who goes first ------------------------------------------------------------------------------


def test_the_urgent_go_first_and_the_patient_still_get_on(
    opened: Opened, patient: Callable[[], Patient]
) -> None:
    del patient
    pool: Pool = EnginePool(opened, processors=1)
    order: list[str] = []

    def call(name: str, *, patiently: bool) -> None:
        if patiently:
            step_back()
        with pool.borrow():
            order.append(name)

    threads: list[threading.Thread] = []
    with pool.borrow():
        for count in range(1, 4):
            threads.append(threading.Thread(target=call, args=("p",), kwargs={"patiently": True}))
            threads[-1].start()
            waiting(pool, count, urgent=False)
        for count in range(1, 11):
            threads.append(threading.Thread(target=call, args=("u",), kwargs={"patiently": False}))
            threads[-1].start()
            waiting(pool, count)
    for thread in threads:
        thread.join(30)
    assert "".join(order) == "uuuupuuuupuup"


# -- together ------------------------------------------------------------------------------------


def test_items_that_wait_are_run_together_and_each_gets_its_own_result(opened: Opened) -> None:
    pool: Pool = EnginePool(opened, processors=1)
    pool.largest_batch = 8
    (alone,) = work(open_engine(LINEAR), [row(3)])
    sizes: list[int] = []
    outcomes: dict[int, Any] = {}

    def counting(engine: Engine, rows: Sequence[Any]) -> Any:
        sizes.append(len(rows))
        return work(engine, rows)

    def call(number: int) -> None:
        try:
            outcomes[number] = pool.run(row(number), counting)
        except OutputError as error:
            outcomes[number] = error

    numbers = [*range(1, 12), -1]
    threads = [threading.Thread(target=call, args=(number,)) for number in numbers]
    with pool.borrow() as engine:
        for count, thread in enumerate(threads, 1):
            thread.start()
            waiting(pool, count)
        expected = {number: work(engine, [row(number)])[0] for number in numbers}
    for thread in threads:
        thread.join(30)
    assert sizes == [8, 4]
    assert str(outcomes.pop(-1)) == "row -1"
    for number, outcome in outcomes.items():
        np.testing.assert_array_equal(outcome, expected[number])
    np.testing.assert_array_equal(outcomes[3], alone)


def test_items_that_wait_are_shared_out_among_the_engines(pool: Pool, opened: Opened) -> None:
    pool.largest_batch = 8
    sizes: list[int] = []
    both = threading.Barrier(2)

    def counting(engine: Engine, rows: Sequence[Any]) -> Any:
        sizes.append(len(rows))
        if len(sizes) <= 2:
            both.wait(20)  # two engines have to be at work at once
        return work(engine, rows)

    threads = [threading.Thread(target=pool.run, args=(row(n), counting)) for n in range(6)]
    with ExitStack() as stack:
        stack.enter_context(ingesting())
        first, second = ExitStack(), ExitStack()
        first.enter_context(pool.borrow())
        second.enter_context(pool.borrow())
        for count, thread in enumerate(threads, 1):
            thread.start()
            waiting(pool, count)
        first.close()
        second.close()
        for thread in threads:
            thread.join(30)
    assert sum(sizes) == 6
    assert sorted(sizes[:2]) == [2, 3]
    assert len(opened.narrow) == 2


@pytest.mark.parametrize("error", [EngineError("no memory"), KeyboardInterrupt()])
def test_whose_runner_fails_is_run_by_another(opened: Opened, error: BaseException) -> None:
    pool: Pool = EnginePool(opened, processors=1)
    pool.largest_batch = 8
    failed: list[int] = []
    results: list[Any] = []

    def failing_once(engine: Engine, rows: Sequence[Any]) -> Any:
        if not failed:
            failed.append(len(rows))
            raise error
        return work(engine, rows)

    def call(number: int) -> None:
        try:
            results.append(pool.run(row(number), failing_once))
        except BaseException as raised:
            results.append(raised)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    with pool.borrow():
        for count, thread in enumerate(threads, 1):
            thread.start()
            waiting(pool, count)
    for thread in threads:
        thread.join(30)
    assert failed == [4]
    assert [result for result in results if isinstance(result, BaseException)] == [error]
    assert len(results) == 4


def test_an_engine_that_cannot_be_opened_is_an_error_for_each_and_is_tried_again(
    pool: Pool, opened: Opened
) -> None:
    opened.fail = EngineError("no such operator")
    for _ in range(5):
        with pytest.raises(EngineError, match="no such operator"):
            pool.run(row(1), work)
        with pytest.raises(EngineError), pool.for_workers(2), pool.borrow():
            pass
    opened.fail = None
    assert pool.run(row(1), work).shape == (4,)


@settings(max_examples=30, deadline=None)
@given(
    callers=st.lists(st.tuples(st.booleans(), st.integers(-2, 9)), min_size=1, max_size=12),
    processors=st.integers(1, 3),
    workers=st.integers(0, 3),
    batch=st.integers(1, 8),
)
def test_whoever_calls_gets_what_it_would_get_alone(
    callers: list[tuple[bool, int]], processors: int, workers: int, batch: int
) -> None:
    pool: Pool = EnginePool(Opened(), processors=processors)
    pool.largest_batch = batch
    engine = open_engine(LINEAR)
    wrong: list[object] = []
    start = threading.Barrier(len(callers))

    def call(patiently: bool, number: int) -> None:
        if patiently:
            step_back()
        (expected,) = work(engine, [row(number)])
        start.wait(20)
        for _ in range(5):
            try:
                result = pool.run(row(number), work)
            except OutputError as error:
                if str(error) != str(expected):
                    wrong.append(error)
            else:
                if not np.array_equal(result, expected):  # type: ignore[arg-type]
                    wrong.append(result)

    threads = [threading.Thread(target=call, args=each) for each in callers]
    with ExitStack() as stack:
        if workers:
            stack.enter_context(pool.for_workers(workers))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert pool._lent == {True: 0, False: 0}
    assert not pool._wide_lent
