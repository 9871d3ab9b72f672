"""What images can be asked for by what is known of them: a tree of conditions.

An image meets a condition on its files (`Below`, `Glob`, the times of `Moment` "modified") where
one file that is in place does. A fact that is not known meets no condition, and so its opposite:
an image without a camera is not from a Canon, and `Not` of that holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Amount = Literal["width", "height", "pixels", "bytes", "length"]
"""`length` is the longer side in pixels."""

Known = Literal["date", "place", "camera", "tag"]


@dataclass(frozen=True, slots=True)
class And:
    """All of the parts hold; true where there are none."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the parts holds; false where there are none."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Below:
    """A file lies in this folder or in one below it.

    Attributes:
        folder: absolute, without a separator at its end but for the root.
    """

    folder: str


@dataclass(frozen=True, slots=True)
class Glob:
    """A file lies in a folder that a pattern names, or in one below such a folder.

    Attributes:
        pattern: of a folder's path: `*` and `?` stand for characters of one name, `**` for any
            number of folders, `[abc]` and `[!abc]` for one character. A pattern that does not begin
            with a separator may begin at any folder. Case counts.
    """

    pattern: str


@dataclass(frozen=True, slots=True)
class Name:
    """A file has a name that a pattern matches.

    Attributes:
        pattern: of the name without its folder, as in `Glob`; case does not count.
    """

    pattern: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The camera's own clock stood in a span of time, whatever its time zone.

    Attributes:
        since: ISO 8601 as far as it is given ("2024", "2024-06-01T10:30"), included; None for no
            limit.
        before: the same, not included.
    """

    since: str | None
    before: str | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A file was last modified, or the image added to the library, in a span of time.

    Attributes:
        of: which of the two.
        since: seconds since 1970, included; None for no limit.
        before: the same, not included.
    """

    of: Literal["modified", "added"]
    since: float | None
    before: float | None


@dataclass(frozen=True, slots=True)
class Range:
    """An amount lies between two.

    Attributes:
        of: which amount: pixels, or bytes of the file.
        least: included; None for no limit.
        most: included.
    """

    of: Amount
    least: int | None
    most: int | None


@dataclass(frozen=True, slots=True)
class Near:
    """The image was taken at most so far from a place, along the earth taken as a sphere.

    Attributes:
        latitude, longitude: degrees, north and east positive.
        metres: of the distance.
    """

    latitude: float
    longitude: float
    metres: float


@dataclass(frozen=True, slots=True)
class Box:
    """The image was taken between two parallels and two meridians, all included.

    Attributes:
        south, west, north, east: degrees. Where `west` is more than `east` the box crosses the
            180th meridian.
    """

    south: float
    west: float
    north: float
    east: float


@dataclass(frozen=True, slots=True)
class Camera:
    """The camera's make and model, with a space between, contain a text; case does not count."""

    text: str


@dataclass(frozen=True, slots=True)
class Format:
    """The format is one of these, as Pillow names them ("JPEG", "PNG", "HEIF", "RAW", ...)."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Shape:
    """How the upright picture stands."""

    of: Literal["landscape", "portrait", "square"]


@dataclass(frozen=True, slots=True)
class Has:
    """Something is known at all: when, where or by what it was taken, or that it has a tag."""

    of: Known


@dataclass(frozen=True, slots=True)
class Tagged:
    """The image has a tag; case does not count."""

    tag: str


@dataclass(frozen=True, slots=True)
class Value:
    """The image has a value of the user's under a key; case does not count in either.

    Attributes:
        key: under which it stands.
        text: that it is; None where any value will do.
    """

    key: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Number:
    """The image has a value of the user's under a key, which is a number in a range.

    Attributes:
        key: under which it stands; case does not count.
        least, most: of it; None for no limit.
        least_included, most_included: whether the limits themselves are meant.
    """

    key: str
    least: float | None
    most: float | None
    least_included: bool = True
    most_included: bool = True


Condition: TypeAlias = (
    And
    | Or
    | Not
    | Below
    | Glob
    | Name
    | Taken
    | Moment
    | Range
    | Near
    | Box
    | Camera
    | Format
    | Shape
    | Has
    | Tagged
    | Value
    | Number
)
