"""What a search gives."""

from __future__ import annotations

from dataclasses import dataclass

from searchlib.catalog import ImageRecord


@dataclass(frozen=True, slots=True)
class Match:
    """An image that is like the query.

    Attributes:
        path: where it lies; the first of `image.paths`.
        score: the cosine of its vector and the query's, -1 to 1; 1 is the same picture.
        image: what is known of it.
        stack: other files of the same shot: the camera's raw file, the film of a live photo.
    """

    path: str
    score: float
    image: ImageRecord
    stack: tuple[str, ...] = ()
