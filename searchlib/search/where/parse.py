"""Conditions as a text: `folder:~/Pictures taken:2024-06..2024-08 (camera:canon or tag:beach)`.

    either  = both ("or" both)*
    both    = one (["and"] one)*
    one     = ("not" | "-" | "!") one | "(" either ")" | "all" | "none" | term
    term    = FIELD OPERATOR VALUE ("," VALUE)*

The grammar is small and its errors are what counts, so it is read by hand, going down; what nests
is limited, so that no text can exhaust the stack. docs/filters.md describes it for its users.
"""

from __future__ import annotations

from datetime import datetime

from searchlib.catalog.conditions import And, Condition, Not, Or
from searchlib.errors import WhereError
from searchlib.search.where.fields import (
    FIELDS,
    check_field,
    closest,
    comparison,
    example,
    spaced,
)
from searchlib.search.where.limits import LONGEST, MOST_NESTED, MOST_TERMS
from searchlib.search.where.normal import ALWAYS, NEVER, normalised
from searchlib.search.where.tokens import Piece, Scanner, shown, wrong
from searchlib.search.where.values import Context, single, together

_JOINERS = {"&&": "and", "&": "and", "+": "and", ",": "or", "||": "or", "|": "or"}
_UNITS = ("b", "kb", "mb", "gb", "kib", "mib", "gib", "mp", "px", "km", "m", "mi")


def parse_where(text: str, *, now: datetime | None = None, folder: str | None = None) -> Condition:
    """The conditions that a text means; an empty one means every image.

    Args:
        text: as docs/filters.md describes it.
        now: what "today" and "last 30 days" are counted from, and whose time zone local times are
            in where it has one. The clock, and the time zone of this machine, if None.
        folder: absolute; what `./` and `../` are relative to. None where there is no such folder.

    Raises:
        WhereError: it cannot be understood; points at the wrong word.
    """
    if len(text) > LONGEST:
        reason = f"the conditions have {len(text):,} characters; write at most {LONGEST:,}"
        raise wrong(text, LONGEST, LONGEST, reason)
    nul = text.find("\0")
    if nul >= 0:
        raise wrong(text, nul, nul + 1, "has a NUL character; leave it out")
    return _Parser(text, Context(now or datetime.now(), folder)).parse()


