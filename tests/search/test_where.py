"""Conditions as a text: what each field takes, how conditions join, and what each mistake says."""

import os
import re
from contextlib import closing, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import searchlib
from searchlib.catalog import Catalog
from searchlib.catalog.conditions import (
    And,
    Below,
    Box,
    Camera,
    Format,
    Glob,
    Has,
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
from searchlib.errors import WhereError
from searchlib.search.where import format_where, parse_where
from searchlib.search.where.fields import FIELDS

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
NOW = datetime(2024, 6, 15, 10, 30)
A, B, C = Tagged("a"), Tagged("b"), Tagged("c")


PAGE = (Path(__file__).parents[2] / "docs" / "filters.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^\| `([^`]+)` \| (.*) \|$", PAGE, re.MULTILINE)
MISTAKES = re.findall(r"^```text\n(.*)\n( *\^+)\n(.*)\n```$", PAGE, re.MULTILINE)


def parse(text):
    return parse_where(text, now=NOW, folder="/home/me/photos")


def mistake(text):
    """The word that is marked, and the reason."""
    with pytest.raises(WhereError) as caught:
        parse(text)
    error = caught.value
    assert error.text == text
    assert "\n" not in str(error)
    return text[error.start : error.end], error.reason


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tag:a", A),
        ("tag:a tag:b", And((A, B))),
        ("tag:a and tag:b", And((A, B))),
        ("TAG:a AND Tag:b", And((A, B))),
        ("tag:a or tag:b", Or((A, B))),
        ("tag:a or tag:b tag:c", Or((A, And((B, C))))),
        ("(tag:a or tag:b) tag:c", And((Or((A, B)), C))),
        ("tag:a(tag:b)tag:c", And((Tagged("a(tag:b)tag:c"),)).parts[0]),
        ("not tag:a", Not(A)),
        ("-tag:a", Not(A)),
        ("!tag:a", Not(A)),
        ("- tag:a tag:b", And((Not(A), B))),
        ("not not tag:a", A),
        ("not -!tag:a", Not(A)),
        ("not (tag:a tag:b) or tag:c", Or((Not(And((A, B))), C))),
        ("tag!=a", Not(A)),
        ("tag != a", Not(A)),
        ("tag = a", A),
        ("tag : a", A),
        ("tag:a,b", Or((A, B))),
        ("tag:a, b", Or((A, B))),
        ("tag!=a,b", Not(Or((A, B)))),
        ("tag:a,b tag:c", And((Or((A, B)), C))),
        ("((((tag:a))))", A),
        ("", And(())),
        (" \n\t ", And(())),
        ("all", And(())),
        ("none", Or(())),
        ("not none", And(())),
        ("tag:a or none", A),
        ("tag:a and none", Or(())),
        ("tag:a or all", And(())),
    ],
)
def test_conditions_join_as_the_words_between_them_say(text, meant):
    assert parse(text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('tag:"a b"', "a b"),
        ("tag:'a b'", "a b"),
        ("tag:it's", "it's"),
        (r'tag:"say \"hi\""', 'say "hi"'),
        (r"tag:a\ b", "a b"),
        (r"tag:a\\b", r"a\b"),
        (r"tag:a\b", r"a\b"),
        ('tag:a" "b', "a b"),
        ('tag:"a,b"', "a,b"),
        (r"tag:a\,b", "a,b"),
        ('tag:")"', ")"),
        ("tag:f(x)", "f(x)"),
        ("(tag:f(x))", "f(x)"),
        ('tag:"and"', "and"),
        ("tag:and", "and"),
        ("tag:1..2", "1..2"),
        ("tag:a:b=c", "a:b=c"),
        ('tag:"c*"', "c*"),
        ("tag:Łódź", "Łódź"),
        ("tag:-a", "-a"),
    ],
)
def test_quotes_and_backslashes_make_any_text_a_value(text, meant):
    assert parse(text) == Tagged(meant)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("folder:/photos", Below("/photos")),
        ("folder:/photos/", Below("/photos")),
        ("folder:/", Below("/")),
        ("folder://photos//2024/./x/..", Below("/photos/2024")),
        ('folder:"/my photos"', Below("/my photos")),
        ("folder:./2024", Below("/home/me/photos/2024")),
        ("folder:../2024", Below("/home/me/2024")),
        ("folder:.", Below("/home/me/photos")),
        ("folder:..", Below("/home/me")),
        ('folder:"./my trip"', Below("/home/me/photos/my trip")),
        ("folder:2024", Glob("2024")),
        ("folder:2024/trip/", Glob("2024/trip")),
        ("folder:.hidden", Glob(".hidden")),
        ("folder:/photos/20*", Glob("/photos/20*")),
        ('folder:"/my photos/20*"', Glob("/my photos/20*")),
        ("folder:**/raw", Glob("**/raw")),
        ("folder:20[12]?", Glob("20[12]?")),
        ("folder:./20*", Glob("/home/me/photos/20*")),
        (r"folder:/photos/\[2024\]*", Glob("/photos/[[]2024\\]*")),
        (r'folder:"/photos \[2024]"', Below("/photos [2024]")),
        (r"folder:what\?", Glob("what[?]")),
        ("folder!=/photos", Not(Below("/photos"))),
        ("name:IMG_*.jpg", Name("IMG_*.jpg")),
        ("name:IMG(1).jpg", Name("IMG(1).jpg")),
        ('name:"my picture *"', Name("my picture *")),
        (r"name:\*", Name("[*]")),
        ("camera:canon", Camera("canon")),
        ('camera:"EOS R5",leica', Or((Camera("EOS R5"), Camera("leica")))),
        ("format:jpg", Format(frozenset({"JPEG"}))),
        ("format:JPEG,.heic,tif", Format(frozenset({"JPEG", "HEIF", "TIFF"}))),
        ("format!=raw", Not(Format(frozenset({"RAW"})))),
        ("orientation:portrait", Shape("portrait")),
        ("shape:Square", Shape("square")),
        ("has:date", Has("date")),
        ("has:place,camera", Or((Has("place"), Has("camera")))),
        ("near:48.85,2.35,10km", Near(48.85, 2.35, 10_000.0)),
        ("near:-33.9, 18.4, 500m", Near(-33.9, 18.4, 500.0)),
        ("near:48.85,2.35,1mi", Near(48.85, 2.35, 1609.344)),
        ("near:48.85,2.35,0.3km", Near(48.85, 2.35, 300.0)),
        ("box:47.2,5.9,55.1,15.1", Box(47.2, 5.9, 55.1, 15.1)),
        ("box:-50,160,-30,-170", Box(-50, 160, -30, -170)),
    ],
)
def test_a_field_takes_its_values(text, meant):
    assert parse(text) == meant


