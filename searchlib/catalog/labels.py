"""Labels: the tags and properties that people put on images."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    union_all,
)

from searchlib.catalog.chunks import chunks
from searchlib.catalog.database import Database
from searchlib.catalog.folding import folded
from searchlib.catalog.schema import File, Image, Property, Tag, table
from searchlib.errors import InputError

LONGEST = 200
_FILE, _IMAGE, _TAG, _PROPERTY = map(table, (File, Image, Tag, Property))
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


class Labels:
    """The tags and properties of the images of a catalog; may be used from many threads.

    A tag is a word that is on an image or not. A property is a value under a key; an image has at
    most one under each. Case does not count in tags and keys: of two spellings the first stays, and
    of a property the last.

    All that write do all of it or nothing, and raise:
        InputError: a word is empty, longer than 200 characters or has control characters in it, or
            there is no image of an id that has, or had, a file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def tag(self, ids: Collection[int], tags: Collection[str]) -> int:
        """Put each of some tags on each of some images; says how many were not there before."""
        words: dict[str, str] = {}
        for tag in tags:
            word = _cleaned(tag, "tag")
            words.setdefault(folded(word), word)
        count = 0
        with self._database.writing() as connection:
            for some in chunks(sorted(set(ids))):
                _require_known(connection, some)
                there = {
                    (image_id, word)
                    for image_id, word in connection.execute(
                        select(_TAG.c.image_id, _TAG.c.folded).where(_TAG.c.image_id.in_(some))
                    )
                }
                rows = [
                    {"image_id": id, "folded": key, "word": word}
                    for id in some
                    for key, word in words.items()
                    if (id, key) not in there
                ]
                if rows:
                    connection.execute(_TAG.insert(), rows)
                count += len(rows)
        return count

    def untag(self, ids: Collection[int], tags: Collection[str]) -> int:
        """Take each of some tags off each of some images; says how many were there."""
        words = {folded(_cleaned(tag, "tag")) for tag in tags}
        count = 0
        with self._database.writing() as connection:
            for some in chunks(sorted(set(ids))):
                _require_known(connection, some)
                for few in chunks(words):
                    gone = delete(_TAG).where(_TAG.c.image_id.in_(some), _TAG.c.folded.in_(few))
                    count += connection.execute(gone).rowcount
        return count

    def put(self, ids: Collection[int], properties: Mapping[str, str | None]) -> None:
        """Give each of some images values under keys; None takes a key away."""
        rows = {}
        for name, value in properties.items():
            name = _cleaned(name, "key")
            kept = None if value is None else _cleaned(value, f"value of {name!r}")
            rows[folded(name)] = (name, kept)
        with self._database.writing() as connection:
            for some in chunks(sorted(set(ids))):
                _require_known(connection, some)
                for few in chunks(rows):
                    here = (_PROPERTY.c.image_id.in_(some), _PROPERTY.c.key.in_(few))
                    connection.execute(delete(_PROPERTY).where(*here))
                new = [
                    {
                        "image_id": id,
                        "key": key,
                        "name": name,
                        "value": value,
                        "folded": folded(value),
                        "number": _number(value),
                    }
                    for id in some
                    for key, (name, value) in rows.items()
                    if value is not None
                ]
                if new:
                    connection.execute(_PROPERTY.insert(), new)

    def tags(self) -> dict[str, int]:
        """The tags by name, and how many images with a file in place each is on."""
        present = exists().where(_FILE.c.image_id == _TAG.c.image_id, _FILE.c.state == "present")
        query = (
            select(_TAG.c.folded, func.min(_TAG.c.word), func.count())
            .where(present)
            .group_by(_TAG.c.folded)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return {word: count for _, word, count in sorted(tuple(row) for row in rows)}


# Made once, for it is asked with every search.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_LABELS = union_all(
    select(_TAG.c.image_id, _TAG.c.folded, _TAG.c.word, null()).where(_TAG.c.image_id.in_(_IDS)),
    select(_PROPERTY.c.image_id, _PROPERTY.c.key, _PROPERTY.c.name, _PROPERTY.c.value).where(
        _PROPERTY.c.image_id.in_(_IDS)
    ),
)
_Tags = dict[int, tuple[str, ...]]
_Properties = dict[int, tuple[tuple[str, str], ...]]


def labels_of(connection: Connection, ids: Collection[int]) -> tuple[_Tags, _Properties]:
    """The tags and the properties of those of some images that have any, by id, in order."""
    rows = connection.execute(_LABELS, {"ids": list(ids)}).all()
    tags: _Tags = {}
    properties: _Properties = {}
    for id, _, name, value in sorted(rows, key=lambda row: row[:2]):
        if value is None:
            tags[id] = (*tags.get(id, ()), name)
        else:
            properties[id] = (*properties.get(id, ()), (name, value))
    return tags, properties


def copy_labels(connection: Connection, old: int, new: int) -> None:
    """Give an image that has none the tags and properties of another."""
    for labels in (_TAG, _PROPERTY):
        names = [column.name for column in labels.c if column.name != "image_id"]
        others = (labels.c[name] for name in names)
        query = select(literal(new, labels.c.image_id.type), *others)
        query = query.where(labels.c.image_id == old)
        connection.execute(insert(labels).from_select(["image_id", *names], query))


def take_all(connection: Connection, ids: Collection[int]) -> None:
    """Take all tags and properties from images."""
    for some in chunks(ids):
        for labels in (_TAG, _PROPERTY):
            connection.execute(delete(labels).where(labels.c.image_id.in_(some)))


def _require_known(connection: Connection, ids: Collection[int]) -> None:
    # An image that no file is known of any more is about to be given up.
    has_file = exists().where(_FILE.c.image_id == _IMAGE.c.id)
    query = select(_IMAGE.c.id).where(_IMAGE.c.id.in_(ids), has_file)
    unknown = sorted(set(ids) - set(connection.execute(query).scalars()))
    if unknown:
        shown = ", ".join(map(str, unknown[:5])) + (" and others" if len(unknown) > 5 else "")
        raise InputError(f"no image has the id {shown}; the ids of images are told by a search")


def _cleaned(text: str, what: str) -> str:
    """A word as it is kept: composed, and without space around it."""
    word = unicodedata.normalize("NFC", text).strip()
    if not word:
        raise InputError(f"the {what} is empty; give it at least one letter")
    if len(word) > LONGEST:
        raise InputError(
            f"the {what} {word[:20]!r}... has {len(word)} characters; {LONGEST} are allowed"
        )
    # Control characters, halves of surrogate pairs, and the ends of lines and paragraphs.
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in word):
        raise InputError(f"the {what} {word!r} has a character that cannot be kept; leave it out")
    return word


def _number(value: str) -> float | None:
    if _NUMBER.fullmatch(value) is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
