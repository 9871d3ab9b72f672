"""The opened engines of one model, lent to one thread at a time.

There are two kinds. The *wide* engine runs on all processors: it is for whoever is alone. A
*narrow* one runs on its caller's thread: several of them side by side get more done than one after
another on all processors, and beside other work they need not wait for all their threads to be
given a processor. Both give the same outputs to the last bit.

Who has to wait stands in one of two lines, the urgent or the patient. The urgent go first, but for
a patient one now and then. Urgent callers that wait with an item each may find that another has run
it together with its own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from searchlib.encoder.priority import is_crowded, is_urgent

if TYPE_CHECKING:
    from searchlib.encoder.engine import Engine

MAX_WORKERS = 8
"""More narrow engines than that are not opened for an ingest: each has a copy of the weights."""

_URGENT_IN_A_ROW = 4

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Work: TypeAlias = "Callable[[Engine, Sequence[_Item]], Sequence[_Result | Exception]]"
"""Runs some items on an engine, and gives for each its result or why there is none."""


class _Seat:
    """The right to use an engine, which may have to be opened first."""

    __slots__ = ("engine", "urgent", "wide")

    def __init__(self, engine: Engine | None, *, wide: bool, urgent: bool) -> None:
        self.engine = engine
        self.wide = wide
        self.urgent = urgent


class _Turn(Generic[_Item, _Result]):
    """One caller's place in a line.

    Attributes:
        items: what it brought, to be run together with those of others; none or one.
        seat: what it was called to.
        mates: whose items it was asked to run with its own.
        outcome: of its item, where another ran it.
        called: that there is a seat or an outcome.
    """

    __slots__ = ("called", "items", "mates", "outcome", "seat", "urgent")

    def __init__(self, items: Sequence[_Item], *, urgent: bool) -> None:
        self.items = items
        self.urgent = urgent
        self.called = threading.Event()
        self.seat: _Seat | None = None
        self.mates: list[_Turn[_Item, _Result]] = []
        self.outcome: _Result | Exception | None = None


class EnginePool(Generic[_Item, _Result]):
    """Engines of one model, opened when they are first needed.

    Args:
        open_one: opens an engine and checks it, a narrow one for True; never called twice at once.
        processors: that this process may use; found out if None.

    Attributes:
        largest_batch: how many items may be run at once.
    """

    def __init__(self, open_one: Callable[[bool], Engine], processors: int | None = None) -> None:
        self.largest_batch = 1
        self._open_one = open_one
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._processors = processors or _processors()
        self._workers: list[int] = []
        self._wide: Engine | None = None
        self._wide_lent = False
        self._idle: list[Engine] = []
        self._lent = {True: 0, False: 0}
        self._most_urgent = 0
        self._lines: dict[bool, deque[_Turn[_Item, _Result]]] = {True: deque(), False: deque()}
        self._in_a_row = 0

    @contextmanager
    def borrow(self) -> Iterator[Engine]:
        """An engine for the time of the block; waits while all are lent.

        It is the thread that says how urgent it is: see `searchlib.encoder.priority.step_back`.
        """
        turn: _Turn[_Item, _Result] = _Turn((), urgent=is_urgent())
        self._wait_for(turn)
        try:
            yield self._engine_of(turn)
        finally:
            self._release(turn)

    def run(self, item: _Item, work: Work[_Item, _Result]) -> _Result:
        """Run one item, together with those of other urgent callers where they have to wait.

        Args:
            item: to run.
            work: the same for all callers.

        Raises:
            Exception: what `work` gave for this item.
        """
        turn: _Turn[_Item, _Result] = _Turn((item,), urgent=is_urgent())
        self._wait_for(turn)
        if turn.seat is not None:
            try:
                self._work(turn, work)
            finally:
                self._release(turn)
        if isinstance(turn.outcome, Exception):
            raise turn.outcome
        assert turn.outcome is not None
        return turn.outcome

    @contextmanager
    def for_workers(self, count: int) -> Iterator[None]:
        """Let as many threads that have stepped back run at once; without it, one.

        At the end of the block engines are let go. One stays for the next file, and as many as the
        urgent have ever used at once, so that no query has to open one because an ingest has begun.
        """
        count = max(1, min(count, MAX_WORKERS))
        with self._lock:
            self._workers.append(count)
            self._call_next()
        try:
            yield
        finally:
            with self._lock:
                self._workers.remove(count)
                self._trim()

    # -- Under the lock ------------------------------------------------------------------------

    @property
    def _patient_seats(self) -> int:
        return max(self._workers, default=1)

    @property
    def _seats(self) -> int:
        """How many narrow engines may be lent; one of them is always left to the urgent."""
        return max(self._processors, max(self._workers) + 1 if self._workers else 1)

    def _take_seat(self, turn: _Turn[_Item, _Result]) -> bool:
        """Give a turn a seat if one is free."""
        lent = sum(self._lent.values())
        if lent >= self._seats or (not turn.urgent and self._lent[False] >= self._patient_seats):
            return False
        is_alone = turn.urgent and not lent and not self._wide_lent and not is_crowded()
        if is_alone and not any(self._lines.values()) and self._processors > 1:
            turn.seat = _Seat(self._wide, wide=True, urgent=True)
            self._wide_lent = True
        else:
            engine = self._idle.pop() if self._idle else None
            turn.seat = _Seat(engine, wide=False, urgent=turn.urgent)
            self._lent[turn.urgent] += 1
            self._most_urgent = max(self._most_urgent, self._lent[True])
        return True

    def _call_next(self) -> None:
        """Call those who wait, as far as there are seats."""
        urgent, patient = self._lines[True], self._lines[False]
        while urgent or patient:
            may_be_patient = patient and self._lent[False] < self._patient_seats
            waited = may_be_patient and self._in_a_row >= _URGENT_IN_A_ROW
            line = urgent if urgent and not waited else patient
            if not line or not self._take_seat(line[0]):
                return
            turn = line.popleft()
            self._in_a_row = self._in_a_row + 1 if turn.urgent and may_be_patient else 0
            if turn.urgent and turn.items:
                self._take_mates(turn)
            turn.called.set()

    def _take_mates(self, turn: _Turn[_Item, _Result]) -> None:
        """Have a turn run the items of others as well; some are left for the other engines."""
        line = self._lines[True]
        others = [other for other in line if other.items]
        share = -(-(1 + len(others)) // self._seats)
        turn.mates = others[: min(self.largest_batch, share) - 1]
        for mate in turn.mates:
            line.remove(mate)

    def _trim(self) -> None:
        """Let go of what was opened for a `for_workers` that is over."""
        if not self._workers:
            kept = 1 + self._most_urgent - sum(self._lent.values())
            del self._idle[max(0, kept) :]

    # -- Without it ----------------------------------------------------------------------------

    def _wait_for(self, turn: _Turn[_Item, _Result]) -> None:
        """Come back when the turn has a seat or an outcome."""
        with self._lock:
            if not self._lines[turn.urgent] and self._take_seat(turn):
                return
            self._lines[turn.urgent].append(turn)
        try:
            turn.called.wait()
        except BaseException:  # interrupted: nobody may wait for this thread
            with self._lock:
                if turn in self._lines[turn.urgent]:
                    self._lines[turn.urgent].remove(turn)
                if turn.outcome is None:
                    turn.outcome = InterruptedError()  # else it might be put into a line again
            if turn.seat is not None:
                self._release(turn)
            raise

    def _engine_of(self, turn: _Turn[_Item, _Result]) -> Engine:
        seat = turn.seat
        assert seat is not None
        if seat.engine is None:
            with self._opening:
                seat.engine = self._open_one(not seat.wide)
        return seat.engine

    def _work(self, turn: _Turn[_Item, _Result], work: Work[_Item, _Result]) -> None:
        engine = self._engine_of(turn)
        turns = [turn, *turn.mates]
        outcomes = work(engine, [item for each in turns for item in each.items])
        for each, outcome in zip(turns, outcomes, strict=True):
            each.outcome = outcome

    def _release(self, turn: _Turn[_Item, _Result]) -> None:
        """Give the seat back and tell the mates; whose item was not run is called next."""
        seat, turn.seat = turn.seat, None
        assert seat is not None
        with self._lock:
            if seat.wide:
                self._wide, self._wide_lent = seat.engine, False
            else:
                self._lent[seat.urgent] -= 1
                if seat.engine is not None:
                    self._idle.append(seat.engine)
            for mate in reversed(turn.mates):
                if mate.outcome is None:
                    self._lines[True].appendleft(mate)
                else:
                    mate.called.set()
            turn.mates = []
            self._trim()
            self._call_next()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
