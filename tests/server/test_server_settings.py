"""What a server may be told, and what it refuses before it listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from searchlib.errors import InputError
from searchlib.server import ServerSettings
from searchlib.server.settings import read_token


def test_the_usual_settings_are_right() -> None:
    ServerSettings().check()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_no_token_is_needed_where_only_this_machine_can_ask(host: str) -> None:
    ServerSettings(host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "photos.example", "8.8.8.8"])
def test_a_host_that_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(InputError, match=r"SEARCHLIB_TOKEN"):
        ServerSettings(host=host).check()
    ServerSettings(host=host, token="a-token").check()


@pytest.mark.parametrize("token", ["", "two words", "tab\t", "line\n", "höh", "\x7f"])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        ServerSettings(token=token).check()


@pytest.mark.parametrize(
    "values",
    [
        {"host": ""},
        {"port": -1},
        {"port": 65536},
        {"max_body": 0},
        {"max_head": 10},
        {"queue": -1},
        {"workers": 0},
        {"connections": 0},
        {"header_timeout": 0.0},
        {"body_timeout": float("nan")},
        {"piece_timeout": -1.0},
        {"request_timeout": 0.0},
        {"shutdown_timeout": 0.0},
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_name(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(values)).partition("_")[0]):
        ServerSettings(**values).check()


def test_the_token_is_not_printed_with_the_settings() -> None:
    assert "s3cret" not in repr(ServerSettings(token="s3cret"))


def test_a_token_is_the_one_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-token\n")
    assert read_token(file) == "s3cret-token"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb\n", b"h\xc3\xb6h"])
def test_a_file_without_one_token_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(InputError, match=str(file)):
        read_token(file)


def test_a_file_of_a_token_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.*No such file"):
        read_token(tmp_path / "missing")