def test_a_tilde_is_a_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/[me]")
    assert parse("folder:~") == Below("/home/[me]")
    assert parse('folder:"~/My Pictures"') == Below("/home/[me]/My Pictures")
    assert parse("folder:~/20*") == Glob("/home/[[]me]/20*")
    assert parse(r"folder:\~") == Glob("~")
    assert mistake("folder:~nobody-of-this-name/x")[0] == "~nobody-of-this-name/x"


@pytest.mark.parametrize(
    ("text", "of", "least", "most"),
    [
        ("width:1920", "width", 1920, 1920),
        ("width:1920px", "width", 1920, 1920),
        ("width>1920", "width", 1921, None),
        ("width>=1920", "width", 1920, None),
        ("width:>=1920", "width", 1920, None),
        ("width<1920", "width", None, 1919),
        ("width <= 1920", "width", None, 1920),
        ("height:100..200", "height", 100, 200),
        ("height:100..", "height", 100, None),
        ("height:..200", "height", None, 200),
        ("height:100..<200", "height", 100, 199),
        ("side>=4000", "length", 4000, None),
        ("size>5MB", "bytes", 5_000_001, None),
        ("size>=5mb", "bytes", 5_000_000, None),
        ("size<5MiB", "bytes", None, 5 * 1024**2 - 1),
        ("size<=1.5k", "bytes", None, 1500),
        ("size:700", "bytes", 700, 700),
        ("size:5MB", "bytes", 4_500_000, 5_499_999),
        ("size:5.0MB", "bytes", 4_950_000, 5_049_999),
        ('size:"5 MB"', "bytes", 4_500_000, 5_499_999),
        ("size:1..5MB", "bytes", 1_000_000, 5_000_000),
        ("size:500kB..1GB", "bytes", 500_000, 1_000_000_000),
        ("size:0.0001kB..", "bytes", 1, None),
        ("mp:12", "pixels", 11_500_000, 12_499_999),
        ("mp:12.2", "pixels", 12_150_000, 12_249_999),
        ("mp:12.2MP", "pixels", 12_150_000, 12_249_999),
        ("mp>=12", "pixels", 11_500_000, None),
        ("mp>12", "pixels", 12_500_000, None),
        ("mp<12", "pixels", None, 11_499_999),
        ("mp<=12", "pixels", None, 12_499_999),
        ("mp:8..12", "pixels", 7_500_000, 12_499_999),
        ("mp:8..<12", "pixels", 7_500_000, 11_499_999),
        ("mp:0.3", "pixels", 250_000, 349_999),
        ("mp:0", "pixels", 0, 499_999),
    ],
)
def test_amounts_have_units_ranges_and_comparisons(text, of, least, most):
    assert parse(text) == Range(of, least, most)


