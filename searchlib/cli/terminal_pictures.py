"""Pictures in a terminal: which way this one knows, and the bytes that draw a picture.

- iTerm2's inline images: https://iterm2.com/documentation-images.html (iTerm2, WezTerm, mintty)
- Kitty's graphics: https://sw.kovidgoyal.net/kitty/graphics-protocol/ (Kitty, Ghostty, Konsole)
- Sixel, of DEC's VT340: https://vt100.net/docs/vt3xx-gp/chapter14.html (xterm, foot, tmux, ...)

Each picture is drawn from the cursor on, to the right and down; where the cursor stands afterwards
differs, so whoever draws saves and restores it.
"""

from __future__ import annotations

import base64
import io
import os
import re
import select
import sys
import time
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from PIL import Image

Way = Literal["iterm2", "kitty", "sixel"]
WAYS: tuple[Way, ...] = get_args(Way)

_ITERM2_PROGRAMS = {"iTerm.app", "WezTerm", "mintty"}
_KITTY_TERMS = {"xterm-kitty", "xterm-ghostty"}
# Konsole writes 22.04.0 as 220400; it knows Kitty's way since then.
_KONSOLE_SINCE = 220400

# Primary device attributes (DA1). Every terminal answers, and 4 among the numbers is sixel.
_DA1 = b"\x1b[c"
_DA1_ANSWER = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL_ATTRIBUTE = b"4"
# Most answer within a millisecond; the rest of the wait is for those at the far end of a network.
_ANSWER_SECONDS = 0.5

# What a terminal is taken to have where it does not say: smaller than nearly all, so that no
# picture is larger than its place.
_USUAL_CELL = (8, 16)

_KITTY_CHUNK = 4096
_COLOURS = 256
_SIXEL_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)


def way_of_terminal(environment: Mapping[str, str] = os.environ) -> Way | None:
    """How the terminal of this process draws pictures; None where it cannot, or nobody knows.

    What its variables leave open it is asked itself, where both stdin and stdout are terminals.
    """
    return way_of(environment, _attributes_of_terminal)


def way_of(environment: Mapping[str, str], attributes: Callable[[], bytes]) -> Way | None:
    """How a terminal draws pictures.

    Args:
        environment: the variables that it set.
        attributes: gives its answer to DA1; called only where the variables do not tell.
    """
    term = environment.get("TERM", "")
    program = environment.get("TERM_PROGRAM", "")
    if term in ("", "dumb"):
        return None
    # Within tmux and screen the variables are those of a terminal around them, and only what they
    # answer themselves counts.
    if "TMUX" not in environment and not term.startswith(("screen", "tmux")):
        if "KITTY_WINDOW_ID" in environment or term in _KITTY_TERMS or program == "ghostty":
            return "kitty"
        konsole = environment.get("KONSOLE_VERSION", "")
        if konsole.isdecimal() and int(konsole) >= _KONSOLE_SINCE:
            return "kitty"
        if program in _ITERM2_PROGRAMS or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
    answer = _DA1_ANSWER.search(attributes())
    return "sixel" if answer and _SIXEL_ATTRIBUTE in answer[1].split(b";") else None


def ask_attributes(
    reading: int, writing: int, *, timeout_seconds: float = _ANSWER_SECONDS
) -> bytes:
    """Ask a terminal for its primary device attributes.

    Args:
        reading, writing: file descriptors of the terminal.
        timeout_seconds: how long to wait for the answer.

    Returns:
        The answer; empty where there is none, and where somebody has typed something already,
        which is meant for the next command.
    """
    try:
        import termios
        import tty
    except ImportError:  # no terminal of this kind on Windows
        return b""
    try:
        # A job in the background is stopped when it changes the terminal.
        if os.tcgetpgrp(reading) != os.getpgrp():
            return b""
        before = termios.tcgetattr(reading)
    except (OSError, termios.error):
        return b""
    try:
        # The answer comes as if it were typed: not to be shown, nor to wait for the end of a line.
        tty.setcbreak(reading, termios.TCSANOW)
        if select.select([reading], [], [], 0)[0]:
            return b""
        os.write(writing, _DA1)
        return _read_answer(reading, time.monotonic() + timeout_seconds)
    except (OSError, termios.error):
        return b""
    finally:
        termios.tcsetattr(reading, termios.TCSANOW, before)


