"""Limits of spans of time, as they are compared with what the catalog keeps."""

from __future__ import annotations

import math
from fractions import Fraction


def shortest(moment: str) -> str:
    """A moment of ISO 8601 in as few letters as tell it.

    Texts of which none is longer than needed compare as the moments do, whatever the length of
    those that they are compared with: "2024" comes before "2024-01-01T00:00:00" and before all
    others of that year, and behind all of the year before.
    """
    while (shorter := _shorter(moment)) != moment:
        moment = shorter
    return moment


def _shorter(moment: str) -> str:
    date, _, time = moment.partition("T")
    if "." in time:
        return f"{date}T{time.rstrip('0').rstrip('.')}" if time[-1] in "0." else moment
    for end in (":00", "T00", "-01"):
        if moment.endswith(end) and (end != "-01" or not time):
            return moment[: -len(end)]
    return moment


def least_nanoseconds(seconds: float) -> float:
    """The first whole nanosecond at or after a time in seconds, an infinity or NaN as it is."""
    return math.ceil(Fraction(seconds) * 10**9) if math.isfinite(seconds) else seconds
