"""Queries go first: what an ingest does meanwhile, and that it still gets on."""

import os
import sys
import threading
import time

import pytest

from searchlib.encoder import priority
from searchlib.encoder.priority import (
    give_way,
    ingesting,
    is_crowded,
    is_urgent,
    querying,
    step_back,
)
from searchlib.ingest.intake import in_order


def in_thread(act: object) -> threading.Thread:
    thread = threading.Thread(target=act)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_an_ingest_waits_until_the_last_query_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LONGEST_WAIT", 60.0)
    went_on = threading.Event()

    def step() -> None:
        give_way()
        went_on.set()

    with querying():
        with querying():
            thread = in_thread(step)
            assert not went_on.wait(0.1)
        assert not went_on.wait(0.1)
    assert went_on.wait(20)
    thread.join()


def test_an_ingest_gets_on_beside_a_query_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LONGEST_WAIT", 0.01)
    steps: list[int] = []

    def work() -> None:
        for step in range(5):
            give_way()
            steps.append(step)

    with querying():
        thread = in_thread(work)
        thread.join(20)
        assert steps == [0, 1, 2, 3, 4]


def test_nobody_waits_where_no_query_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LONGEST_WAIT", 60.0)
    with pytest.raises(ZeroDivisionError), querying():
        raise ZeroDivisionError
    thread = in_thread(give_way)
    thread.join(20)
    assert not thread.is_alive()


def test_an_ingest_or_a_second_query_is_a_crowd() -> None:
    assert not is_crowded()
    with querying():
        assert not is_crowded()
        with querying():
            assert is_crowded()
        with ingesting():
            assert is_crowded()
    assert not is_crowded()


def test_only_the_thread_that_steps_back_is_patient() -> None:
    seen: list[bool] = []

    def work() -> None:
        seen.append(is_urgent())
        step_back()
        seen.append(is_urgent())

    in_thread(work).join()
    assert seen == [True, False]
    assert is_urgent()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux only")
@pytest.mark.parametrize("lower", [False, True])
def test_only_the_thread_that_steps_back_gets_a_lower_priority(lower: bool) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    seen: list[int] = []

    def work() -> None:
        step_back(lower=lower)
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    in_thread(work).join()
    assert seen == [min(before + 10, 19) if lower else before]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.parametrize("background", [False, True])
def test_the_threads_of_an_ingest_step_back_and_those_in_the_background_further(
    background: bool,
) -> None:
    def look(_: int) -> tuple[bool, int]:
        return is_urgent(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    lowered = min(before + 10, 19) if background and sys.platform == "linux" else before
    assert set(in_order(look, range(8), 2, background=background)) == {(False, lowered)}
    assert look(0) == (True, before)


def test_many_steps_and_queries_at_once_all_come_to_their_end() -> None:
    def ask() -> None:
        for _ in range(50):
            with querying():
                time.sleep(0.0005)

    def work() -> None:
        for _ in range(5):
            give_way()

    threads = [in_thread(each) for each in (ask, ask, work, work, work)]
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not is_crowded()
