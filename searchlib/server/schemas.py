"""What goes over HTTP, as models: they check what comes, and the OpenAPI document is made of them.

What comes is taken strictly: no field that is not named here, and no text in the place of a number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from searchlib.catalog import ImageRecord
from searchlib.search.match import Contribution, Match, Results, Timings
from searchlib.search.question import Threshold

MAX_K = 10_000
MAX_OFFSET = 1_000_000
MAX_TERMS = 32
MAX_DIMENSION = 8192
MAX_TEXT = 2000
MAX_WHERE = 10_000
MAX_PAGE = 1000
MAX_LABELS = 100
MAX_LABEL = 200
_MAX_ID = 2**63 - 1
_MAX_URL = 8192
_MAX_CURSOR = 1000

_PERCENT = r"^(100|[0-9]{1,2}(\.[0-9]{1,6})?)%$"
_COSINE = r"^-?(0(\.[0-9]{1,9})?|1(\.0{1,9})?|\.[0-9]{1,9})$"
THRESHOLD_PATTERN = f"{_COSINE}|{_PERCENT}"
"""Of a threshold in a query string."""

LABEL_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"


def _integer(value: Any) -> Any:
    # 7.0 is a whole number too, in JSON and in its schemas.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_integer)
"""Of a whole number in JSON; stands behind its limits, which the schema has no word for else."""

ImageId = Annotated[
    int, Field(ge=1, le=_MAX_ID, description="the id of an image", examples=[7]), Whole
]
Where = Annotated[
    str,
    Field(
        max_length=MAX_WHERE,
        description="conditions, as docs/filters.md describes them",
        examples=["taken:2024 and tag:beach"],
    ),
]
Cursor = Annotated[
    str,
    Field(max_length=_MAX_CURSOR, description="goes on behind an earlier answer: its `cursor`"),
]
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL, pattern=LABEL_PATTERN)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Term(_Asked):
    weight: float = Field(
        1.0,
        ge=-1000,
        le=1000,
        description="how much it counts beside the others; below 0 for what they should be unlike",
    )
    label: str = Field("", max_length=300, description="its name in the answer")


class ImageTerm(_Term):
    """A picture in the body itself."""

    image: str = Field(description="base64 of a picture file, or a data URI", examples=["/9j/4AAQ"])


class UploadTerm(_Term):
    """A picture that is a part of the form."""

    upload: Annotated[int, Field(ge=0, lt=MAX_TERMS), Whole] = Field(
        description="which of the parts `image`, from 0 on", examples=[0]
    )


class UrlTerm(_Term):
    """A picture of the web; the server fetches it, and from public addresses only."""

    url: str = Field(
        max_length=_MAX_URL,
        pattern=r"^[hH][tT][tT][pP][sS]?://",
        examples=["https://example.org/cat.jpg"],
    )


class StoredTerm(_Term):
    """An image of the library."""

    id: ImageId


class VectorTerm(_Term):
    """A vector of the library's model."""

    vector: list[Number] = Field(min_length=1, max_length=MAX_DIMENSION)


class TextTerm(_Term):
    """Words, where the model has a text side."""

    text: str = Field(min_length=1, max_length=MAX_TEXT, examples=["a dog on a beach"])


_KINDS = ("image", "upload", "url", "id", "vector", "text")


def _kind(value: Any) -> str | None:
    for kind in _KINDS:
        if (kind in value) if isinstance(value, Mapping) else hasattr(value, kind):
            return kind
    return None


def _one_of(kinds: tuple[str, ...]) -> Discriminator:
    return Discriminator(
        _kind,
        custom_error_type="term",
        custom_error_message=f"a term is an object with one of {', '.join(kinds)}",
    )


TermModel: TypeAlias = Annotated[
    Annotated[ImageTerm, Tag("image")]
    | Annotated[UploadTerm, Tag("upload")]
    | Annotated[UrlTerm, Tag("url")]
    | Annotated[StoredTerm, Tag("id")]
    | Annotated[VectorTerm, Tag("vector")]
    | Annotated[TextTerm, Tag("text")],
    _one_of(_KINDS),
]


