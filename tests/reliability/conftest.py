"""A library with a quick model, and processes that watch for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import searchlib
from searchlib import ImageEncoder
from searchlib.encoder import custom, load_card
from tests.reliability.disks import Disk, Drive, mount
from tests.reliability.watching import Watch


@dataclass(frozen=True)
class Quick:
    """A library that uses a small model: a vector takes a tenth of the usual time.

    Attributes:
        encoder: of the model.
        env: with which a process finds the model.
    """

    library: Path
    encoder: ImageEncoder
    env: dict[str, str]


@pytest.fixture
def prepare_library(models_folder: Path, make_card: Callable[..., Path]) -> Callable[..., Quick]:
    """Makes an empty library with the quick model in a folder."""
    custom.add(make_card(name="quick"))
    (card,) = (load_card(path) for path in models_folder.rglob("card.toml"))
    encoder = ImageEncoder(card)

    def prepare_library(folder: Path) -> Quick:
        with searchlib.open_library(folder, encoder=encoder) as library:
            library.add()
        return Quick(folder, encoder, {"SEARCHLIB_MODELS": str(models_folder)})

    return prepare_library


@pytest.fixture
def quick(prepare_library: Callable[..., Quick], library_folder: Path) -> Quick:
    """An empty library with the quick model in `library_folder`."""
    return prepare_library(library_folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to be watched."""
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def watch(environment: dict[str, str], launch: list[str]) -> Iterator[Callable[..., Watch]]:
    """Starts `searchlib watch` for a Quick library; what still runs at the end is killed."""
    running: list[Watch] = []

    def watch(
        quick: Quick, *arguments: Any, env: dict[str, str] | None = None, **options: Any
    ) -> Watch:
        arguments = ("--settle", "0.2", *arguments)
        env = {**environment, **quick.env, **(env or {})}
        process = Watch(launch, arguments, quick.library, env=env, **options)
        running.append(process)
        return process

    yield watch
    for process in running:
        process.kill()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small file system in memory; the test is skipped where none can be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", path):
        pytest.skip("a small file system cannot be mounted here")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def _drive(tmp_path: Path, *, real: bool) -> Iterator[Drive]:
    drive = Drive(tmp_path / "drive", tmp_path / "backing", real=real)
    try:
        if not drive.make():
            pytest.skip("nothing can be mounted here")
        drive.plug()
        yield drive
    finally:
        drive.close()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """A drive that can be pulled and plugged, with a file system of its own."""
    yield from _drive(tmp_path, real=True)


@pytest.fixture(params=["device", "bind"])
def any_drive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Drive]:
    """The same, and then one that is bound from elsewhere."""
    yield from _drive(tmp_path, real=request.param == "device")
