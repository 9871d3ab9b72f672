"""Cosines between imported vectors and the library's own of the same images."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from searchlib.exchange.report import MOST_LISTED, Drift, DriftRow


class Cosines:
    """Collects cosines; four bytes for each.

    Args:
        warn_below: rows with a lower cosine are listed.
    """

    def __init__(self, warn_below: float) -> None:
        self._values = array("f")
        self._warn_below = warn_below
        self._below = 0
        self._rows: list[DriftRow] = []
        self.verified = 0

    def add(
        self,
        row: int,
        name: str,
        theirs: NDArray[np.float32],
        ours: NDArray[np.float32],
    ) -> None:
        """Compare two unit vectors, float32 [dimension]."""
        cosine = min(1.0, float(theirs @ ours))
        self._values.append(cosine)
        if cosine < self._warn_below:
            self._below += 1
            if len(self._rows) < MOST_LISTED:
                self._rows.append(DriftRow(row, name, cosine))

    def drift(self) -> Drift | None:
        """All of them in a few numbers, None where there is none."""
        if not self._values:
            return None
        values = np.frombuffer(self._values, np.float32).astype(np.float64)
        return Drift(
            count=len(values),
            verified=self.verified,
            mean=float(values.mean()),
            min=float(values.min()),
            p5=float(np.percentile(values, 5)),
            warn_below=self._warn_below,
            below=self._below,
            rows=tuple(self._rows),
        )
