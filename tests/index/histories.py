"""Any sequence of calls, as hypothesis makes it up, beside a dictionary that knows the answer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from searchlib.errors import VectorError
from searchlib.index import Subset
from tests.index.kinds import FULL, LATTICE, Kind, Model, check, check_content

EXAMPLES = 20 * (25 if FULL else 1)
STEPS = 30

# Few, so that ids meet again, and some that float64 or 32 bits do not hold.
IDS = [*range(24), 2**31, 2**32 + 1, 2**53, 2**53 + 1, 2**62, 2**63 - 1]

ids = st.lists(st.sampled_from(IDS), unique=True, max_size=14)
row = st.integers(0, len(LATTICE) - 1)
subset = st.none() | st.lists(st.sampled_from([*IDS, 25, 26, 2**40]), max_size=40).map(Subset.of)


class History(RuleBasedStateMachine):
    """The calls, and what must hold after each of them."""

    def __init__(self, kind: Kind, *, always_reopened: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.always_reopened = always_reopened
        self.index = kind.make(8)
        self.model: Model = {}

    def teardown(self) -> None:
        self.kind.close(self.index)

    def _upsert(self, ids: list[int], rows: list[int]) -> None:
        self.index.upsert(ids, LATTICE[rows])
        self.model |= {id: LATTICE[row] for id, row in zip(ids, rows, strict=True)}

    @rule(ids=ids, data=st.data())
    def upsert(self, ids: list[int], data: st.DataObject) -> None:
        self._upsert(ids, data.draw(st.lists(row, min_size=len(ids), max_size=len(ids))))

    @rule(ids=ids, row=row)
    def upsert_equal_vectors(self, ids: list[int], row: int) -> None:
        self._upsert(ids, [row] * len(ids))

    @rule(first=row, step=st.integers(1, 40))
    def upsert_all(self, first: int, step: int) -> None:
        self._upsert(IDS, [(first + step * place) % len(LATTICE) for place in range(len(IDS))])

    @rule(ids=ids)
    def remove(self, ids: list[int]) -> None:
        assert self.index.remove(ids) == len(self.model.keys() & set(ids))
        for id in ids:
            self.model.pop(id, None)

    @rule()
    def remove_all(self) -> None:
        assert self.index.remove(IDS) == len(self.model)
        self.model.clear()

    @precondition(lambda self: self.model)
    @rule(data=st.data(), row=row)
    def refused(self, data: st.DataObject, row: int) -> None:
        """Good values before the bad one: none of them may be left behind."""
        known = data.draw(st.sampled_from(sorted(self.model)))
        vectors = LATTICE[[row, row, row]]
        for wrong in ([known, 99, known], [known, 99, -1]):
            with pytest.raises(VectorError):
                self.index.upsert(wrong, vectors)
            with pytest.raises(VectorError):
                self.index.remove(wrong)
        vectors[2] = 0
        with pytest.raises(VectorError):
            self.index.upsert([known, 99, 98], vectors)
        with pytest.raises(VectorError):
            self.index.vectors([known, 99])

    @rule(
        rows=st.lists(row, min_size=1, max_size=3),
        k=st.integers(1, 40),
        among=subset,
        exact=st.booleans(),
    )
    def search(self, rows: list[int], k: int, among: Subset | None, exact: bool) -> None:
        check(self.kind, self.index, self.model, LATTICE[rows], k, among=among, exact=exact)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), k=st.integers(1, 6), among=subset)
    def search_for_a_stored_vector(self, data: st.DataObject, k: int, among: Subset | None) -> None:
        query = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        check(self.kind, self.index, self.model, query[None], k, among=among)

    @rule()
    def settle(self) -> None:
        self.kind.settle(self.index)

    @precondition(lambda self: self.kind.reopen is not None)
    @rule()
    def reopen(self) -> None:
        self.index = self.kind.reopen(self.index)

    @invariant()
    def holds_what_was_put_in(self) -> None:
        check_content(self.index, self.model)
        if self.always_reopened:
            self.index = self.kind.reopen(self.index)
            check_content(self.index, self.model)


def run_histories(kind: Kind, *, examples: int, always_reopened: bool = False) -> None:
    """Lets hypothesis look for a sequence of calls that is answered wrongly."""
    run_state_machine_as_test(
        lambda: History(kind, always_reopened=always_reopened),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
