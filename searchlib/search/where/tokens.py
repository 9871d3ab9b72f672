"""The words of a condition's text, each with its place, so that an error can point at it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from searchlib.errors import WhereError

_ESCAPABLE = frozenset("\\\"' ,()*?[~")
_LONGEST_MARKED = 60

_NAME = re.compile(r"[^\W\d][\w-]*")
_KEY = re.compile(r"[\w-]+(?:\.[\w-]+)*")
# The longest first. Those that other languages know are read here, to be told what is meant.
_OPERATOR = re.compile(r"!=|==|=~|=>|=<|<>|!~|:?<=|:?>=|:?<|:?>|:|=|~")
_KEYWORD = re.compile(r"(and|or|not|all|none)(?=[\s()]|\Z)", re.IGNORECASE)
_BARE = re.compile(r"[^\s()\"]+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A value, or a part of one.

    Attributes:
        whole: the text that it is from.
        text: without quotes and backslashes.
        marks: for each character of `text`, whether it was bare ("b"), in quotes ("q") or behind a
            backslash ("e").
        places: for each character of `text`, where it is in `whole`.
        start, end: where the piece is in `whole`, with its quotes.
    """

    whole: str
    text: str
    marks: str
    places: tuple[int, ...]
    start: int
    end: int

    def wrong(self, reason: str) -> WhereError:
        """The error that points at this piece."""
        return wrong(self.whole, self.start, self.end, reason)

    def split_range(self) -> tuple[Piece | None, str, Piece | None] | None:
        """The two ends of `a..b` and the operator between them; None where this is no range.

        An end that is not given is None. The operator is ".." or "..<".
        """
        at = 0
        while (at := self.text.find("..", at)) >= 0:
            if self.marks[at : at + 2] == "bb":
                dots = "..<" if self.text[at + 2 : at + 3] == "<" else ".."
                return self._part(0, at), dots, self._part(at + len(dots), len(self.text))
            at += 1
        return None

    def _part(self, first: int, last: int) -> Piece | None:
        if first == last:
            return None
        # The quotes around the part belong to it: it reaches from one neighbour to the other.
        start = self.start if first == 0 else self.places[first - 1] + 1
        end = self.end if last == len(self.text) else self.places[last]
        places = self.places[first:last]
        return Piece(self.whole, self.text[first:last], self.marks[first:last], places, start, end)


@dataclass(frozen=True, slots=True)
class Field:
    """What stands before an operator.

    Attributes:
        name: in lower case.
        key: of `key.NAME`; None for the other fields.
        start, end: where it is.
    """

    name: str
    key: str | None
    start: int
    end: int


def wrong(whole: str, start: int, end: int, reason: str) -> WhereError:
    """The error that points at a part of the text, or at its beginning where it is long."""
    return WhereError(whole, start, min(end, start + _LONGEST_MARKED), reason)


def shown(text: str) -> str:
    """A word of the user's in a message: short, and on one line."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= _LONGEST_MARKED else f"{line[:_LONGEST_MARKED]}..."


class Scanner:
    """Reads a text from its beginning to its end.

    Attributes:
        text: all of it.
        at: the place of the next character.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip(self) -> None:
        """Go on to the next character that is no space."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        self.skip()
        return self.text[self.at : self.at + 1]

    def take(self, character: str) -> bool:
        """Whether this character is next; it is read then."""
        found = self.next() == character
        self.at += found
        return found

    def keyword(self, *words: str) -> str | None:
        """Which of these words is next; it is read then."""
        self.skip()
        found = _KEYWORD.match(self.text, self.at)
        if found is None or found[1].lower() not in words:
            return None
        self.at = found.end()
        return found[1].lower()

    def is_keyword(self) -> bool:
        """Whether a word of the grammar is next."""
        self.skip()
        return _KEYWORD.match(self.text, self.at) is not None

    def field(self) -> tuple[Field, str] | None:
        """The field and the operator that are next; None, with nothing read, for anything else."""
        self.skip()
        start = self.at
        name = _NAME.match(self.text, start)
        if name is None:
            return None
        self.at = name.end()
        key = None
        if self.text.startswith(".", self.at):
            self.at += 1
            key = self._key()
        end = self.at
        self.skip()
        operator = _OPERATOR.match(self.text, self.at)
        if operator is None:
            self.at = start
            return None
        self.at = operator.end()
        return Field(name[0].lower(), key, start, end), operator[0]

    def _key(self) -> str:
        if self.text.startswith('"', self.at):
            characters: list[tuple[str, str, int]] = []
            self._quoted(characters)
            return "".join(character for character, _, _ in characters)
        found = _KEY.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def word(self) -> tuple[int, int]:
        """Where the next word is, whatever it may mean; it is read."""
        self.skip()
        start = self.at
        if self.text.startswith('"', start):
            self._quoted([])
        else:
            found = _BARE.match(self.text, start)
            self.at = start + 1 if found is None else found.end()
        return start, self.at

    def pieces(self, spaced: re.Pattern[str] | None = None) -> list[Piece]:
        """The values that are next, which commas part; a piece may come out empty.

        Args:
            spaced: what may hold spaces without being in quotes, where a value begins with it.
        """
        pieces = [self._piece(spaced)]
        while self.at < len(self.text) and self.text[self.at] == ",":
            self.at += 1
            self.skip()  # coordinates are copied with spaces
            pieces.append(self._piece(spaced))
        return pieces

    def _piece(self, spaced: re.Pattern[str] | None) -> Piece:
        text, start = self.text, self.at
        characters: list[tuple[str, str, int]] = []
        open_at: list[int] = []
        while self.at < len(text):
            character = text[self.at]
            begins = not characters or text.endswith(("..", "..<"), start, self.at)
            if begins and spaced is not None and (phrase := spaced.match(text, self.at)):
                places = range(phrase.start(), phrase.end())
                characters.extend((text[place], "b", place) for place in places)
                self.at = phrase.end()
                continue
            if character.isspace() or (character == "," and not open_at):
                break
            if character == "(":
                open_at.append(self.at)
            elif character == ")":
                if not open_at:
                    break
                open_at.pop()
            if character == '"' or (character == "'" and begins):
                self._quoted(characters)
            elif character == "\\" and text[self.at + 1 : self.at + 2] in _ESCAPABLE:
                self._escaped(characters)
            else:
                characters.append((character, "b", self.at))
                self.at += 1
        if open_at:
            reason = "this ( is not closed; put a value with parentheses into quotes"
            raise wrong(text, open_at[-1], open_at[-1] + 1, reason)
        return Piece(
            text,
            "".join(character for character, _, _ in characters),
            "".join(mark for _, mark, _ in characters),
            tuple(place for _, _, place in characters),
            start,
            self.at,
        )

    def _quoted(self, characters: list[tuple[str, str, int]]) -> None:
        opened, quote = self.at, self.text[self.at]
        self.at += 1
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == quote:
                self.at += 1
                return
            if character == "\\" and self.text[self.at + 1 : self.at + 2] in _ESCAPABLE:
                self._escaped(characters)
            else:
                characters.append((character, "q", self.at))
                self.at += 1
        reason = f"this quote is not closed; write {quote} where the value ends"
        raise wrong(self.text, opened, len(self.text), reason)

    def _escaped(self, characters: list[tuple[str, str, int]]) -> None:
        characters.append((self.text[self.at + 1], "e", self.at + 1))
        self.at += 2
