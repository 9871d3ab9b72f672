"""The examples of docs/cli.md are run, in their order, and do what the page says.

In a block of `console` a line that begins with `$ ` is given to a shell, in a folder with
photographs below `Photos`; lines that begin with `> ` go on with it. What it prints follows, with
`...` for whatever may differ: a part of a line, or whole lines where it stands alone. An exit code
other than 0 stands at the end as `[exit code 1]`. A command that ends with ` &` goes on in the
background until the end of the page; what follows is only run when it has printed what it should.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from searchlib.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
HOME = "/home/me"
PORT = "8765"
GROUPS = ("models", "index", "vectors", "folders", "export")

_EXIT_CODE = re.compile(r"\[exit code (\d+)\]")


@dataclass(frozen=True)
class Example:
    """A command of the page, the lines that it is to print, and its exit code."""

    line: int
    command: str
    output: tuple[str, ...]
    code: int

    @property
    def is_background(self) -> bool:
        return self.command.endswith(" &")


def examples() -> list[Example]:
    found = []
    lines = enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1)
    for _, line in lines:
        if line != "```console":
            continue
        block: list[tuple[int, str, list[str]]] = []
        for number, inside in lines:
            if inside == "```":
                break
            if inside.startswith("$ "):
                block.append((number, inside[2:], []))
            elif inside.startswith("> "):
                at, command, output = block[-1]
                block[-1] = at, f"{command}\n{inside[2:]}", output
            else:
                block[-1][2].append(inside)
        for at, command, output in block:
            code = _EXIT_CODE.fullmatch(output[-1]) if output else None
            shown = output[:-1] if code else output
            found.append(Example(at, command, tuple(shown), int(code[1]) if code else 0))
    return found


def pattern(output: tuple[str, ...]) -> str:
    """A regular expression of the lines."""
    return "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*?") + r"\n"
        for line in output
    )


def test_a_wildcard_stands_for_a_part_of_a_line_or_for_lines():
    wild = pattern(("one ... three", "...", "last"))
    assert re.fullmatch(wild, "one two three\nlast\n")
    assert re.fullmatch(wild, "one 2 three\na\n\nb\nlast\n")
    assert not re.fullmatch(wild, "one two\nthree\nlast\n")
    assert not re.fullmatch(wild, "one two three\nlast\nmore\n")
    assert not re.fullmatch(pattern(("a.b",)), "axb\n")


class Reader:
    """Runs the examples as somebody who reads the page would, at home with some photographs."""

    def __init__(self, home: Path, environment: dict[str, str], port: int) -> None:
        self._home = home
        self._environment = environment
        self._port = str(port)
        self._background: list[subprocess.Popen[bytes]] = []

    def run(self, example: Example) -> str | None:
        """Run an example; gives what is wrong, or None."""
        command = example.command.replace(PORT, self._port)
        if example.is_background:
            return self._start(command.removesuffix(" &"), example)
        if command.startswith("curl ") and shutil.which("curl") is None:
            return None  # the tests of the server ask it the same
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self._home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        return self._compared(example, done.stdout, done.returncode)

    def _start(self, command: str, example: Example) -> str | None:
        log = self._home / f"background-{example.line}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=self._home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._background.append(process)
        wanted = re.compile(pattern(example.output))
        for _ in range(600):
            if wanted.match(self._shown(log.read_bytes())):
                return None
            if process.poll() is not None:
                break
            time.sleep(0.1)
        return self._compared(example, log.read_bytes(), process.returncode or 0)

    def _compared(self, example: Example, output: bytes, code: int) -> str | None:
        shown = self._shown(output)
        if re.fullmatch(pattern(example.output), shown) and code == example.code:
            return None
        expected = "\n".join(example.output)
        return (
            f"docs/cli.md:{example.line}: {example.command}\n"
            f"-- expected, exit code {example.code}:\n{expected}\n"
            f"-- printed, exit code {code}:\n{shown}"
        )

    def _shown(self, output: bytes) -> str:
        text = output.decode("utf-8", "backslashreplace")
        text = text.replace(str(self._home), HOME).replace(self._port, PORT)
        return text if text.endswith("\n") or not text else f"{text}\n"

    def end(self) -> list[int]:
        """Ask what goes on in the background to end; gives the exit codes."""
        for process in self._background:
            process.terminate()
        return [process.wait(timeout=30) for process in self._background]


@pytest.fixture
def reader(
    tmp_path: Path, photos: Path, hub: Any, make_card: Any, environment: dict[str, str]
) -> Iterator[Reader]:
    home = tmp_path / "home"
    home.mkdir()
    photos.rename(home / "Photos")
    shutil.copytree(make_card(name="mine").parent, home / "mine")
    shutil.copy(home / "Photos" / "rocket.jpg", home / "holiday.jpg")
    with (home / "holiday.jpg").open("ab") as file:
        file.write(b"\0")  # other bytes, the same picture: it is embedded
    programs = tmp_path / "bin"
    programs.mkdir()
    launcher = programs / "searchlib"
    start = "import sys; sys.argv[0] = 'searchlib'; from searchlib.cli import main; main()"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-c", start])} "$@"\n')
    launcher.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reader = Reader(
        home,
        {
            **environment,
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / ".local" / "share"),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(PAGE.parent.parent),
            "HF_ENDPOINT": hub.url,
            "COLUMNS": "80",
        },
        port,
    )
    yield reader
    reader.end()


def test_the_examples_do_what_the_page_says(reader):
    wrong = [said for example in examples() if (said := reader.run(example))]
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)
    assert set(reader.end()) <= {0, 143}


def names() -> list[str]:
    """Of all commands, and of the commands below those that have some."""
    below = []
    for group in GROUPS:
        command = main.commands[group]
        assert isinstance(command, click.Group)
        below += [f"{group} {name}" for name in command.commands]
    return [*main.commands, *below]


@pytest.mark.parametrize("name", names())
def test_every_command_has_an_example(name):
    words = name.split()
    commands = [shlex.split(example.command, comments=True) for example in examples()]
    assert any(each[1 : 1 + len(words)] == words for each in commands if each[0] == "searchlib")
