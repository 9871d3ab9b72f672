"""Bodies and query strings to what a library is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from searchlib.errors import ImageError, InputError
from searchlib.images import NamedBytes
from searchlib.images.encoded import BASE64_LABEL, DATA_LABEL, data_uri, from_base64
from searchlib.search import Question, Term, condition_of, threshold_of
from searchlib.server.bodies import Body, picture
from searchlib.server.multipart import Part
from searchlib.server.problems import Problem
from searchlib.server.schemas import (
    MAX_K,
    MAX_OFFSET,
    MAX_TERMS,
    MAX_WHERE,
    THRESHOLD_PATTERN,
    EmbedQuery,
    ImageTerm,
    SearchQuery,
    StoredTerm,
    TextTerm,
    UploadTerm,
    UrlTerm,
    VectorTerm,
)

_Model = TypeVar("_Model", bound=BaseModel)

_WHOLE = re.compile(r"-?[0-9]{1,19}")


def _whole(value: Any) -> Any:
    # Without it " 1_0.0" were a number too.
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise ValueError("is no whole number")
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return value


Whole = BeforeValidator(_whole)
"""Of a whole number in a query string or a path; stands behind its limits."""

Flag = Annotated[bool, BeforeValidator(_flag)]
"""A choice in a query string."""


class Options(BaseModel):
    """The query string of a search; what the body says counts before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str = Field("", max_length=MAX_WHERE, examples=["taken:2024 and tag:beach"])
    k: Annotated[int, Field(ge=1, le=MAX_K), Whole] = 10
    min_similarity: str = Field(
        "", pattern=THRESHOLD_PATTERN, description="a cosine, or a percentile such as 99%"
    )
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET), Whole] = 0
    cursor: str = Field("", max_length=1000)
    collapse: Flag = False
    exact: Flag = False
    explain: Flag = False
    filename: str = Field(
        "", max_length=255, description="of a picture as the body; only its end counts"
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and the pictures that came with it.

    Attributes:
        query: as it was written.
        pictures: of the body, by their number.
        spare: those that no term of the query names.
    """

    query: SearchQuery
    pictures: Sequence[NamedBytes] = field(repr=False)
    spare: Sequence[NamedBytes] = field(repr=False)

    def urls(self) -> list[str]:
        """What has to be fetched before the question can be asked."""
        return [term.url for term in self.query.terms if isinstance(term, UrlTerm)]

    def question(self, fetched: Mapping[str, NamedBytes]) -> Question:
        """The question.

        Args:
            fetched: the pictures of the web, by URL.

        Raises:
            InputError: it cannot be asked so.
            WhereError: its conditions cannot be understood.
            Problem: a picture of it is not base64.
        """
        query = self.query
        terms = [Term(image=each) for each in self.spare]
        for term in query.terms:
            weight, label = term.weight, term.label
            match term:
                case ImageTerm():
                    asked = Term(image=_decoded(term.image), weight=weight, label=label)
                case UploadTerm():
                    if term.upload >= len(self.pictures):
                        raise InputError(
                            f"there is no upload {term.upload}; the form has "
                            f"{len(self.pictures)} parts named image"
                        )
                    asked = Term(image=self.pictures[term.upload], weight=weight, label=label)
                case UrlTerm():
                    asked = Term(image=fetched[term.url], weight=weight, label=label)
                case StoredTerm():
                    asked = Term(stored=term.id, weight=weight, label=label)
                case VectorTerm():
                    asked = Term(vector=term.vector, weight=weight, label=label)
                case TextTerm():
                    asked = Term(text=term.text, weight=weight, label=label)
            terms.append(asked)
        k = query.k
        if k is None and query.min_similarity is not None:
            k = MAX_K
        return Question(
            terms=tuple(terms),
            where=condition_of(query.where),
            k=k,
            threshold=threshold_of(query.min_similarity),
            offset=query.offset,
            cursor=query.cursor,
            collapse=query.collapse,
            exact=query.exact,
        )


def asked_of(body: Body, options: Options) -> Asked:
    """What a request to search asks for.

    Raises:
        Problem: "invalid-request", it is not what the schema says.
        InputError: its form is damaged.
    """
    given = _given(options)
    if body.kind == "json":
        return Asked(_checked(SearchQuery, {**given, **_object(body.content())}), (), ())
    if body.kind == "picture":
        only = picture(body.content(), options.filename)
        return Asked(_checked(SearchQuery, given), (only,), (only,))
    pictures, rest = _pictures(body.parts(), {"query"})
    query = _checked(SearchQuery, {**given, **_object(rest.get("query", b"{}"))})
    named = {term.upload for term in query.terms if isinstance(term, UploadTerm)}
    spare = [each for number, each in enumerate(pictures) if number not in named]
    return Asked(query, pictures, spare)


def embed_asked(body: Body, filename: str) -> NamedBytes | EmbedQuery:
    """What a request to embed hands over: a picture, or a URL or a text.

    Raises:
        Problem, InputError: as `asked_of`.
    """
    if body.kind != "json":
        return one_picture(body, filename)
    query = _checked(EmbedQuery, _object(body.content()))
    given = [each for each in (query.image, query.url, query.text) if each is not None]
    if len(given) != 1:
        raise InputError("what to embed is one of image, url and text")
    return query if query.image is None else _decoded(query.image)


def one_picture(body: Body, filename: str) -> NamedBytes:
    """The one picture of a body.

    Raises:
        Problem, InputError: as `asked_of`.
    """
    if body.kind == "picture":
        return picture(body.content(), filename)
    pictures, _ = _pictures(body.parts(), set())
    if len(pictures) != 1:
        raise Problem("invalid-request", "the form has several pictures; send one")
    return pictures[0]


def _given(options: Options) -> dict[str, Any]:
    given = options.model_dump(exclude_unset=True, exclude={"filename"})
    for name in ("where", "cursor", "min_similarity"):
        if given.get(name) == "":
            del given[name]
    similarity = given.get("min_similarity")
    if similarity is not None and not similarity.endswith("%"):
        given["min_similarity"] = float(similarity)
    return given


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise Problem("invalid-request", f"the query is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Problem("invalid-request", "the query is no JSON object")
    return value


def _checked(model: type[_Model], value: dict[str, Any]) -> _Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [
            {"at": ".".join(str(each) for each in wrong["loc"]), "reason": wrong["msg"]}
            # Without the input itself, which may be a picture.
            for wrong in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        first = found[0]
        detail = f"{first['at']}: {first['reason']}" if first["at"] else first["reason"]
        raise Problem("invalid-request", detail, more={"errors": found[:20]}) from error


def _pictures(parts: Sequence[Part], others: set[str]) -> tuple[list[NamedBytes], dict[str, bytes]]:
    """The pictures of a form, at least one, and its other parts by name."""
    pictures: list[NamedBytes] = []
    rest: dict[str, bytes] = {}
    for part in parts:
        if part.name == "image":
            pictures.append(picture(part.content, part.filename))
        elif part.name in others and part.name not in rest:
            rest[part.name] = part.content
        else:
            raise Problem("invalid-request", f"the form has a part {part.name[:100]!r} too many")
    if not pictures:
        raise Problem("invalid-request", "the form has no part named image")
    if len(pictures) > MAX_TERMS:
        raise Problem("invalid-request", f"the form has more than {MAX_TERMS} pictures")
    return pictures, rest


def _decoded(text: str) -> NamedBytes:
    if text[:5].lower() == "data:":
        try:
            return NamedBytes(DATA_LABEL, data_uri(text))
        except ImageError as error:
            raise Problem("not-a-picture", str(error)) from error
    content = from_base64(text)
    if content is None:
        raise Problem("not-a-picture", f"{BASE64_LABEL}: it is not base64")
    return NamedBytes(BASE64_LABEL, content)
