"""Pictures in a terminal: what is drawn is decoded again, and a terminal is asked what it knows."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers
from PIL import Image

from searchlib.cli.terminal_pictures import (
    WAYS,
    ask_attributes,
    cell_size,
    draw,
    iterm2,
    kitty,
    sixel,
    way_of,
)

SIXEL_TERMINAL = b"\x1b[?62;4;22c"
OTHER_TERMINAL = b"\x1b[?64;1;2;6;22;44c"


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    image = Image.fromarray(skimage.data.chelsea())
    image.thumbnail((120, 120))
    return image


def from_kitty(drawn: bytes) -> Image.Image:
    """The picture that a terminal of Kitty's way would show."""
    chunks = re.findall(rb"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", drawn)
    assert b"".join(b"\x1b_G%s;%s\x1b\\" % chunk for chunk in chunks) == drawn
    heads = [dict(pair.split(b"=") for pair in head.split(b",")) for head, _ in chunks]
    assert (heads[0][b"a"], heads[0][b"f"]) == (b"T", b"100")
    assert [head[b"m"] for head in heads] == [b"1"] * (len(heads) - 1) + [b"0"]
    assert all(len(data) <= 4096 for _, data in chunks)
    assert all(len(data) % 4 == 0 for _, data in chunks)
    return Image.open(io.BytesIO(base64.b64decode(b"".join(data for _, data in chunks))))


def from_iterm2(drawn: bytes) -> tuple[dict[bytes, bytes], Image.Image]:
    found = re.fullmatch(rb"\x1b\]1337;File=([^:]*):([A-Za-z0-9+/=]*)\x07", drawn)
    assert found
    data = base64.b64decode(found[2])
    values = dict(pair.split(b"=") for pair in found[1].split(b";"))
    assert int(values[b"size"]) == len(data)
    return values, Image.open(io.BytesIO(data))


def from_sixel(drawn: bytes) -> np.ndarray:
    """The pixels, uint8 [height, width, 3], as a terminal would draw them; each is drawn once."""
    found = re.fullmatch(rb'\x1bP0;1;0q"1;1;(\d+);(\d+)(.*)\x1b\\', drawn, re.DOTALL)
    assert found
    width, height = int(found[1]), int(found[2])
    pixels = np.full((height, width, 3), -1)
    palette = {}
    colour, x, top = None, 0, 0
    token = rb"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)"
    end = 0
    for piece in re.finditer(token, found[3]):
        assert piece.start() == end
        end = piece.end()
        number, red, green, blue, chosen, times, repeated, single, back, down = piece.groups()
        if number:
            assert all(int(part) <= 100 for part in (red, green, blue))
            palette[int(number)] = [round(int(part) * 2.55) for part in (red, green, blue)]
        elif chosen:
            colour = int(chosen)
        elif back:
            x = 0
        elif down:
            x, top = 0, top + 6
        else:
            bits, run = ord(repeated or single) - 63, slice(x, x + int(times or 1))
            for row in range(6):
                if bits >> row & 1:
                    assert (pixels[top + row, run] == -1).all()
                    pixels[top + row, run] = palette[colour]
            x = run.stop
    assert end == len(found[3])
    assert (pixels >= 0).all()
    return pixels


def test_kitty_gets_the_very_pixels_in_chunks(cat):
    assert np.array_equal(np.asarray(from_kitty(kitty(cat))), np.asarray(cat))


def test_iterm2_gets_the_very_pixels_and_a_size_in_characters(cat):
    values, picture = from_iterm2(iterm2(cat, columns=12, rows=5))
    assert np.array_equal(np.asarray(picture), np.asarray(cat))
    assert (values[b"inline"], values[b"width"], values[b"height"]) == (b"1", b"12", b"5")


def test_sixel_draws_every_pixel_in_about_its_colour(cat):
    pixels = from_sixel(sixel(cat))
    difference = np.abs(pixels - np.asarray(cat).astype(int))
    assert pixels.shape == (*cat.size[::-1], 3)
    assert difference.mean() < 6


