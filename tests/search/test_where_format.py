"""Conditions written as text: what is written is read as the same."""

import os
import string
from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.catalog.conditions import (
    And,
    Below,
    Box,
    Camera,
    Format,
    Glob,
    Has,
    Moment,
    Name,
    Near,
    Not,
    Number,
    Or,
    Range,
    Shape,
    Tagged,
    Taken,
    Value,
)
from searchlib.errors import InputError
from searchlib.search.where import format_where, parse_where
from searchlib.search.where.dates import iso_bound
from searchlib.search.where.normal import normalised
from searchlib.search.where.values import FORMATS

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"

ODD = " \t\n\"'\\*?[]!()~,.:=<>-+@/|&"
WORDS = st.one_of(
    st.text(alphabet=ODD + string.ascii_letters + string.digits, min_size=1, max_size=12),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
    ),
    st.sampled_from(["and", "or", "not", "all", "none", "..", "a..b", "..<", "*", "today", "it's"]),
)
NAMES = st.one_of(
    WORDS.map(lambda word: word.replace("/", "")).filter(lambda word: word not in ("", ".", "..")),
    st.sampled_from(
        ["\udcff", "a\udc80b", "[2024]", "~", "~me", "[!a]*", "**", "[]]", "[", "x[a-"]
    ),
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
DATES = st.datetimes(min_value=datetime(1000, 1, 1)).filter(lambda moment: moment.year < 9998)
BOUNDS = st.one_of(
    DATES.map(iso_bound),
    DATES.map(lambda moment: moment.isoformat()),
    st.dates(date(1000, 1, 1)).map(lambda day: day.isoformat()),
    st.integers(1000, 9998).map(str),
    st.tuples(st.integers(1000, 9998), st.integers(1, 12)).map(
        lambda pair: f"{pair[0]}-{pair[1]:02}"
    ),
).filter(lambda bound: bound < "9999")
SECONDS = st.one_of(
    st.floats(-1e12, 1e12),
    st.integers(-(10**10), 10**10).map(float),
    st.integers(0, 20_000).map(lambda day: day * 86_400.0),
)
AMOUNTS = st.one_of(
    st.integers(0, 2**62), st.integers(-5, 30_000), st.integers(0, 500).map(lambda n: n * 500_000)
)
NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9).map(float))


def limits(values):
    return st.tuples(st.one_of(st.none(), values), st.one_of(st.none(), values))


TERMS = st.one_of(
    PATHS.map(lambda path: Below(f"/{path}")),
    st.just(Below("/")),
    PATHS.map(Glob),
    PATHS.map(lambda path: Glob(f"/{path}")),
    NAMES.map(Name),
    limits(BOUNDS).map(lambda ends: Taken(*ends)),
    st.builds(
        lambda of, ends: Moment(of, *ends), st.sampled_from(["modified", "added"]), limits(SECONDS)
    ),
    st.builds(
        lambda of, ends: Range(of, *ends),
        st.sampled_from(["width", "height", "pixels", "bytes", "length"]),
        limits(AMOUNTS),
    ),
    st.builds(Near, st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 1e8)),
    st.builds(
        lambda a, west, b, east: Box(min(a, b), west, max(a, b), east),
        *(st.floats(-90, 90), st.floats(-180, 180)) * 2,
    ),
    WORDS.map(Camera),
    st.frozensets(st.sampled_from(sorted(set(FORMATS.values())))).map(Format),
    st.sampled_from(["landscape", "portrait", "square"]).map(Shape),
    st.sampled_from(["date", "place", "camera", "tag"]).map(Has),
    WORDS.map(Tagged),
    st.builds(Value, WORDS, st.one_of(st.none(), st.just(""), WORDS)),
    st.builds(
        lambda key, ends, low, high: Number(key, *ends, low, high),
        *(WORDS, limits(NUMBERS), st.booleans(), st.booleans()),
    ),
)
TREES = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: And(tuple(parts))),
        st.lists(inner, max_size=4).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=10,
)


@given(TREES)
@settings(max_examples=10_000 if FULL else 200, deadline=None)
def test_what_is_written_is_read_as_the_same_condition(tree):
    text = format_where(tree)
    assert parse_where(text) == normalised(tree)
    assert format_where(parse_where(text)) == text


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_the_one_form_has_no_other(tree):
    once = normalised(tree)
    assert normalised(once) == once
    assert normalised(Not(Not(tree))) == once
    assert normalised(And((Or((tree,)),))) == once


