"""Answers against brute force over the stored vectors: scores, terms, thresholds, pages."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat
from searchlib.catalog.conditions import And, Condition, Not, Range, Tagged
from searchlib.errors import CursorError, InputError, NotFoundError, TextUnsupportedError
from searchlib.search import Answerer, LiveIndex, Match, Question, Term, Threshold
from tests.search.asked import answerer

DIMENSION = 24
COUNT = 900


def facts(number: int) -> Facts:
    return Facts(bytes=100, format="JPEG", width=number % 10 + 1, height=3)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(12, DIMENSION))
    made = centres[random.integers(0, 12, count)] + 0.6 * random.normal(size=(count, DIMENSION))
    unit: np.ndarray = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def put(catalog: Catalog, model: ModelRecord, made: np.ndarray, first: int = 0) -> None:
    files = [
        ReadFile(
            f"/{n:06}.jpg",
            Stat(1, n, n),
            n.to_bytes(32, "big"),
            None,
            NewContent(facts(n), vector),
        )
        for n, vector in enumerate(made, first)
    ]
    catalog.record(model, files, gone=lambda _: False)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path_factory.mktemp("answers"), create=True)
    yield catalog
    catalog.close()


@pytest.fixture(scope="module")
def model(catalog: Catalog) -> ModelRecord:
    model = catalog.use_model(identity="c" * 64, name="test", dimension=DIMENSION)
    made = vectors(COUNT)
    made[100:140] = made[100]  # pictures that are the same to the model
    put(catalog, model, made)
    return model


@pytest.fixture(scope="module")
def answers(catalog: Catalog, model: ModelRecord) -> Answerer:
    return answerer(catalog, model, LiveIndex(catalog, model, catalog.database.folder))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Catalog, ModelRecord, Answerer]]:
    """A small library of the test's own."""
    catalog = Catalog(tmp_path, create=True)
    model = catalog.use_model(identity="d" * 64, name="test", dimension=DIMENSION)
    put(catalog, model, vectors(60, seed=3))
    yield catalog, model, answerer(catalog, model, LiveIndex(catalog, model, tmp_path))
    catalog.close()


def ranking(catalog: Catalog, model: ModelRecord, vector: np.ndarray) -> list[tuple[int, float]]:
    """All ids and scores, best first, by brute force."""
    _, ids, stored = catalog.all_vectors(model)
    unit = stored.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scores = np.round(unit @ (vector / np.linalg.norm(vector)), 6)
    order = np.lexsort((ids, -scores))
    return [(int(ids[row]), float(scores[row])) for row in order]


def told(matches: Iterator[Match]) -> list[tuple[int, float]]:
    return [(match.image.id, match.score) for match in matches]


seeds = st.integers(0, 10_000)
quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def asked(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=DIMENSION)


@quick
@given(seeds, st.integers(1, COUNT + 5), st.integers(0, COUNT))
def test_matches_are_those_of_brute_force(
    catalog: Catalog, model: ModelRecord, answers: Answerer, seed: int, k: int, offset: int
) -> None:
    found = answers.answer(Question((Term(vector=asked(seed)),), k=k, offset=offset))
    expected = ranking(catalog, model, asked(seed))
    assert told(iter(found)) == expected[offset : offset + k]
    assert [match.rank for match in found] == list(
        range(offset + 1, offset + 1 + len(found.matches))
    )
    assert (found.cursor is None) == (offset + k >= COUNT)


def test_equal_scores_are_in_the_order_in_which_images_were_added(
    catalog: Catalog, model: ModelRecord, answers: Answerer
) -> None:
    _, ids, stored = catalog.all_vectors(model)
    found = answers.answer(Question((Term(vector=stored[110].astype(np.float32)),), k=25))
    assert [match.image.id for match in found] == ids[100:125].tolist()
    assert {match.score for match in found} == {1.0}


@quick
@given(st.lists(st.tuples(seeds, st.floats(-3, 3).filter(lambda w: abs(w) > 0.1)), max_size=4))
def test_the_shares_of_the_terms_add_up_to_the_score(
    catalog: Catalog,
    model: ModelRecord,
    answers: Answerer,
    more: list[tuple[int, float]],
) -> None:
    terms = (Term(vector=asked(1)), *(Term(vector=asked(n), weight=w) for n, w in more))
    found = answers.answer(Question(terms, k=20))
    whole = sum(
        term.weight * asked(n) / np.linalg.norm(asked(n))
        for term, n in zip(terms, [1, *(n for n, _ in more)], strict=True)
    )
    expected = ranking(catalog, model, whole)
    for match, (_, score) in zip(found, expected, strict=False):
        assert match.score == pytest.approx(score, abs=2e-6)
        assert sum(each.share for each in match.terms) == pytest.approx(match.score, abs=5e-6)
        assert [each.weight for each in match.terms] == [term.weight for term in terms]