@given(
    numbers.arrays(
        np.uint8,
        st.tuples(st.integers(1, 14), st.integers(1, 40), st.just(3)),
        elements=st.sampled_from([0, 51, 102, 255]),
    )
)
def test_sixel_keeps_pictures_of_few_colours_as_they_are(pixels):
    # Each of these colours is a whole number of hundredths.
    assert np.array_equal(from_sixel(sixel(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(3000, 20), (20, 3000), (600, 600), (10, 10)])
def test_a_picture_stays_in_its_field_and_is_never_enlarged(way, size):
    drawn = draw(Image.new("RGB", size, "teal"), way, columns=10, rows=5, cell=(8, 16))
    if way == "kitty":
        width, height = from_kitty(drawn).size
    elif way == "iterm2":
        values, picture = from_iterm2(drawn)
        width, height = picture.size
        assert int(values[b"width"]) * 8 < width + 8
        assert int(values[b"height"]) * 16 < height + 16
    else:
        height, width, _ = from_sixel(drawn).shape
    assert 1 <= width <= min(80, size[0])
    assert 1 <= height <= min(80, size[1])


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230802"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
    ],
)
def test_a_terminal_that_says_what_it_is_is_not_asked(environment, way):
    assert way_of(environment, lambda: pytest.fail("it was asked")) == way


@pytest.mark.parametrize(
    ("environment", "answer", "way"),
    [
        ({"TERM": "xterm"}, SIXEL_TERMINAL, "sixel"),
        ({"TERM": "xterm"}, OTHER_TERMINAL, None),
        ({"TERM": "xterm"}, b"", None),
        ({"TERM": "xterm", "KONSOLE_VERSION": "210400"}, OTHER_TERMINAL, None),
        # What is around tmux does not count, but what tmux answers does.
        ({"TERM": "tmux-256color", "TMUX": "/1", "KITTY_WINDOW_ID": "1"}, OTHER_TERMINAL, None),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, OTHER_TERMINAL, None),
        ({"TERM": "xterm-kitty", "TMUX": "/1"}, SIXEL_TERMINAL, "sixel"),
    ],
)
def test_any_other_terminal_is_asked(environment, answer, way):
    assert way_of(environment, lambda: answer) == way


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb", "KITTY_WINDOW_ID": "1"}])
def test_a_dumb_terminal_is_not_asked(environment):
    assert way_of(environment, lambda: pytest.fail("it was asked")) is None


# Asks as the command does; its stdin and stdout are the terminal, and stderr is a pipe.
ASK = """
import sys
from searchlib.cli.terminal_pictures import ask_attributes
print(ask_attributes(0, 1, timeout_seconds=float(sys.argv[1])), file=sys.stderr)
print(repr(sys.stdin.readline() if "read" in sys.argv else ""), file=sys.stderr)
"""


def asked(answer: bytes, *, before: bytes = b"", after: bytes = b"", timeout: float = 30):
    """What a process at a terminal gets for its question, the line that it reads then, and all
    that the terminal showed."""
    ours, theirs = pty.openpty()
    os.write(ours, before)
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, str(timeout), *(["read"] if before or after else [])],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    shown = bytearray()
    answered = not answer

    def play() -> None:
        nonlocal answered
        while process.poll() is None:
            if not select.select([ours], [], [], 0.05)[0]:
                continue
            shown.extend(os.read(ours, 1024))
            if b"\x1b[c" in shown and not answered:
                answered = True
                os.write(ours, answer + after)

    terminal = threading.Thread(target=play)
    terminal.start()
    _, error = process.communicate(timeout=60)
    terminal.join()
    settings = termios.tcgetattr(theirs)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0, error
    assert settings[3] & termios.ECHO
    assert settings[3] & termios.ICANON
    given, line = error.splitlines()
    return eval(given), eval(line), bytes(shown)


def test_a_terminal_answers_and_what_is_typed_afterwards_is_left():
    answer, line, shown = asked(SIXEL_TERMINAL, after=b"next\n")
    assert (answer, line) == (SIXEL_TERMINAL, "next\n")
    assert b"62;4" not in shown


def test_what_was_typed_before_is_not_taken_for_an_answer():
    answer, line, shown = asked(b"", before=b"typed\n")
    assert (answer, line) == (b"", "typed\n")
    assert b"\x1b[c" not in shown


def test_a_terminal_that_does_not_answer_is_not_waited_for():
    answer, _, shown = asked(b"not an answer", timeout=0.2)
    assert answer == b""
    assert b"\x1b[c" in shown


def test_what_is_no_terminal_is_not_asked():
    reading, writing = os.pipe()
    try:
        assert ask_attributes(reading, writing) == b""
        assert not select.select([reading], [], [], 0)[0]
        assert cell_size(writing) == (8, 16)
    finally:
        os.close(reading)
        os.close(writing)


def test_the_size_of_a_character_is_that_of_the_terminal():
    ours, theirs = pty.openpty()
    try:
        assert cell_size(theirs) == (8, 16)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 800, 480))
        assert cell_size(theirs) == (10, 20)
    finally:
        os.close(ours)
        os.close(theirs)