def _read_answer(reading: int, deadline: float) -> bytes:
    answer = b""
    while not _DA1_ANSWER.search(answer):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return b""
        # One by one: what comes behind the answer was typed by somebody.
        piece = os.read(reading, 1)
        if not piece:
            return b""
        answer += piece
    return answer


def _attributes_of_terminal() -> bytes:
    for stream in (sys.stdin, sys.stdout):
        if stream is None or stream.closed or not stream.isatty():
            return b""
    sys.stdout.flush()
    return ask_attributes(sys.stdin.fileno(), sys.stdout.fileno())


def cell_size(terminal: int) -> tuple[int, int]:
    """Width and height in pixels of a character of a terminal, given by a file descriptor."""
    try:
        import fcntl
        import struct
        import termios

        size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
    except (ImportError, OSError):
        return _USUAL_CELL
    rows, columns, width, height = struct.unpack("HHHH", size)
    if not (rows and columns and width >= columns and height >= rows):
        return _USUAL_CELL
    return width // columns, height // rows


def draw(image: Image.Image, way: Way, *, columns: int, rows: int, cell: tuple[int, int]) -> bytes:
    """The bytes that draw a picture in a field of characters; never larger than it is.

    Args:
        image: mode RGB.
        way: that the terminal knows.
        columns, rows: of the field, in characters.
        cell: width and height of a character in pixels.
    """
    small = image.copy()
    small.thumbnail((columns * cell[0], rows * cell[1]), Image.Resampling.LANCZOS)
    if way == "kitty":
        return kitty(small)
    if way == "sixel":
        return sixel(small)
    wide, high = -(-small.width // cell[0]), -(-small.height // cell[1])
    return iterm2(small, columns=wide, rows=high)


def iterm2(image: Image.Image, *, columns: int, rows: int) -> bytes:
    """A picture for iTerm2, fitted into so many characters."""
    data = _png(image)
    head = f"inline=1;size={len(data)};width={columns};height={rows};preserveAspectRatio=1"
    return b"\x1b]1337;File=" + head.encode() + b":" + base64.b64encode(data) + b"\a"


def kitty(image: Image.Image) -> bytes:
    """A picture for Kitty, in chunks as it wants them, and without an answer to be read."""
    data = base64.b64encode(_png(image))
    chunks = [data[at : at + _KITTY_CHUNK] for at in range(0, len(data), _KITTY_CHUNK)]
    drawn = bytearray()
    for number, chunk in enumerate(chunks):
        head = "a=T,f=100,q=2," if number == 0 else ""
        more = int(number < len(chunks) - 1)
        drawn += f"\x1b_G{head}m={more};".encode() + chunk + b"\x1b\\"
    return bytes(drawn)


def sixel(image: Image.Image) -> bytes:
    """A picture as sixels: up to 256 colours, in bands of six rows.

    Each band is drawn once for each of its colours: a character stands for six pixels one below
    the other, with a bit set for those of the colour, and `!N` repeats the next character.
    """
    reduced = image.quantize(_COLOURS, dither=Image.Dither.FLOYDSTEINBERG)
    palette = np.array(reduced.getpalette(), dtype=np.int64).reshape(-1, 3)
    pixels = np.asarray(reduced)
    height, width = pixels.shape
    drawn = bytearray(f'\x1bP0;1;0q"1;1;{width};{height}'.encode())
    for colour in np.unique(pixels).tolist():
        red, green, blue = (int(part) for part in (palette[colour] * 100 + 127) // 255)
        drawn += f"#{colour};2;{red};{green};{blue}".encode()
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        bits = (1 << np.arange(len(band), dtype=np.uint8))[:, None]
        for number, colour in enumerate(np.unique(band).tolist()):
            line = (np.where(band == colour, bits, 0).sum(axis=0) + 63).astype(np.uint8).tobytes()
            shown = _SIXEL_RUN.sub(_repeated, line.rstrip(b"?"))
            drawn += b"%s#%d%s" % (b"$" if number else b"", colour, shown)
        drawn += b"-"
    return bytes(drawn) + b"\x1b\\"


def _repeated(run: re.Match[bytes]) -> bytes:
    return b"!%d%s" % (len(run[0]), run[1])


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