@given(st.decimals("0.01", 1000, places=2), st.integers(0, 2_000_000_000))
@settings(max_examples=200)
def test_less_equal_and_more_than_some_megapixels_are_all_that_there_are(number, pixels):
    def holds(condition):
        least, most = condition.least, condition.most
        return (least is None or least <= pixels) and (most is None or pixels <= most)

    less, equal, more = (holds(parse(f"mp{sign}{number}")) for sign in "<:>")
    assert [less, equal, more].count(True) == 1
    assert holds(parse(f"mp>={number}")) == (equal or more)
    assert holds(parse(f"mp<={number}")) == (equal or less)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("key.place:Paris", Value("place", "Paris")),
        ("key.place=Paris", Value("place", "Paris")),
        ("key.place!=Paris", Not(Value("place", "Paris"))),
        ("key.rating:4", Value("rating", "4")),
        ("key.rating:*", Value("rating", None)),
        ('key.rating:"*"', Value("rating", "*")),
        ('key.note:""', Value("note", "")),
        ("key.rating>=4", Number("rating", 4, None)),
        ("key.rating>4", Number("rating", 4, None, False)),
        ("key.rating<=-1.5e3", Number("rating", None, -1500)),
        ("key.rating<4", Number("rating", None, 4, True, False)),
        ("key.rating:3..5", Number("rating", 3, 5)),
        ("key.rating:3..<5", Number("rating", 3, 5, True, False)),
        ("key.rating:..5", Number("rating", None, 5)),
        ("key.rating:..", Number("rating", None, None)),
        ('key.range:"3..5"', Value("range", "3..5")),
        ('key."my key":x', Value("my key", "x")),
        ("key.exif.iso>=800", Number("exif.iso", 800, None)),
        ("key.rating:4,5", Or((Value("rating", "4"), Value("rating", "5")))),
    ],
)
def test_keys_of_ones_own_are_texts_or_numbers(text, meant):
    assert parse(text) == meant