class SearchQuery(_Asked):
    """What is searched for. A query has at least one term, and not all of them below 0."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"terms": [{"id": 7}], "k": 10},
                {
                    "terms": [{"url": "https://example.org/a.jpg"}, {"id": 9, "weight": -0.5}],
                    "where": "taken:2024 and tag:beach",
                    "min_similarity": "99%",
                },
            ]
        }
    )

    terms: list[TermModel] = Field(default_factory=list, max_length=MAX_TERMS)
    where: Where | None = None
    k: Annotated[int, Field(ge=1, le=MAX_K), Whole] | None = Field(
        10,
        description="how many matches at most; null for all that reach `min_similarity`, of which "
        f"an answer has up to {MAX_K}",
    )
    min_similarity: (
        Annotated[float, Field(ge=-1, le=1)] | Annotated[str, Field(pattern=_PERCENT)] | None
    ) = Field(None, description="a cosine, or a percentile as text", examples=[0.8, "99%"])
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET), Whole] = 0
    cursor: Cursor | None = None
    collapse: bool = Field(False, description="nearly identical pictures as one match")
    exact: bool = Field(False, description="compare with every vector")
    explain: bool = Field(False, description="also say where the time went")


class EmbedQuery(_Asked):
    """What is to be embedded: one of the four."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "a dog on a beach"}]})

    image: str | None = Field(None, description="base64 of a picture file, or a data URI")
    url: str | None = Field(None, max_length=_MAX_URL, pattern=r"^[hH][tT][tT][pP][sS]?://")
    text: str | None = Field(None, min_length=1, max_length=MAX_TEXT)


def _named(schema: dict[str, Any]) -> None:
    """Have the schema refuse the other keys, as the model does."""
    ((pattern, value),) = schema.pop("patternProperties").items()
    names = {"minLength": 1, "maxLength": MAX_LABEL, "pattern": pattern}
    schema.update(propertyNames=names, additionalProperties=value)


