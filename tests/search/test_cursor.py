"""Cursors come back as they went out, and nothing else is taken for one."""

import base64
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.errors import CursorError
from searchlib.search.cursor import Cursor, decode_cursor, fingerprint

VECTOR = np.eye(4, dtype=np.float32)[0]
ids = st.integers(0, 2**63 - 1)


@given(ids, ids, ids, st.floats(-1, 1))
def test_a_cursor_comes_back_as_it_went_out(newest: int, id: int, rank: int, score: float) -> None:
    cursor = Cursor(fingerprint(VECTOR), newest, score, id, rank)
    assert decode_cursor(cursor.encode(), asked=cursor.asked) == cursor


@given(st.text(max_size=500))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorError):
        decode_cursor(text, asked=fingerprint(VECTOR))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=8),
        max_leaves=10,
    )
)
def test_any_other_json_is_refused(value: object) -> None:
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    with pytest.raises(CursorError):
        decode_cursor(text, asked=fingerprint(VECTOR))


def test_a_cursor_of_another_question_is_refused() -> None:
    cursor = Cursor(fingerprint(VECTOR, "taken:2024"), 1, 0.5, 1, 1).encode()
    with pytest.raises(CursorError, match="another question"):
        decode_cursor(cursor, asked=fingerprint(VECTOR, "taken:2023"))
    with pytest.raises(CursorError, match="another question"):
        decode_cursor(cursor, asked=fingerprint(-VECTOR, "taken:2024"))


def test_a_question_is_the_same_in_every_process() -> None:
    program = (
        "import numpy as np\n"
        "from searchlib.catalog.conditions import And, Format, Not, Tagged\n"
        "from searchlib.search.cursor import fingerprint\n"
        "names = frozenset({'JPEG', 'PNG', 'WEBP', 'HEIF', 'RAW', 'GIF'})\n"
        "where = And((Not(Format(names)), Tagged('a')))\n"
        "print(fingerprint(np.eye(4, dtype=np.float32)[0], where))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in "1234"
    }
    assert len(found) == 1
