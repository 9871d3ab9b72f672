"""The suite's assertions say what they compared, although its file is not a test file."""

import pytest

for module in ("conformance", "histories", "kinds"):
    pytest.register_assert_rewrite(f"tests.index.{module}")
