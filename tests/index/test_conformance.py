"""Every index of the package does what an index must do."""

from __future__ import annotations

import pytest

from tests.index.conformance import Conformance
from tests.index.kinds import KINDS, Kind


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


class TestConformance(Conformance):
    pass