def holds(condition, truths):
    """Whether a condition holds, where each tag does or does not."""
    match condition:
        case And(parts):
            return all(holds(part, truths) for part in parts)
        case Or(parts):
            return any(holds(part, truths) for part in parts)
        case Not(part):
            return not holds(part, truths)
        case Tagged(tag):
            return truths[tag]
        case _:
            raise AssertionError(condition)


LOGIC = st.recursive(
    st.sampled_from([*map(Tagged, "abcd"), And(()), Or(())]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=12,
)


@given(LOGIC, st.fixed_dictionaries({tag: st.booleans() for tag in "abcd"}))
@settings(max_examples=100, deadline=None)
def test_a_condition_that_was_written_and_read_holds_for_the_same_images(tree, truths):
    assert holds(parse_where(format_where(tree)), truths) == holds(tree, truths)


NUMBER_TREES = st.builds(
    lambda ends, low, high: Number("k", *ends, low, high),
    *(limits(st.integers(0, 6).map(float)), st.booleans(), st.booleans()),
)


@given(NUMBER_TREES)
@settings(max_examples=200)
def test_a_range_of_a_key_that_was_written_and_read_holds_the_same_numbers(number):
    def within(condition, at):
        match condition:
            case And(parts):
                return all(within(part, at) for part in parts)
            case Or(()):
                return False
            case Number(_, least, most, least_included, most_included):
                low = least is None or at > least or (least_included and at == least)
                return low and (most is None or at < most or (most_included and at == most))

    read = parse_where(format_where(number))
    for half in range(-2, 16):
        assert within(read, half / 2) == within(number, half / 2)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (And(()), ""),
        (Or(()), "none"),
        (Not(And(())), "none"),
        (And((Tagged("a"), Or((Tagged("b"), Tagged("c"))))), "tag:a and (tag:b or tag:c)"),
        (Or((Tagged("a"), And((Tagged("b"), Tagged("c"))))), "tag:a or tag:b and tag:c"),
        (Not(Or((Tagged("a"), Tagged("b")))), "not (tag:a or tag:b)"),
        (Below("/my photos"), 'folder:"/my photos"'),
        (Below("/photos/[2024]"), 'folder:"/photos/\\[2024]"'),
        (Glob("20*"), "folder:20*"),
        (Name("my *"), 'name:"my *"'),
        (Taken("2024", "2025"), "taken:2024"),
        (Taken("2024", "2024-07"), "taken:2024-01..2024-06"),
        (Taken("2024-06-03", "2024-06-10"), "taken:2024-06-03..2024-06-09"),
        (Taken("2024-06-03T10:30", "2025"), "taken:2024-06-03T10:30..<2025"),
        (Taken("2024", None), "taken>=2024"),
        (Taken(None, "2024-06"), "taken<2024-06"),
        (Moment("added", 0.0, 86400.0), "added:1970-01-01T00:00:00Z..<1970-01-02T00:00:00Z"),
        (Moment("modified", 1e14, None), "modified>=@100000000000000"),
        (Range("pixels", 11_500_000, 12_499_999), "mp:12"),
        (Range("pixels", 12_000_000, None), "mp>=12.000000"),
        (Range("bytes", 5_000_001, None), "size>=5000001"),
        (Range("length", 7, 7), "side:7"),
        (Range("width", 2, 1), "none"),
        (Near(48.85, 2.35, 1609.344), "near:48.85,2.35,1609.344m"),
        (Camera("EOS R5"), 'camera:"EOS R5"'),
        (Camera(""), "has:camera"),
        (Format(frozenset({"PNG", "JPEG"})), "format:jpeg,png"),
        (Value("place", "Paris"), "key.place:Paris"),
        (Value("place", None), "key.place:*"),
        (Value("place", "*"), 'key.place:"*"'),
        (Value("my key", "a..b"), 'key."my key":"a..b"'),
        (Number("rating", 3, 5), "key.rating:3..5"),
        (Number("rating", 3, 5, False, False), "key.rating>3 and key.rating<5"),
    ],
)
def test_conditions_are_written_as_a_person_would(condition, text):
    assert format_where(condition) == text


def test_what_could_not_be_read_again_is_not_written():
    deep = Tagged("a")
    for level in range(40):
        deep = And((Tagged("b"), Or((Tagged(str(level)), deep))))
    with pytest.raises(InputError, match="nested more than 8 deep"):
        format_where(deep)
    for _ in range(100_000):
        deep = Not(deep)
    with pytest.raises(InputError, match="nested more than 200 deep"):
        format_where(deep)
    with pytest.raises(InputError, match="finite"):
        format_where(Near(float("nan"), 0, 1))
