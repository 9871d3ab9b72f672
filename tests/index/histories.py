"""Any sequence of calls, as hypothesis makes it up, beside a dictionary that knows the answer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from searchlib.errors import VectorError
from searchlib.index import Subset
from tests.index.kinds import (
    COARSE,
    FULL,
    LATTICE,
    Kind,
    Model,
    check,
    check_content,
    lattice,
    model_of,
)

EXAMPLES = 20 * (25 if FULL else 1)
STEPS = 30

# Few, so that ids meet again, and some that float64 or 32 bits do not hold.
IDS = [*range(24), 2**31, 2**32 + 1, 2**53, 2**53 + 1, 2**62, 2**63 - 1]
MANY = range(1_000, 1_250)

ids = st.lists(st.sampled_from(IDS), unique=True, max_size=14)
row = st.integers(0, len(LATTICE) - 1)
count = st.integers(1, 3) | st.integers(1, 40) | st.just(2 * len(MANY))
subset = (
    st.none()
    | st.lists(st.sampled_from([*IDS, 25, 26, 2**40]), max_size=40).map(Subset.of)
    | st.builds(range, st.integers(0, 1_100), st.integers(1_000, 1_300)).map(Subset.of)
)


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

    @initialize(many=st.booleans(), settled=st.booleans())
    def begin(self, many: bool, settled: bool) -> None:
        if many:
            self.index.upsert(MANY, lattice(len(MANY)))
            self.model |= model_of(MANY, lattice(len(MANY)))
        if settled:
            self._upsert(IDS, list(range(COARSE, COARSE + len(IDS))))
            self.kind.settle(self.index)

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
    def remove_all_but_the_many(self) -> None:
        assert self.index.remove(IDS) == len(self.model.keys() & set(IDS))
        self.model = {id: vector for id, vector in self.model.items() if id in MANY}

    @rule(first=st.sampled_from(MANY), length=st.integers(1, len(MANY)))
    def remove_some_of_the_many(self, first: int, length: int) -> None:
        gone = range(first, first + length)
        assert self.index.remove(gone) == len(self.model.keys() & set(gone))
        self.model = {id: vector for id, vector in self.model.items() if id not in gone}

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

    @rule(rows=st.lists(row, min_size=1, max_size=3), k=count, among=subset)
    def search(self, rows: list[int], k: int, among: Subset | None) -> None:
        for exact in (False, True):
            check(self.kind, self.index, self.model, LATTICE[rows], k, among=among, exact=exact)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), among=subset, settled=st.booleans())
    def search_for_a_stored_vector(
        self, data: st.DataObject, among: Subset | None, settled: bool
    ) -> None:
        if settled:
            self.kind.settle(self.index)
        query = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        for k in (1, 2, len(self.model)):
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

    @invariant()
    def finds_what_was_put_in(self) -> None:
        for k in (2, 25):
            check(self.kind, self.index, self.model, LATTICE[[0, COARSE]], k)


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