class Patch(_Asked):
    """What is to be changed of an image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"add_tags": ["beach"], "remove_tags": [], "properties": {"album": "2024"}}
            ]
        }
    )

    add_tags: list[Label] = Field(default_factory=list, max_length=MAX_LABELS)
    remove_tags: list[Label] = Field(default_factory=list, max_length=MAX_LABELS)
    properties: dict[Label, Label | None] = Field(
        default_factory=dict,
        max_length=MAX_LABELS,
        description="null takes a key away",
        json_schema_extra=_named,
    )


class Image(_Told):
    """An image of the library."""

    id: int
    digest: str = Field(description="the BLAKE3 of its bytes, 64 hex digits")
    format: str | None = Field(description="as Pillow names it", examples=["JPEG"])
    bytes: int
    width: int = Field(description="in pixels, upright")
    height: int
    taken_at: str | None = Field(description="ISO 8601", examples=["2024-06-01T10:30:00"])
    camera_make: str | None
    camera_model: str | None
    latitude: float | None
    longitude: float | None
    paths: list[str] = Field(description="where it lies on the server")
    videos: list[str] = Field(description="the moving parts of the live photos among these")
    tags: list[str]
    properties: dict[str, str]
    added_at: float = Field(description="seconds since 1970")
    thumbnail: str = Field(examples=["/v1/images/7/thumbnail"])
    original: str = Field(examples=["/v1/images/7/original"])


class TermShare(_Told):
    """What one term of the query adds to the score of a match."""

    term: str
    kind: Literal["image", "stored", "vector", "text"]
    weight: float
    cosine: float
    share: float


class SearchMatch(Image):
    """An image that is like the query."""

    rank: int
    score: float = Field(description="the cosine, -1 to 1")
    percentile: float | None = Field(
        description="of 100 random pairs of this library, how many are less alike"
    )
    path: str = Field(description="the first of `paths` that meets the conditions")
    stack: list[str] = Field(description="other files of the same shot")
    alike: list[str] = Field(description="nearly identical pictures that were collapsed into it")
    terms: list[TermShare]


class MinSimilarity(_Told):
    """How similar the matches had to be."""

    value: float
    kind: Literal["cosine", "percentile"]
    least: float | None = Field(description="the cosine that this meant")


class Spent(_Told):
    """Where the time went, in seconds."""

    decode: float
    encode: float
    search: float
    fetch: float
    total: float


class SearchAnswer(_Told):
    """The matches, best first."""

    model: str | None
    matches: list[SearchMatch]
    cursor: str | None = Field(description="goes on behind the last match")
    exact: bool
    min_similarity: MinSimilarity | None
    timings: Spent | None = Field(description="only with `explain`")


class EmbedAnswer(_Told):
    """A vector of length 1."""

    model: str
    identity: str = Field(description="of the model, 64 hex digits")
    dimension: int
    vector: list[float]


class ImagePage(_Told):
    """Some images in the order that was asked for."""

    images: list[Image]
    cursor: str | None = Field(description="goes on behind the last one")
    count: int | None = Field(description="of all that meet the conditions; only with `count`")


class PatchAnswer(_Told):
    """The image as it is now, and how many tags were put and taken."""

    image: Image
    added: int
    removed: int


class TagCounts(_Told):
    """How many images have each tag."""

    tags: dict[str, int]


def image_of(record: ImageRecord) -> Image:
    """An image as it is told."""
    return Image.model_construct(**_image_fields(record))


def match_of(match: Match) -> SearchMatch:
    """A match as it is told."""
    return SearchMatch.model_construct(
        **_image_fields(match.image),
        rank=match.rank,
        score=match.score,
        percentile=match.percentile,
        path=plain(match.path),
        stack=_all_plain(match.stack),
        alike=_all_plain(match.alike),
        terms=[_share(term) for term in match.terms],
    )


def answer_of(results: Results, *, explain: bool, fetched: float = 0.0) -> SearchAnswer:
    """An answer as it is told.

    Args:
        results: of the search.
        explain: say where the time went.
        fetched: seconds that fetching pictures of the web took before it.
    """
    threshold = results.threshold
    return SearchAnswer.model_construct(
        model=results.model,
        matches=[match_of(match) for match in results],
        cursor=results.cursor,
        exact=results.exact,
        min_similarity=None if threshold is None else _least(threshold, results.least),
        timings=_spent(results.timings, fetched) if explain else None,
    )


def plain(path: str) -> str:
    """A path as text that every reader of JSON takes; bytes that are no UTF-8 become U+FFFD."""
    if path.isascii():
        return path
    return os.fsencode(path).decode("utf-8", "replace")


def _image_fields(record: ImageRecord) -> dict[str, Any]:
    facts = record.facts
    return {
        "id": record.id,
        "digest": record.digest,
        "format": facts.format,
        "bytes": facts.bytes,
        "width": facts.width,
        "height": facts.height,
        "taken_at": facts.taken_at,
        "camera_make": facts.camera_make,
        "camera_model": facts.camera_model,
        "latitude": facts.latitude,
        "longitude": facts.longitude,
        "paths": _all_plain(record.paths),
        "videos": _all_plain(record.videos),
        "tags": list(record.tags),
        "properties": dict(record.properties),
        "added_at": record.added_at,
        "thumbnail": f"/v1/images/{record.id}/thumbnail",
        "original": f"/v1/images/{record.id}/original",
    }


def _share(term: Contribution) -> TermShare:
    return TermShare.model_construct(
        term=plain(term.term),
        kind=term.kind,
        weight=term.weight,
        cosine=term.cosine,
        share=term.share,
    )


def _least(threshold: Threshold, least: float | None) -> MinSimilarity:
    return MinSimilarity(value=threshold.value, kind=threshold.kind, least=least)


def _spent(timings: Timings, fetched: float) -> Spent:
    return Spent.model_construct(
        decode=timings.decode + fetched,
        encode=timings.encode,
        search=timings.search,
        fetch=timings.fetch,
        total=timings.total + fetched,
    )


def _all_plain(paths: Iterable[str]) -> list[str]:
    return [plain(path) for path in paths]