@quick
@given(seeds, st.floats(-0.5, 0.9))
def test_a_threshold_gives_all_that_reach_it_and_nothing_else(
    catalog: Catalog, model: ModelRecord, answers: Answerer, seed: int, least: float
) -> None:
    found = answers.answer(
        Question((Term(vector=asked(seed)),), k=None, threshold=Threshold(least))
    )
    assert told(iter(found)) == [
        each for each in ranking(catalog, model, asked(seed)) if each[1] >= least
    ]
    assert found.cursor is None
    assert found.least == least


def test_a_percentile_is_turned_into_the_cosine_of_this_library(
    catalog: Catalog, model: ModelRecord, answers: Answerer
) -> None:
    found = answers.answer(
        Question((Term(vector=asked(5)),), k=None, threshold=Threshold(95.0, "percentile"))
    )
    assert found.least is not None
    expected = [each for each in ranking(catalog, model, asked(5)) if each[1] >= found.least]
    assert told(iter(found)) == expected
    background = answers.backgrounds.pairs()
    assert background is not None
    assert found.least == pytest.approx(background.cosine(95.0))
    for match in found:
        assert match.percentile is not None
        assert match.percentile >= 95.0 - 1e-3


@quick
@given(seeds, st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_pages_follow_each_other_without_a_gap_or_a_match_twice(
    catalog: Catalog, model: ModelRecord, answers: Answerer, seed: int, sizes: list[int]
) -> None:
    expected, cursor = ranking(catalog, model, asked(seed)), None
    seen: list[tuple[int, float]] = []
    for size in sizes:
        page = answers.answer(Question((Term(vector=asked(seed)),), k=size, cursor=cursor))
        assert [match.rank for match in page] == [len(seen) + n + 1 for n in range(len(page))]
        seen += told(iter(page))
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == expected[: len(seen)]
    assert len(seen) == min(sum(sizes), COUNT)


def test_images_that_are_added_between_two_pages_do_not_move_them(
    own: tuple[Catalog, ModelRecord, Answerer],
) -> None:
    catalog, model, answers = own
    term = Term(vector=asked(7))
    expected = ranking(catalog, model, asked(7))
    first = answers.answer(Question((term,), k=20))
    # The best of all, and some by chance.
    best = (asked(7) / np.linalg.norm(asked(7))).astype(np.float32)
    put(catalog, model, np.concatenate([best[None], vectors(30, seed=9)]), first=1000)
    second = answers.answer(Question((term,), k=20, cursor=first.cursor))
    third = answers.answer(Question((term,), k=30, cursor=second.cursor))
    assert told(iter([*first, *second, *third])) == expected
    assert third.cursor is None
    assert answers.answer(Question((term,), k=1))[0].score == 1.0


def test_images_that_go_between_two_pages_leave_the_rest_in_its_place(
    own: tuple[Catalog, ModelRecord, Answerer],
) -> None:
    catalog, model, answers = own
    term = Term(vector=asked(7))
    expected = ranking(catalog, model, asked(7))
    first = answers.answer(Question((term,), k=20))
    gone = [first[3], first[19]]
    catalog.places.mark_missing([match.path for match in gone])
    second = answers.answer(Question((term,), k=40, cursor=first.cursor))
    assert told(iter(second)) == expected[20:]


def test_a_cursor_belongs_to_its_question(
    own: tuple[Catalog, ModelRecord, Answerer],
) -> None:
    _, _, answers = own
    cursor = answers.answer(Question((Term(vector=asked(7)),), k=20)).cursor
    for question in (
        Question((Term(vector=asked(8)),), cursor=cursor),
        Question((Term(vector=asked(7)),), cursor=cursor, threshold=Threshold(0.1)),
        Question((Term(vector=asked(7)),), cursor=cursor, where=Tagged("x")),
        Question((Term(vector=asked(7)),), cursor=cursor, collapse=True),
    ):
        with pytest.raises(CursorError):
            answers.answer(question)


# -- conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (Range("width", 3, 3), lambda n: n % 10 == 2),
        (Range("width", 2, None), lambda n: n % 10 != 0),
        (And((Range("width", 5, 5), Range("height", 3, 3))), lambda n: n % 10 == 4),
        (Not(Range("width", 1, 9)), lambda n: n % 10 == 9),
        (Range("width", 50, None), lambda _: False),
        (And(()), lambda _: True),
    ],
)
@pytest.mark.parametrize("k", [1, 10, 500])
def test_conditions_leave_out_what_does_not_meet_them(
    catalog: Catalog, model: ModelRecord, answers: Answerer, where: Condition, kept: object, k: int
) -> None:
    _, ids, _ = catalog.all_vectors(model)
    numbers = {int(id): n for n, id in enumerate(ids)}
    for seed in (1, 2):
        found = answers.answer(Question((Term(vector=asked(seed)),), k=k, where=where))
        expected = [
            each
            for each in ranking(catalog, model, asked(seed))
            if kept(numbers[each[0]])  # type: ignore[operator]
        ]
        assert told(iter(found)) == expected[:k]