@pytest.mark.parametrize(
    ("text", "word", "reason"),
    [
        ("fodler:x", "fodler", "did you mean folder?"),
        ("tag:a heigth>3", "heigth", "did you mean height?"),
        ("date:2024", "date", "did you mean taken?"),
        ("gps:1,2,3km", "gps", "did you mean near?"),
        ("qqq:1", "qqq", "the fields are folder, name, taken"),
        ("https://example.org/a.jpg", "https", "a URL is no condition"),
        ("beach", "beach", "to search for words use text, or tag:beach"),
        ('"dog on a beach"', '"dog on a beach"', 'use text, or tag:"dog on a beach"'),
        ("tag:a beach", "beach", "put a value with spaces into quotes, or write tag:beach"),
        ("width 100", "width", "Write width>=1920"),
        ("camra", "camra", "did you mean camera?"),
        ("size>5 MB", "MB", "number and its unit together"),
        ("IMG_1.jpg", "IMG_1.jpg", "write name:IMG_1.jpg"),
        ("~/Pictures", "~/Pictures", "write folder:~/Pictures"),
        ("2024-06", "2024-06", "write taken:2024-06"),
        ("taken:2024-01 .. 2024-06", "..", "together, as in taken:2024-01..2024-06"),
        ("tag:a && tag:b", "&&", "write and"),
        ("tag:a || tag:b", "||", "write or"),
        ("tag:a , tag:b", ",", "write or"),
        ("tag:", "tag:", "a value is missing; write tag:beach"),
        ("tag: ", "tag:", "a value is missing"),
        ("(tag:)", "tag:", "a value is missing"),
        ("tag: and tag:b", "tag:", "a value is missing"),
        ("taken: tag:b", "taken:", "a value is missing; write taken:2024-06"),
        ("tag:a,", "tag:a,", "a value is missing"),
        ("tag:,a", "tag:", "a value is missing"),
        ('tag:""', '""', "a value is missing"),
        ("tag:a and", "and", "needs a condition behind it"),
        ("tag:a and or tag:b", "and", "needs a condition behind it"),
        ("tag:a or )", "or", "needs a condition behind it"),
        ("or tag:a", "or", "stands between two conditions"),
        ("not", "not", "needs a condition behind it"),
        ("tag:a -", "-", "needs a condition behind it"),
        ("(tag:a", "(", "write ) at its end"),
        ("(", "(", "write ) at its end"),
        ("tag:a)", ")", "no ( stands before this"),
        ("()", ")", "a condition is missing"),
        ("tag:f(x", "(", "not closed"),
        ('tag:a tag:"b c', '"b c', 'write " where the value ends'),
        ("tag:'b c", "'b c", "write ' where the value ends"),
        ("camera>canon", ">", "camera knows no more and less"),
        ("tag<=a", "<=", "tag knows no more and less"),
        ("width=>100", "=>", "write >="),
        ("width==100", "==", "write ="),
        ("width<>100", "<>", "write !="),
        ("name~x", "~", "write :"),
        ("tag:b*", "b*", "tags have no patterns"),
        ("width:abc", "abc", "width is a number of pixels"),
        ("width:-5", "-5", "never below 0"),
        ("width<0", "0", "never below 0"),
        ("width:1.5", "1.5", "whole number"),
        ("width:5cm", "5cm", "no unit 'cm'; write px"),
        ("size>5XB", "5XB", "no unit 'XB'; write B, kB, MB"),
        ("size>99999999999999TB", "99999999999999TB", "too large"),
        ("width:200..100", "200..100", "write 100..200"),
        ("size:10..5MB", "10..5MB", "write 5MB..10MB"),
        ("mp:12..8", "12..8", "write 8..12"),
        ("width:5..<5", "5..<5", "write 5..5"),
        ("width>1..2", "1..2", "width is a number of pixels"),
        ("width>1,2", "1,2", "> takes one value"),
        ("width:100..x", "x", "width is a number"),
        ("near:48.85,2.35", "48.85,2.35", "latitude,longitude,distance"),
        ("near:91,2,1km", "91", "between -90 and 90"),
        ("near:48,181,1km", "181", "between -180 and 180"),
        ("near:48N,2,1km", "48N", "number of degrees"),
        ("near:48,2,10", "10", "10km, 10m or 10mi"),
        ("near:48,2,10yd", "10yd", "no unit 'yd'"),
        ("near:48,2,-1km", "-1km", "0 or more"),
        ("near>48,2,1km", ">", "knows no more and less"),
        ("box:1,2,3", "1,2,3", "south,west,north,east"),
        ("box:5,2,1,3", "5,2,1,3", "ends south of where it begins"),
        ("format:jepg", "jepg", "did you mean jpg?"),
        ("format:jpg,xyz", "xyz", "write jpeg, png"),
        ("format:NEF", "NEF", "write format:raw or name:*.nef"),
        ("has:gps", "gps", "write place"),
        ("has:money", "money", "date, place, camera, tag"),
        ("shape:portrat", "portrat", "did you mean portrait?"),
        ("name:a/b", "a/b", "a file name has no /"),
        ("name:[ab", "[", r"write \[ for the character itself"),
        ("folder:/x/[a/b]", "[", r"write \[ for the character itself"),
        ("folder:x/../..", "x/../..", "names no folder"),
        ("name:[\u0100-\u8000]", "[\u0100-\u8000]", "a range may have"),
        ("key:4", "key", "Write its name: key.rating>=4"),
        ("key.:4", "key.", "Write its name"),
        ("width.max:4", "width.max", "nothing behind a dot"),
        ("key.rating>good", "good", "not a number"),
        ("key.rating:a..b", "a", "not a number"),
        ("key.rating:5..3", "5..3", "write 3..5"),
        ("key.rating>1e999", "1e999", "too large"),
        ("tag:a\0b", "\0", "NUL"),
        ("tag:\udc80", "\udc80", "no valid text"),
        ("folder:\ud800", "\ud800", "no valid text"),
        ('key."\udc80":x', 'key."\udc80"', "no valid text"),
    ],
)
def test_a_mistake_marks_the_wrong_word_and_says_what_to_write(text, word, reason):
    marked, said = mistake(text)
    assert marked == word
    assert reason in said


