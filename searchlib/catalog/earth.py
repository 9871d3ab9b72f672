"""Distances on the earth, taken as a sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

RADIUS = 6371008.8
"""Metres: the mean radius of the earth (IUGG)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Two parallels and two meridians in degrees; `west` is more than `east` across the 180th."""

    south: float
    west: float
    north: float
    east: float


def metres(latitude: float, longitude: float, north: float, east: float) -> float:
    """The distance of two places in metres, by the haversine formula."""
    across = math.sin(math.radians(latitude - north) / 2) ** 2
    along = math.sin(math.radians(longitude - east) / 2) ** 2
    cosines = math.cos(math.radians(latitude)) * math.cos(math.radians(north))
    return 2 * RADIUS * math.asin(math.sqrt(min(1.0, across + cosines * along)))


def around(latitude: float, longitude: float, distance: float) -> Bounds | None:
    """Bounds that no place at most so far from here lies outside of; None where there is none.

    The meridians are those that a circle touches, not those that it crosses on its own parallel:
    http://janmatuschek.de/LatitudeLongitudeBoundingCoordinates.
    """
    if math.isnan(distance) or distance < 0:
        return None
    if not (math.isfinite(longitude) and -90 <= latitude <= 90):
        return None
    # A little more, for what is rounded.
    angle = distance / RADIUS * (1 + 1e-9) + 1e-9
    reach = math.degrees(angle)
    south, north = latitude - reach, latitude + reach
    if south <= -90 or north >= 90:
        return Bounds(max(south, -90.0), -180.0, min(north, 90.0), 180.0)
    width = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(latitude)))))
    width += 1e-7
    if width >= 180:
        return Bounds(south, -180.0, north, 180.0)
    return Bounds(south, _turned(longitude - width), north, _turned(longitude + width))


def _turned(longitude: float) -> float:
    """The same meridian between -180 and 180 degrees."""
    return (longitude + 180) % 360 - 180