def test_what_is_tagged_is_found_at_once(own: tuple[Catalog, ModelRecord, Answerer]) -> None:
    catalog, model, answers = own
    question = Question((Term(vector=asked(1)),), k=5, where=Tagged("beach"))
    assert list(answers.answer(question)) == []
    chosen = [id for id, _ in ranking(catalog, model, asked(1))][::7]
    for count in (1, 3, len(chosen)):
        catalog.labels.tag(chosen[:count], ["Beach"])
        assert [m.image.id for m in answers.answer(question)] == chosen[:count][:5]
    catalog.labels.untag(chosen[1:], ["beach"])
    assert [m.image.id for m in answers.answer(question)] == chosen[:1]


# -- what cannot be asked ------------------------------------------------------------------------


def test_a_stored_image_is_not_its_own_match(
    catalog: Catalog, model: ModelRecord, answers: Answerer
) -> None:
    _, ids, stored = catalog.all_vectors(model)
    found = answers.answer(Question((Term(stored=int(ids[7])),), k=50))
    expected = ranking(catalog, model, stored[7].astype(np.float64))
    assert told(iter(found)) == [each for each in expected if each[0] != ids[7]][:50]
    with pytest.raises(NotFoundError, match="987654"):
        answers.answer(Question((Term(stored=987654),)))


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Question(()), "empty"),
        (Question((Term(),)), "one of"),
        (Question((Term(stored=1, text="dog"),)), "one of"),
        (Question((Term(stored=1, weight=0.0),)), "weight"),
        (Question((Term(stored=1, weight=float("nan")),)), "weight"),
        (Question((Term(stored=1, weight=-1.0),)), "unlike"),
        (Question((Term(stored=1), Term(stored=1, weight=-1.0))), "take each other away"),
        (Question((Term(vector=[0.0] * DIMENSION),)), "no direction"),
        (Question((Term(vector=[float("inf")] * DIMENSION),)), "no direction"),
        (Question((Term(vector=[1.0]),)), "24 dimensions"),
        (Question((Term(vector=["x"] * DIMENSION),)), "not numbers"),  # type: ignore[list-item]
        (Question((Term(stored=1),), k=0), "at least 1"),
        (Question((Term(stored=1),), k=None), "how many"),
        (Question((Term(stored=1),), offset=-1), "offset"),
        (Question((Term(stored=1),), offset=1, cursor="x"), "exclude"),
        (Question((Term(stored=1),), threshold=Threshold(1.5)), "-1 to 1"),
        (Question((Term(stored=1),), threshold=Threshold(float("nan"))), "-1 to 1"),
        (Question((Term(stored=1),), threshold=Threshold(101, "percentile")), "0 to 100"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    answers: Answerer, question: Question, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        answers.answer(question)


def test_words_need_a_model_that_knows_them(answers: Answerer) -> None:
    with pytest.raises(TextUnsupportedError, match="models use clip"):
        answers.answer(Question((Term(text="dog"),)))


# -- nearly identical pictures -------------------------------------------------------------------


def test_pictures_that_are_nearly_identical_are_one_match_where_that_is_asked(
    catalog: Catalog, model: ModelRecord, answers: Answerer
) -> None:
    _, ids, stored = catalog.all_vectors(model)
    term = Term(vector=stored[100].astype(np.float32))
    found = answers.answer(Question((term,), k=5, collapse=True))
    assert found[0].image.id == ids[100]
    assert [*found[0].alike] == [f"/{n:06}.jpg" for n in range(101, 140)]
    unit = stored.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows = {int(id): row for row, id in enumerate(ids)}
    shown = np.stack([unit[rows[match.image.id]] for match in found])
    assert (np.triu(shown @ shown.T, 1) < 0.98).all()
