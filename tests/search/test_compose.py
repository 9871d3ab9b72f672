"""The arguments of a call become terms, thresholds and conditions."""

import numpy as np
import pytest

from searchlib.catalog import conditions
from searchlib.errors import InputError, WhereError
from searchlib.search import Term, Threshold, compose, threshold_of


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (0.8, Threshold(0.8)),
        ("0.8", Threshold(0.8)),
        ("-0.25", Threshold(-0.25)),
        ("99%", Threshold(99.0, "percentile")),
        (" 99.95 % ", Threshold(99.95, "percentile")),
        ("p99.9", Threshold(99.9, "percentile")),
        (Threshold(1.0), Threshold(1.0)),
        (1, Threshold(1.0)),
        (None, None),
    ],
)
def test_a_similarity_is_a_cosine_or_a_percentile(given: object, meant: object) -> None:
    assert threshold_of(given) == meant  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["much", "", "%", "p", "99%%", "0,8", True])
def test_what_is_no_similarity_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="no similarity"):
        threshold_of(given)  # type: ignore[arg-type]


def test_each_thing_that_is_asked_becomes_a_term_of_its_kind() -> None:
    vector = np.eye(3)[0]
    pixels = np.zeros((2, 2, 3), np.uint8)
    question = compose([3, "a.jpg", vector, pixels, Term(text="dog", weight=2.0)])
    kinds = [
        (term.stored, term.image is not None, term.vector is not None, term.text)
        for term in question.terms
    ]
    assert kinds == [
        (3, False, False, None),
        (None, True, False, None),
        (None, False, True, None),
        (None, True, False, None),
        (None, False, False, "dog"),
    ]


def test_what_it_should_be_unlike_counts_below_zero() -> None:
    question = compose(text=["dog", "beach"], like="a.jpg", unlike=["b.jpg", Term(stored=4)])
    assert [term.weight for term in question.terms] == [1, 1, 1, -1, -1]


def test_true_is_no_image() -> None:
    with pytest.raises(InputError, match="no images"):
        compose(True)


def test_conditions_are_taken_in_words_and_as_they_are() -> None:
    meant = conditions.Tagged("beach")
    assert compose(1, where="tag:beach").where == meant
    assert compose(1, where=meant).where == meant
    assert compose(1, where="  ").where is None
    with pytest.raises(WhereError):
        compose(1, where="tagg:beach")