def test_bytes_that_are_no_text_can_be_in_paths_as_they_can_on_disk():
    assert parse("folder:/x\udcff") == Below("/x\udcff")
    assert parse("name:\udcff*") == Name("\udcff*")


def test_a_relative_folder_without_a_place_that_it_is_relative_to_is_refused():
    with pytest.raises(WhereError, match="not known what this is relative to"):
        parse_where("folder:./x")


def test_the_mark_stands_under_the_word():
    with pytest.raises(WhereError) as caught:
        parse("tag:a\theigth>3")
    assert caught.value.pointed().splitlines()[:2] == ["tag:a heigth>3", "      ^^^^^^"]


def test_what_nests_or_goes_on_without_end_is_refused():
    deep = "(" * 8 + "tag:a" + ")" * 8
    assert parse(deep) == A
    assert "nest" in mistake(f"({deep})")[1]
    assert "10,000" in mistake("(" * 100_000)[1]
    assert "10,000" in mistake("tag:a " * 20_000)[1]
    assert parse("!" * 9_000 + "tag:a") == A
    assert "500" in mistake(" ".join(["tag:a"] * 501))[1]
    assert "500" in mistake("tag:" + ",".join("a" * 501))[1]
    assert len(parse("tag:" + ",".join("a" * 500)).parts) == 500


def test_a_long_wrong_word_is_marked_at_its_beginning():
    with pytest.raises(WhereError) as caught:
        parse("x" * 9_000)
    assert len(str(caught.value)) < 300


def test_all_that_is_parsed_can_be_asked_of_a_catalog(tmp_path):
    deepest = [" ".join(["size>1"] * 500), f"tag:{','.join('a' * 500)}"]
    for innermost in ("tag:a", "tag!=a,b", "name!=a*,b*", "near:1,2,3km", "key.a:1..2", "side<2"):
        nested = innermost
        for _ in range(8):
            nested = f"{innermost} or {innermost} not ({nested})"
        deepest.append(nested)
    with closing(Catalog(tmp_path / "library", create=True)) as catalog:
        for text in (*deepest, *(example for example, _ in EXAMPLES)):
            assert catalog.selection.ids(parse(text)).tolist() == []


def test_conditions_choose_the_photographs_that_they_describe(photos, tmp_path):
    with searchlib.open_library(tmp_path / "library") as library:
        library.add(photos)
    with closing(Catalog(tmp_path / "library", create=False)) as catalog:

        def chosen(text):
            condition = parse_where(text, folder=str(photos))
            images = catalog.images(catalog.selection.ids(condition).tolist())
            return sorted(Path(image.paths[0]).name for image in images.values())

        everything = chosen("")
        pngs = sorted(path.name for path in photos.glob("*.png"))
        assert chosen("format:png") == chosen("name:*.PNG") == pngs
        assert chosen("name:cat.jpg") == ["cat.jpg"]
        assert chosen("folder:.") == chosen(f'folder:"{photos}"') == everything
        assert chosen("folder:./none") == []
        assert sorted(chosen("-format:png") + pngs) == everything
        # Midnight may come between the two.
        assert chosen("added>=yesterday modified:2000..") == everything
        assert chosen("added<yesterday") == chosen("modified:@0..<2000-01-01") == []
        assert chosen("has:tag or has:place") == []