class _Parser:
    def __init__(self, text: str, context: Context) -> None:
        self.text = text
        self.words = Scanner(text)
        self.context = context
        self.terms = 0

    def parse(self) -> Condition:
        if not self.words.next():
            return ALWAYS
        condition = self.either(0)
        if self.words.next():  # only a parenthesis ends it early
            raise self.at_next("no ( stands before this ); leave it out")
        return normalised(condition)

    def either(self, depth: int) -> Condition:
        parts = [self.both(depth)]
        while self.words.keyword("or"):
            self.needs_more("or")
            parts.append(self.both(depth))
        return Or(tuple(parts))

    def both(self, depth: int) -> Condition:
        parts = [self.one(depth)]
        while self.words.next() not in ("", ")"):
            at = self.words.at
            if self.words.keyword("or"):
                self.words.at = at
                break
            if self.words.keyword("and"):
                self.needs_more("and")
            parts.append(self.one(depth))
        return And(tuple(parts))

    def one(self, depth: int) -> Condition:
        opposite = False
        while word := self.words.keyword("not") or (
            self.words.next() in ("-", "!") and self.sign()
        ):
            self.needs_more(word)
            opposite = not opposite
        condition = self.operand(depth)
        return Not(condition) if opposite else condition

    def sign(self) -> str:
        self.words.at += 1
        return self.text[self.words.at - 1]

    def operand(self, depth: int) -> Condition:
        words = self.words
        if words.next() == "(":
            return self.group(depth)
        if words.next() == ")":
            raise self.at_next("a condition is missing before this )")
        if word := words.keyword("all", "none"):
            return ALWAYS if word == "all" else NEVER
        if (word := words.keyword("and", "or")) is not None:
            start = words.at - len(word)
            reason = f"{word} stands between two conditions; there is none before it"
            raise wrong(self.text, start, words.at, reason)
        return self.term()

    def group(self, depth: int) -> Condition:
        opened = self.words.at
        if depth == MOST_NESTED:
            raise self.at_next(f"parentheses nest more than {MOST_NESTED} deep; nest them less")
        self.words.take("(")
        if not self.words.next():
            raise wrong(self.text, opened, opened + 1, "this ( is not closed; write ) at its end")
        condition = self.either(depth + 1)
        if not self.words.take(")"):
            raise wrong(self.text, opened, opened + 1, "this ( is not closed; write ) at its end")
        return condition

    def term(self) -> Condition:
        start = self.words.at
        found = self.words.field()
        if found is None:
            raise self.bare_word()
        field, operator = found
        check_field(self.text, field)
        place = (self.words.at - len(operator), self.words.at)
        kind, opposite = comparison(self.text, field, operator, place)
        self.needs_value(start, field.name)
        begin = self.words.at
        pieces = self.words.pieces(spaced(field))
        self.count(pieces)
        for piece in pieces:
            quoted = piece.end > piece.start
            if not piece.text and not (quoted and field.name == "key" and kind == ":"):
                reason = f"a value is missing; write {example(field.name)}"
                raise self.missing(start, piece, reason)
        value = Piece(self.text, "", "", (), begin, self.words.at)
        condition = together(field, pieces, value)
        if condition is None:
            if len(pieces) > 1 and kind != ":":
                raise value.wrong(f"{kind} takes one value; write {example(field.name)}")
            parts = [single(field, kind, piece, self.context) for piece in pieces]
            condition = parts[0] if len(parts) == 1 else Or(tuple(parts))
        return Not(condition) if opposite else condition

    def missing(self, start: int, piece: Piece, reason: str) -> WhereError:
        """Nothing cannot be pointed at: what stands before it is."""
        if piece.end > piece.start:
            return piece.wrong(reason)
        return wrong(self.text, start, max(piece.start, start + 1), reason)

    def needs_value(self, start: int, name: str) -> None:
        """See that a value follows the operator, with spaces between or not."""
        after = self.words.at
        following = self.words.next()
        apart = self.words.at > after
        found = following in ("", ")")
        if not found and apart:
            found = self.words.is_keyword()
            at = self.words.at
            try:
                other = self.words.field()
            except WhereError:
                other = None
            found = found or (other is not None and other[0].name in FIELDS)
            self.words.at = at
        if found:
            raise wrong(self.text, start, after, f"a value is missing; write {example(name)}")

    def needs_more(self, word: str) -> None:
        """See that a condition follows a word of the grammar, which was just read."""
        end = self.words.at
        at = self.words.at
        following = self.words.next()
        if following in ("", ")") or self.words.keyword("and", "or"):
            reason = f"{word} needs a condition behind it, as in {word} tag:beach"
            raise wrong(self.text, end - len(word), end, reason)
        self.words.at = at

    def count(self, pieces: list[Piece]) -> None:
        self.terms += len(pieces)
        if self.terms > MOST_TERMS:
            raise pieces[-1].wrong(f"more than {MOST_TERMS} conditions; write fewer")

    def at_next(self, reason: str) -> WhereError:
        """The error that points at the next character."""
        return wrong(self.text, self.words.at, self.words.at + 1, reason)

    def bare_word(self) -> WhereError:
        start, end = self.words.word()
        return wrong(self.text, start, end, _bare(self.text[start:end], self.text[:start]))


def _bare(word: str, before: str) -> str:
    """What may have been meant by a word that is no condition."""
    plain = word.strip("\"'")
    if word in _JOINERS:
        return f"write {_JOINERS[word]} between conditions"
    if plain.startswith(("..", "<", ">", "=", ":")) or before.rstrip().endswith(".."):
        return "write a field, its operator and its value together, as in taken:2024-01..2024-06"
    if plain.lower() in FIELDS:
        return f"what of it? Write {example(plain.lower())}"
    if plain.lower() in _UNITS:
        return "write a number and its unit together, as in size>5MB"
    if plain.replace("-", "").isdecimal():
        return f"no field before it; write {'taken' if len(plain) >= 4 else 'mp'}:{shown(plain)}"
    if "/" in plain or plain.startswith("~"):
        return f"no field before it; write folder:{shown(word)}"
    if "." in plain.strip(".") or "*" in plain:
        return f"no field before it; write name:{shown(word)}"
    if before.strip() and not before.rstrip().endswith((")", "(")):
        return (
            f"no field before it; put a value with spaces into quotes, or write tag:{shown(word)}"
        )
    meant = closest(plain)
    if meant is not None:
        return f"no field of this name; did you mean {meant}? ({example(meant)})"
    return f"no field before it; to search for words use text, or tag:{shown(word)}"
