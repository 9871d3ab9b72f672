"""What all tests share: photographs, libraries, and the command as a person runs it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import skimage.data
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Report

PHOTOGRAPHS = {
    "astronaut.jpg": "astronaut",
    "camera.png": "camera",
    "cat.jpg": "chelsea",
    "clock.png": "clock",
    "coffee.jpg": "coffee",
    "coins.png": "coins",
    "hubble.jpg": "hubble_deep_field",
    "rocket.jpg": "rocket",
}
_SIDE = 400

Completed = subprocess.CompletedProcess[bytes]


class Run(Protocol):
    """Runs `searchlib` with these arguments in a process of its own, and waits for its end.

    Args:
        arguments: of the command line; bytes for what is not valid text.
        env: variables besides the usual ones.
        unprivileged: without root's power to pass over permissions, so that a mode counts.
        options: for subprocess.run; stdout and stderr are captured unless they are given.
    """

    def __call__(
        self,
        *arguments: str | bytes | Path,
        env: Mapping[str, str] = {},
        unprivileged: bool = False,
        **options: Any,
    ) -> Completed: ...


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images with ground truth; the test is skipped where there is none."""
    named = os.environ.get("SEARCHLIB_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared test data: set SEARCHLIB_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def original_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight photographs of up to 400 pixels a side; not to be changed."""
    folder = tmp_path_factory.mktemp("originals") / "photos"
    folder.mkdir()
    for name, source in PHOTOGRAPHS.items():
        image = Image.fromarray(getattr(skimage.data, source)())
        image.thumbnail((_SIDE, _SIDE))
        image.save(folder / name, **({"quality": 90} if name.endswith(".jpg") else {}))
    return folder


@pytest.fixture
def photos(original_photos: Path, tmp_path: Path) -> Path:
    """The eight photographs in a folder of the test's own, as JPEG and PNG files."""
    return shutil.copytree(original_photos, tmp_path / "photos")


@pytest.fixture
def library_folder(tmp_path: Path) -> Path:
    """Where the test's library is to be; nothing is there yet."""
    return tmp_path / "library"


@pytest.fixture(scope="session")
def encoder() -> ImageEncoder:
    """The built-in encoder, opened once."""
    return ImageEncoder()


@pytest.fixture(scope="session")
def _original_library(
    original_photos: Path, encoder: ImageEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("filled") / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.add(original_photos)
    return folder


@pytest.fixture
def filled_library(_original_library: Path, library_folder: Path) -> Path:
    """A library of the test's own that knows `original_photos`."""
    return shutil.copytree(_original_library, library_folder)


@pytest.fixture
def fill(encoder: ImageEncoder, library_folder: Path) -> Callable[..., Report]:
    """Adds paths to the library in `library_folder`, without the cost of another process."""

    def fill(*paths: Path | str, **options: Any) -> Report:
        with searchlib.open_library(library_folder, encoder=encoder) as library:
            return library.add(*paths, **options)

    return fill


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a process that runs the command: nothing of the user's own library."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEARCHLIB_")}
    home = tmp_path_factory.mktemp("home")
    return {**kept, "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="session")
def launch() -> list[str]:
    """What a shell would find under the name `searchlib`."""
    return [sys.executable, "-m", "searchlib.cli"]


@pytest.fixture
def run(environment: dict[str, str], launch: list[str]) -> Run:
    """See Run."""

    def run(
        *arguments: str | bytes | Path,
        env: Mapping[str, str] = {},
        unprivileged: bool = False,
        **options: Any,
    ) -> Completed:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        if unprivileged and os.geteuid() == 0:
            options["preexec_fn"] = _drop_root_powers
        try:
            return subprocess.run(
                [*launch, *arguments],
                env={**environment, **env},
                stdin=subprocess.DEVNULL,
                timeout=300,
                check=False,
                **options,
            )
        except subprocess.SubprocessError as error:
            if "preexec_fn" not in str(error):
                raise
            pytest.skip("this root cannot drop its powers, so modes cannot be tested here")

    return run


# From linux/prctl.h and linux/capability.h: what lets root read and write whatever the modes say.
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def _drop_root_powers() -> None:
    """Called in the child before it becomes the command."""
    libc = ctypes.CDLL(None, use_errno=True)
    for power in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        if libc.prctl(_PR_CAPBSET_DROP, power, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