SCRAPS = (
    *("folder", "name", "taken", "modified", "added", "near", "box", "camera", "format", "width"),
    *("height", "side", "mp", "size", "tag", "has"),
    *("key", "key.", 'key."a', "shape", "and", "or", "not", "all", "none", " ", "(", ")", "-", "!"),
    *(":", "=", "!=", "<", "<=", ">", ">=", "==", "..", "..<", ",", '"', "'", "\\", "*", "?", "["),
    *(
        "]",
        "~",
        "/",
        "./",
        "../",
        "2024",
        "2024-06",
        "2024-02-30",
        "T10:30",
        "today",
        "last 30 days",
    ),
    *("this week", "5", "5MB", "1.5", "-1", "km", "jpg", "portrait", "beach", "@5", "Z", "+02:00"),
    *("1e999", "\0", "\udc80", "\ud800", "\n", "é", "漢", "9999", "1000", "9998-12-31", "inf"),
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.one_of(st.sampled_from(SCRAPS), st.text(max_size=3)), max_size=30).map("".join),
)


def parses_or_marks_a_word(text):
    try:
        condition = parse(text)
    except WhereError as error:
        pointed = error.pointed()
        within = 0 <= error.start <= error.end <= len(text)
        lines = (str(error).count("\n"), pointed.count("\n"))
        return within and bool(error.reason) and lines == (0, 2)
    return parse(format_where(condition)) == condition


@given(TEXTS)
@settings(max_examples=5_000 if FULL else 400, deadline=None)
def test_no_text_does_anything_but_parse_or_mark_a_word_in_it(text):
    assert parses_or_marks_a_word(text)


# Ten thousand texts of the grammar's own words, which hypothesis alone would take long to draw.
@given(st.integers(0, 2**32))
@settings(max_examples=2_000 if FULL else 100, deadline=None)
def test_no_row_of_the_words_of_conditions_does_anything_else(seed):
    random = Random(seed)
    for _ in range(100):
        words = random.choices(SCRAPS, k=random.randrange(1, 13))
        text = random.choice(("", " ")).join(words)
        assert parses_or_marks_a_word(text), text


FRAMES = (
    *("taken:{}", "modified>={}", "added:{}..{}", "taken:{}..<{}", "size:{}..{}", "mp<={}"),
    *("width:{}", "key.a:{}..{}", "key.a>{}", "near:{},{},{}km", "box:{},{},{},{}", "tag:{},{}"),
    *("folder:{}", "name:{}*", "format:{}", "has:{}", "camera:{}", "({} or tag:a) {}"),
)


@given(st.integers(0, 2**32))
@settings(max_examples=500 if FULL else 30, deadline=None)
def test_no_value_of_a_field_does_anything_else(seed):
    random = Random(seed)
    for _ in range(100):
        frame = random.choice(FRAMES)
        values = (
            random.choice((*SCRAPS, str(random.randrange(10**4)), repr(random.gauss(0, 100))))
            for _ in range(4)
        )
        text = frame.format(*values)
        assert parses_or_marks_a_word(text), text


@given(st.lists(st.sampled_from(["(", ")", "not ", "-", "tag:a ", "or ", "and "]), max_size=400))
@settings(max_examples=100, deadline=None)
def test_no_nesting_exhausts_the_stack(parts):
    with suppress(WhereError):
        parse("".join(parts))


def test_each_example_of_the_page_on_filters_is_read_and_written_again():
    assert len(EXAMPLES) > 80
    assert len(EXAMPLES) == sum(line.startswith("| `") for line in PAGE.splitlines())
    for example, _ in EXAMPLES:
        condition = parse(example)
        assert parse(format_where(condition)) == condition, example


def test_what_the_page_on_filters_calls_the_same_is_the_same():
    compared = 0
    for (before, _), (example, meaning) in pairwise(EXAMPLES):
        if meaning.startswith("the same") and "home" not in meaning:
            compared += 1
            assert parse(example) == parse(before) or "field" in meaning, example
    assert compared > 5


def test_each_mistake_of_the_page_on_filters_says_what_the_page_says():
    assert len(MISTAKES) == PAGE.count("```text")
    for text, mark, reason in MISTAKES:
        with pytest.raises(WhereError) as caught:
            parse(text)
        assert caught.value.pointed() == f"{text}\n{mark}\n{reason}"


def test_the_page_on_filters_names_every_field():
    assert [field for field in FIELDS if f"`{field}" not in PAGE] == []


def test_taken_and_a_range_of_two_folders_are_one_question():
    meant = And((Glob("2024*"), Taken("2024-06", "2024-09"), Or((Camera("canon"), A))))
    assert parse("folder:2024* taken:2024-06..2024-08 (camera:canon or tag:a)") == meant
