"""Which images meet a condition: the same in each database as in plain Python."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from searchlib.catalog import Catalog, earth
from searchlib.catalog.conditions import (
    And,
    Below,
    Box,
    Camera,
    Condition,
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
from searchlib.catalog.conditions_sql import DEEPEST
from searchlib.catalog.folding import folded_camera
from searchlib.catalog.schema import File, Image, table
from searchlib.catalog.spans import shortest
from searchlib.errors import InputError
from tests.catalog.places import Place, emptied


@dataclass(frozen=True)
class Picture:
    """An image, its files (path, state, time of change in nanoseconds) and its labels."""

    files: tuple[tuple[str, str, int], ...] = ()
    bytes: int = 10
    format: str | None = "JPEG"
    width: int = 4
    height: int = 3
    taken_at: str | None = None
    make: str | None = None
    model: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    added_at: float = 0.0
    tags: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()


def fill(catalog: Catalog, pictures: list[Picture]) -> list[int]:
    """Write pictures and give their ids, which rise."""
    with catalog.database.writing() as connection:
        for id, picture in enumerate(pictures, 1):
            row = {
                "id": id,
                "digest": id.to_bytes(32),
                "bytes": picture.bytes,
                "format": picture.format,
                "width": picture.width,
                "height": picture.height,
                "taken_at": picture.taken_at,
                "camera_make": picture.make,
                "camera_model": picture.model,
                "latitude": picture.latitude,
                "longitude": picture.longitude,
                "added_at": picture.added_at,
                "camera": folded_camera(picture.make, picture.model),
            }
            connection.execute(table(Image).insert(), row)
            for path, state, mtime_ns in picture.files:
                place = {"image_id": id, "path": path, "state": state, "mtime_ns": mtime_ns}
                where = {"size": 1, "inode": 1, "checked_at": 0.0}
                connection.execute(table(File).insert(), {**place, **where})
    for id, picture in enumerate(pictures, 1):
        if picture.files and picture.tags:
            catalog.labels.tag([id], picture.tags)
        if picture.files and picture.properties:
            catalog.labels.put([id], dict(picture.properties))
    return list(range(1, len(pictures) + 1))


# -- the oracle ----------------------------------------------------------------------------------


def meets(picture: Picture, condition: Condition) -> bool:
    match condition:
        case And(parts):
            return all(meets(picture, part) for part in parts)
        case Or(parts):
            return any(meets(picture, part) for part in parts)
        case Not(part):
            return not meets(picture, part)
        case Below() | Glob() | Name():
            return any(is_meant(path, condition) for path, _ in present(picture))
        case Moment("modified", since, before):
            return any(
                is_between(Fraction(mtime_ns, 10**9), since, before)
                for _, mtime_ns in present(picture)
            )
        case Moment(_, since, before):
            return is_between(Fraction(picture.added_at), since, before)
        case Taken(since, before):
            taken = clock(picture.taken_at) if picture.taken_at else None
            return (
                taken is not None
                and (since is None or taken >= clock(since))
                and (before is None or taken < clock(before))
            )
        case Range(of, least, most):
            amount = {
                "width": picture.width,
                "height": picture.height,
                "pixels": picture.width * picture.height,
                "bytes": picture.bytes,
                "length": max(picture.width, picture.height),
            }[of]
            return (least is None or amount >= least) and (most is None or amount <= most)
        case Near(latitude, longitude, distance):
            return is_near(picture, latitude, longitude, distance)
        case Box(south, west, north, east):
            if picture.latitude is None or picture.longitude is None:
                return False
            after, until = picture.longitude >= west, picture.longitude <= east
            between = (after and until) if west <= east else (after or until)
            nonsense = any(map(math.isnan, (south, west, north, east)))
            return not nonsense and south <= picture.latitude <= north and between
        case Camera(text):
            camera = " ".join(part for part in (picture.make, picture.model) if part)
            return bool(camera) and "\0" not in text and text.casefold() in camera.casefold()
        case Format(names):
            return picture.format in names
        case Shape(of):
            shape = (picture.width > picture.height) - (picture.width < picture.height)
            return {"landscape": 1, "square": 0, "portrait": -1}[of] == shape
        case Has(of):
            known = {
                "date": picture.taken_at is not None,
                "place": picture.latitude is not None and picture.longitude is not None,
                "camera": bool(picture.make or picture.model),
                "tag": bool(picture.tags),
            }
            return known[of]
        case Tagged(tag):
            return tag.casefold() in {each.casefold() for each in picture.tags}
        case Value(key, text):
            found = value_of(picture, key)
            return found is not None and (text is None or found.casefold() == text.casefold())
        case Number(key, least, most, least_included, most_included):
            try:
                number = float(value_of(picture, key) or "")
            except ValueError:
                return False
            return (
                math.isfinite(number)
                and (least is None or number > least or (least_included and number == least))
                and (most is None or number < most or (most_included and number == most))
            )


def present(picture: Picture) -> list[tuple[str, int]]:
    return [(path, mtime_ns) for path, state, mtime_ns in picture.files if state == "present"]


def is_between(moment: Fraction, since: float | None, before: float | None) -> bool:
    return (since is None or moment >= since) and (before is None or moment < before)


def clock(text: str) -> tuple[Fraction, ...]:
    """A moment without its offset, as numbers."""
    date, _, time = text.partition("T")
    time = time.partition("+")[0].partition("-")[0]
    given = [*date.split("-"), *(time.split(":") if time else [])]
    first = ["1", "1", "1", "0", "0", "0"]
    return tuple(Fraction(part) for part in given + first[len(given) :])


def is_near(picture: Picture, latitude: float, longitude: float, distance: float) -> bool:
    if picture.latitude is None or picture.longitude is None or not distance >= 0:
        return False
    if not (-90 <= latitude <= 90 and math.isfinite(longitude)):
        return False
    # By the angle between two directions in space.
    ours, theirs = (
        (math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a))
        for a, b in (
            map(math.radians, (picture.latitude, picture.longitude)),
            map(math.radians, (latitude, longitude)),
        )
    )
    return 2 * math.asin(min(1.0, math.dist(ours, theirs) / 2)) * 6371008.8 <= distance


def value_of(picture: Picture, key: str) -> str | None:
    return {name.casefold(): value for name, value in picture.properties}.get(key.casefold())


def is_meant(path: str, condition: Below | Glob | Name) -> bool:
    match condition:
        case Below(folder):
            return path.startswith(folder.rstrip("/") + "/")
        case Name(pattern):
            return fnmatchcase(path.rpartition("/")[2].lower(), pattern.lower())
        case Glob(pattern):
            wanted = [part for part in pattern.split("/") if part]
            if not pattern.startswith("/"):
                wanted.insert(0, "**")
            return names(wanted, path.split("/")[1:-1])


def names(wanted: list[str], folders: list[str]) -> bool:
    """Whether patterns of folders name the first of some folders."""
    if not wanted:
        return True
    if wanted[0] == "**":
        return any(names(wanted[1:], folders[skip:]) for skip in range(len(folders) + 1))
    return bool(folders) and fnmatchcase(folders[0], wanted[0]) and names(wanted[1:], folders[1:])


# -- what there may be ---------------------------------------------------------------------------

# The last ones are no characters of UTF-8: a byte alone, and one that begins a character.
LETTERS = ["a", "A", "b", "é", "É", "日", "-", ".", "%", "_", "[", "\\", "\n", "\udcff", "\udcc3"]
NAMES = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4)
FOLDERS = st.lists(NAMES, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts))
PATHS = st.tuples(FOLDERS, NAMES).map(lambda both: f"{both[0]}/{both[1]}")
PIECES = st.sampled_from([*LETTERS, "*", "*", "?", "[ab]", "[!aé]", "[a-c]", "[é日]", "[", "]"])
PATTERNS = st.lists(PIECES, min_size=1, max_size=5).map("".join)
GLOBS = st.builds(
    lambda root, parts: root + "/".join(parts),
    st.sampled_from(["", "/"]),
    st.lists(PATTERNS | st.just("**"), min_size=1, max_size=3),
)
WORDS = st.sampled_from(["beach", "Beach", "Straße", "STRASSE", "a b", "É", "x" * 200])
KEYS = st.sampled_from(["rating", "Rating", "who"])
VALUES = st.sampled_from(["5", "5.0", "-1.5", "1e3", "1e999", "nan", "five", "Five", "0x5"])
TAKEN = st.sampled_from(
    [
        "2023-12-31T23:59:59.999999",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00+02:00",
        "2024-06-01T10:30:00",
        "2024-06-01T10:30:00.500000-07:00",
        "2024-06-01T10:30:00.120000",
        "2024-10-10T10:10:10",
    ]
)
MOMENTS = TAKEN.map(lambda text: text[:26].partition("+")[0]) | st.sampled_from(
    ["2024", "2025", "2024-01", "2024-06", "2024-06-01", "2024-06-01T10:30", "2024-10-10T00:00",
     "2024-10-10T10:10:10", "2024-06-01T10:30:00.5", "2024-06-01T10:30:00.12", "2024-01-01T00"]
)  # fmt: skip
LATITUDES = st.sampled_from([-90.0, -89.9, -33.9, 0.0, 48.85, 48.86, 89.99, 90.0])
LONGITUDES = st.sampled_from([-180.0, -179.95, -0.1, 0.0, 2.35, 151.2, 179.95, 180.0])
FLOATS = st.floats() | st.sampled_from([-1.5, 0.0, 0.1, 5.0, 1000.0, 1e300, math.inf, math.nan])
SECONDS = st.none() | FLOATS
NANOSECONDS = st.sampled_from([-1, 0, 1, 99999999, 100000000, 100000001, 5 * 10**9, 2**62])
AMOUNTS = st.none() | st.integers(-1, 13) | st.sampled_from([50_000**2, 2**63 - 1, 2**63, -(2**70)])
SIDES = st.integers(1, 4) | st.just(50_000)

PICTURES = st.builds(
    Picture,
    files=st.lists(
        st.tuples(
            PATHS, st.sampled_from(["present", "present", "missing", "offline"]), NANOSECONDS
        ),
        max_size=3,
    ).map(tuple),
    bytes=st.integers(0, 12) | st.just(2**40),
    format=st.sampled_from([None, "JPEG", "PNG"]),
    width=SIDES,
    height=SIDES,
    taken_at=st.none() | TAKEN,
    make=st.sampled_from([None, "", "Canon", "CANON Inc.", "Ä"]),
    model=st.sampled_from([None, "EOS 5D", "straße"]),
    latitude=st.none() | LATITUDES,
    longitude=st.none() | LONGITUDES,
    added_at=st.sampled_from([0.0, 0.1, 5.0]),
    tags=st.lists(WORDS, max_size=2).map(tuple),
    properties=st.dictionaries(KEYS, VALUES, max_size=2).map(lambda d: tuple(d.items())),
)


def of_one_path(pictures: list[Picture]) -> list[Picture]:
    """The same without the files at paths that another file lies at, and labels without files."""
    seen: set[str] = set()
    result = []
    for picture in pictures:
        files = []
        for file in picture.files:
            if file[0] not in seen:
                seen.add(file[0])
                files.append(file)
        result.append(replace(picture, files=tuple(files)))
        if not files:
            result[-1] = replace(result[-1], tags=(), properties=())
    return result


LEAVES: st.SearchStrategy[Condition] = st.one_of(
    FOLDERS.map(lambda folder: Below(folder or "/")),
    GLOBS.map(Glob),
    PATTERNS.map(Name),
    st.builds(Taken, st.none() | MOMENTS, st.none() | MOMENTS),
    st.builds(Moment, st.sampled_from(["modified", "added"]), SECONDS, SECONDS),
    st.builds(
        Range, st.sampled_from(["width", "height", "pixels", "bytes", "length"]), AMOUNTS, AMOUNTS
    ),
    st.builds(
        Near,
        LATITUDES | st.sampled_from([91.0, math.nan]),
        LONGITUDES | st.sampled_from([190.0, math.inf]),
        # None of them is the distance of two of the places to a few metres.
        st.sampled_from([-1.0, 1.0, 1500.0, 10_500.0, 6.1e6, 19e6, 1e9, math.inf, math.nan]),
    ),
    st.builds(
        Box,
        LATITUDES | st.just(math.nan),
        LONGITUDES,
        LATITUDES | st.just(math.inf),
        LONGITUDES | st.just(-math.inf),
    ),
    st.sampled_from(["canon", "CANON EOS", "", " ", "STRASSE", "ä", "%", "\0", "\ud800"]).map(
        Camera
    ),
    st.frozensets(st.sampled_from(["JPEG", "PNG", "\0", "\ud800"])).map(Format),
    st.sampled_from([Shape("landscape"), Shape("portrait"), Shape("square")]),
    st.sampled_from([Has("date"), Has("place"), Has("camera"), Has("tag")]),
    (WORDS | st.sampled_from(["", "\0", "\ud800"])).map(Tagged),
    st.builds(Value, KEYS, st.none() | VALUES | st.just("FIVE")),
    st.builds(Number, KEYS, SECONDS, SECONDS, st.booleans(), st.booleans()),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: And(tuple(parts))),
        st.lists(inner, max_size=4).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(
    pictures=st.lists(PICTURES, max_size=8).map(of_one_path),
    asked=st.lists(LEAVES | CONDITIONS, min_size=1, max_size=12),
    limit=st.integers(0, 4),
)
def test_a_condition_means_the_same_as_in_plain_python(
    shared_catalog: Catalog, pictures: list[Picture], asked: list[Condition], limit: int
) -> None:
    selection = emptied(shared_catalog).selection
    ids = fill(shared_catalog, pictures)
    there = [id for id, picture in zip(ids, pictures, strict=True) if present(picture)]
    assert selection.ids(None).tolist() == there
    assert selection.count(None) == len(there)
    for condition in asked:
        expected = [id for id in there if meets(pictures[id - 1], condition)]
        found = selection.ids(condition)
        assert found.tolist() == expected, condition
        assert found.dtype == np.int64
        assert selection.among([*ids, 10**9], condition) == set(expected), condition
        assert selection.count(condition) == len(expected)
        for most in (0, 1, 3):
            assert len(expected) <= most or not selection.is_rare(condition, most), condition
        assert selection.page(condition, limit=limit) == expected[::-1][:limit]
        middle = len(pictures) // 2
        assert selection.page(condition, after=middle, limit=9, newest_first=False) == [
            id for id in expected if id > middle
        ]
        assert selection.page(condition, after=middle, limit=9) == [
            id for id in reversed(expected) if id < middle
        ]
        test = selection.path_test(condition)
        if isinstance(condition, Below | Glob | Name):
            assert test is not None
            for picture in pictures:
                for path, _ in present(picture):
                    assert test(path) == is_meant(path, condition), (condition, path)


def picture(path: str, **facts: Any) -> Picture:
    return Picture(files=((path, "present", 1),), **facts)


PHOTOS = [
    "/photos/2024/06/IMG_1.JPG",
    "/photos/2024/07-sea/img_2.jpeg",
    "/photos/2023/06/Émile?.png",
    "/photos/2023 old/a.jpg",
    "/photos2/2024.jpg",
    "/a.jpg",
    "/photos/20[24]/b.jpg",
    "/photos/caf\udce9/c.jpg",
]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Below("/photos"), [1, 2, 3, 4, 7, 8]),
        (Below("/photos/2024"), [1, 2]),
        (Below("/"), [1, 2, 3, 4, 5, 6, 7, 8]),
        (Below("/photos/2024/06/IMG_1.JPG"), []),
        (Below("/photos/caf\udce9"), [8]),
        (Below("/photos/caf\ud800"), []),
        (Below("/photos\0"), []),
        (Glob("2024"), [1, 2]),
        (Glob("2024/06"), [1]),
        (Glob("202?"), [1, 2, 3]),
        (Glob("/photos/*/06"), [1, 3]),
        (Glob("/*/06"), []),
        (Glob("/**/06"), [1, 3]),
        (Glob("photos/**/06/"), [1, 3]),
        (Glob("/photos?"), [5]),
        (Glob("PHOTOS"), []),
        (Glob("20[[]24]"), [7]),
        (Glob("caf?"), [8]),
        (Glob("caf??"), []),
        (Glob("[!p]*"), [1, 2, 3, 4, 7, 8]),
        (Glob("a\0b"), []),
        (Glob("[!\ud800]af?"), [8]),
        (Glob("**"), [1, 2, 3, 4, 5, 6, 7, 8]),
        (Glob("*"), [1, 2, 3, 4, 5, 7, 8]),
        (Name("*.jpg"), [1, 4, 5, 6, 7, 8]),
        (Name("*.jp*g"), [1, 2, 4, 5, 6, 7, 8]),
        (Name("img_?.*"), [1, 2]),
        (Name("émile[?].png"), [3]),
        (Name("É*"), [3]),
        (Name("?.jpg"), [4, 6, 7, 8]),
        (Name("06/IMG_1.JPG"), []),
        (Name("*"), [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
    ids=repr,
)
def test_folders_and_names_are_found_by_pattern(
    shared_catalog: Catalog, condition: Condition, expected: list[int]
) -> None:
    catalog = emptied(shared_catalog)
    fill(catalog, [picture(path) for path in PHOTOS])
    assert catalog.selection.ids(condition).tolist() == expected
    assert catalog.selection.among(range(20), condition) == set(expected)


@pytest.mark.parametrize("kind", [Glob, Name])
def test_patterns_that_could_take_for_ever_do_not(
    shared_catalog: Catalog, kind: type[Glob] | type[Name]
) -> None:
    catalog = emptied(shared_catalog)
    fill(catalog, [picture("/" + "a" * 200 + "/" + "a" * 200), picture("/b/" * 50 + "a")])
    for pattern in ("a*" * 499 + "b", "?" * 999, "*?" * 499, "[!é]*" * 199, "é" * 1000):
        try:
            assert catalog.selection.ids(kind(pattern)).tolist() in ([], [1])
        except InputError:
            # PostgreSQL would take too long.
            assert not catalog.database.is_sqlite
    assert catalog.selection.ids(Glob("**/" * 300 + "c")).tolist() == []
    assert catalog.selection.ids(Glob("**/b/" * 20 + "c")).tolist() == []
    for refused in ("*" * 1001, "[\u0100-\uffff]"):
        with pytest.raises(InputError, match="pattern"):
            catalog.selection.ids(kind(refused))


def test_a_place_is_near_across_the_180th_meridian_and_the_poles(shared_catalog: Catalog) -> None:
    catalog = emptied(shared_catalog)
    places = [(0.0, 179.9), (0.0, -179.9), (89.95, 0.0), (89.95, 180.0), (60.0, 10.0), (60.0, 11.7)]
    fill(
        catalog,
        [picture(f"/{n}", latitude=at[0], longitude=at[1]) for n, at in enumerate(places)],
    )
    selection = catalog.selection
    assert selection.ids(Near(0, 180, 12_000)).tolist() == [1, 2]
    assert selection.ids(Near(0, -179.9, 12_000)).tolist() == [2]
    assert selection.ids(Near(89.96, 90, 12_000)).tolist() == [3, 4]
    # On the parallel of 60 degrees a degree of longitude is half as long as at the equator.
    assert selection.ids(Near(60, 10, 95_000)).tolist() == [5, 6]
    assert selection.ids(Near(60, 10, 94_000)).tolist() == [5]
    assert selection.ids(Box(-1, 179, 1, -179)).tolist() == [1, 2]
    assert selection.ids(Box(-1, -180, 1, -179.95)).tolist() == []


@given(latitude=st.floats(-90, 90), longitude=st.floats(-180, 180), metres_=st.floats(0, 2.1e7),
       bearing=st.floats(0, 6.3), part=st.floats(0, 1))  # fmt: skip
def test_no_place_that_is_near_is_out_of_bounds(
    latitude: float, longitude: float, metres_: float, bearing: float, part: float
) -> None:
    bounds = earth.around(latitude, longitude, metres_)
    assert bounds is not None
    # Where one comes to that goes straight on, along a great circle.
    angle, north = metres_ * part / earth.RADIUS, math.radians(latitude)
    sine = math.sin(north) * math.cos(angle) + math.cos(north) * math.sin(angle) * math.cos(bearing)
    there = math.asin(max(-1.0, min(1.0, sine)))
    turn = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(north),
        math.cos(angle) - math.sin(north) * math.sin(there),
    )
    east = (longitude + math.degrees(turn) + 180) % 360 - 180
    to_north = math.degrees(there)
    # Beyond the place that is farthest away one comes nearer again.
    half = math.pi * earth.RADIUS
    away = half - abs(half - metres_ * part)
    assert abs(earth.metres(latitude, longitude, to_north, east) - away) < 5
    assert bounds.south <= to_north <= bounds.north
    if bounds.west <= bounds.east:
        assert bounds.west <= east <= bounds.east
    else:
        assert east >= bounds.west or east <= bounds.east


WORST: list[Condition] = [
    Below("/photos"),
    Glob("2024*/?é"),
    Name("*?é"),
    Taken("2024", "2025"),
    Moment("modified", 1.0, 2.0),
    Range("length", 1, 2),
    Near(48.0, 2.0, 1e4),
    Box(1.0, 2.0, 3.0, 1.0),
    Camera("canon"),
    Format(frozenset(["JPEG"])),
    Has("place"),
    Tagged("beach"),
    Value("a", "b"),
    Number("a", 1, 2),
]


def test_a_question_of_many_terms_is_answered(shared_catalog: Catalog) -> None:
    catalog = emptied(shared_catalog)
    (id,) = fill(catalog, [picture("/a", width=9, height=9, format="PNG")])
    selection = catalog.selection
    most = tuple(WORST[number % len(WORST)] for number in range(500))
    assert selection.ids(Or(most)).tolist() == []
    assert selection.among([id], Not(Or(most))) == {id}
    # As deep as SQLite's tree of one expression can be.
    deepest = Or((WORST[5],) * (500 - DEEPEST) + (nested(DEEPEST - 1, WORST[5]),))
    assert selection.count(deepest) == len(selection.among([id], deepest))
    with pytest.raises(InputError, match="more than 500"):
        selection.ids(And((And(most), WORST[0])))


def nested(depth: int, leaf: Condition) -> Condition:
    result = leaf
    for level in range(depth - 1):
        if level % 3:
            parts = (Tagged("x"), result)
            result = And(parts) if level % 2 else Or(parts)
        else:
            result = Not(result)
    return result


def test_a_question_that_is_nested_deeply_is_answered_and_one_too_deeply_refused(
    shared_catalog: Catalog,
) -> None:
    selection = emptied(shared_catalog).selection
    fill(shared_catalog, [one := picture("/a/b")])

    def deep_in_calls(calls: int) -> None:
        if calls:
            deep_in_calls(calls - 1)
        else:
            for leaf in (Has("tag"), Near(1, 2, 3), Below("/")):
                for condition in (nested(DEEPEST, leaf), Not(nested(DEEPEST - 1, leaf))):
                    assert selection.count(condition) == meets(one, condition)

    deep_in_calls(200)
    for depth in (DEEPEST + 1, 100_000):
        for ask in (selection.ids, selection.count, selection.path_test):
            with pytest.raises(InputError, match="nested more than"):
                ask(nested(depth, Name("a")))


def test_the_version_differs_after_any_commit_and_only_then(catalog: Catalog, place: Place) -> None:
    fill(catalog, [picture("/a")])
    selection = catalog.selection
    seen = [selection.version()]
    if catalog.database.is_sqlite:
        # Other databases of a server of PostgreSQL may count too.
        catalog.images([1])
        assert selection.version() == seen[0]
    with closing(place.open()) as other:
        for change in (
            lambda: catalog.labels.tag([1], ["a"]),
            lambda: other.labels.tag([1], ["b"]),
            lambda: other.put_setting("a", "b"),
            lambda: catalog.places.mark_missing(["/a"]),
        ):
            thread = threading.Thread(target=change)
            thread.start()
            thread.join()
            seen.append(selection.version())
    assert len(set(seen)) == len(seen)


def test_the_version_can_be_asked_from_many_threads(catalog: Catalog) -> None:
    fill(catalog, [picture("/a")])
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(catalog.selection.version) for _ in range(200)]
        found = {future.result() for future in futures}
    if catalog.database.is_sqlite:
        assert len(found) == 1


def test_images_are_found_at_their_paths(catalog: Catalog) -> None:
    files = (("/a", "present", 1), ("/b\udcff", "present", 1), ("/gone", "missing", 1))
    fill(catalog, [Picture(files=files), picture("/c")])
    find = catalog.selection.find
    assert find(["/a", "/b\udcff", "/c", "/gone", "/no"]) == {"/a": 1, "/b\udcff": 1, "/c": 2}
    assert find([]) == {}
    assert find([*(f"/x/{n}" for n in range(2000)), "/c"]) == {"/c": 2}


@pytest.mark.parametrize(
    ("condition", "meant"),
    [
        (None, None),
        (Tagged("a"), None),
        (And(()), None),
        (Below("/a"), ["/a/x.jpg", "/a/y.png"]),
        (And((Tagged("t"), Below("/a"), Name("*.jpg"))), ["/a/x.jpg"]),
        (Or((Tagged("t"), Below("/a"))), ["/a/x.jpg", "/a/y.png", "/b/x.jpg"]),
        (Or((Below("/b"), Name("*.png"))), ["/a/y.png", "/b/x.jpg"]),
        (Not(Below("/a")), ["/b/x.jpg"]),
        (Not(And((Below("/a"), Tagged("t")))), ["/a/x.jpg", "/a/y.png", "/b/x.jpg"]),
        (And((Below("/a"), Below("/b"))), []),
    ],
    ids=repr,
)
def test_the_paths_that_a_condition_means_are_told(
    catalog: Catalog, condition: Condition | None, meant: list[str] | None
) -> None:
    test = catalog.selection.path_test(condition)
    if meant is None:
        assert test is None
    else:
        assert test is not None
        assert list(filter(test, ["/a/x.jpg", "/a/y.png", "/b/x.jpg"])) == meant


def test_few_files_below_a_folder_are_found_through_the_index(catalog: Catalog) -> None:
    """And many by looking at all, which is faster; the answer is the same."""
    if not catalog.database.is_sqlite:
        pytest.skip("PostgreSQL decides itself")
    fill(catalog, [picture(f"/many/{n}") for n in range(60)] + [picture("/few/1"), picture("/z")])
    plans: dict[str, str] = {}
    for folder in ("/few", "/many"):
        statements: list[tuple[str, Any]] = []
        engine = catalog.database._backend.engine

        def note(_c: Any, _cursor: Any, statement: str, given: Any, *_: Any) -> None:
            statements.append((statement, given))  # noqa: B023 - it is called in this turn

        event.listen(engine, "before_cursor_execute", note)
        found = catalog.selection.ids(Below(folder)).tolist()
        event.remove(engine, "before_cursor_execute", note)
        assert found == ([61] if folder == "/few" else list(range(1, 61)))
        with catalog.database.reading() as connection:
            plan = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statements[-1][0]}", statements[-1][1]
            )
            plans[folder] = " ".join(row.detail for row in plan)
    assert "SEARCH file USING INDEX" in plans["/few"]
    assert "path>? AND path<?" in plans["/few"]
    assert "path>?" not in plans["/many"]


@pytest.mark.parametrize(
    ("moment", "short"),
    [
        ("2024", "2024"),
        ("2024-01-01T00:00:00.000", "2024"),
        ("2024-10-10T10:10:10", "2024-10-10T10:10:10"),
        ("2024-10-10T10:00:00", "2024-10-10T10"),
        ("2024-10-10T00:00", "2024-10-10"),
        ("2024-01-10", "2024-01-10"),
        ("2024-10-01", "2024-10"),
        ("2024-01-01T00:00:00.100", "2024-01-01T00:00:00.1"),
        ("2024-10-10T10:10:00.0", "2024-10-10T10:10"),
        ("2000-01-01T01", "2000-01-01T01"),
    ],
)
def test_a_moment_is_as_short_as_it_can_be(moment: str, short: str) -> None:
    assert shortest(moment) == short


def test_an_index_knows_which_conditions_are_rare(shared_catalog: Catalog) -> None:
    catalog = emptied(shared_catalog)
    fill(catalog, [picture(path) for path in PHOTOS])
    rare = catalog.selection.is_rare
    assert rare(Tagged("nobody has this"), 0)
    assert rare(And((Range("width", 1, None), Below("/nowhere"))), 0)
    assert rare(Below("/photos"), len(PHOTOS))
    assert not rare(Below("/photos"), 0)
    # What no index tells is not said to be rare.
    assert not rare(Not(Tagged("nobody has this")), 10**6)
    assert not rare(Or((Tagged("nobody has this"), And(()))), 10**6)
