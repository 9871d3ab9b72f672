"""What all tests share: photographs, libraries, and the command as a person runs it."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import skimage.data
from PIL import Image

import searchlib
from searchlib import ImageEncoder, Report
from searchlib.catalog import Catalog, Facts, NewContent, ReadFile, Stat
from searchlib.encoder import ModelCard, TextCard, built_in_card
from searchlib.encoder.card import card_as_toml
from searchlib.encoder.contract import bare_card

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
LARGE = 10_500
"""How many vectors a large library has; the recipe `inverted` begins at 10,000."""

MODELS = Path(__file__).parent / "encoder" / "data"
CLIP_FILES = "software-mansion/react-native-executorch-clip-vit-base-patch32/resolve/v0.9.0"
CLIP_MODELS = {
    "clip_vit_base_patch32_image_xnnpack_fp32.pte": "pictures.pte",
    "clip_vit_base_patch32_image_xnnpack_int8.pte": "picture.pte",
    "clip_vit_base_patch32_text_xnnpack_fp32.pte": "words.pte",
}

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
def cropping_card(encoder: ImageEncoder) -> ModelCard:
    """Another model without a download: the built-in one sees the middle of each picture only."""
    preprocessing = dataclasses.replace(encoder.card.preprocessing, resize="crop")
    return dataclasses.replace(encoder.card, name="cropping", preprocessing=preprocessing)


@pytest.fixture(scope="session")
def cropping(cropping_card: ModelCard) -> ImageEncoder:
    """The encoder of that model, opened once."""
    return ImageEncoder(cropping_card)


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


@pytest.fixture(scope="session")
def _original_large_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = built_in_card()
    random = np.random.default_rng(1)
    centres = random.normal(size=(100, card.dimension))
    noise = random.normal(size=(LARGE, card.dimension))
    vectors = centres[random.integers(0, len(centres), LARGE)] + 0.7 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = Facts(bytes=10, format="JPEG", width=4, height=3)
    files = [
        ReadFile(
            f"/{n:06}.jpg",
            Stat(1, n, n),
            n.to_bytes(32, "big"),
            None,
            NewContent(facts, vector),
        )
        for n, vector in enumerate(vectors.astype(np.float32))
    ]
    folder = tmp_path_factory.mktemp("large") / "library"
    catalog = Catalog(folder, create=True)
    model = catalog.use_model(identity=card.identity, name=card.name, dimension=card.dimension)
    catalog.record(model, files, gone=lambda _: False)
    catalog.close()
    return folder


@pytest.fixture
def large_library(_original_large_library: Path, library_folder: Path) -> Path:
    """A library of the test's own with `LARGE` vectors, enough for an approximate index."""
    return shutil.copytree(_original_large_library, library_folder)


@pytest.fixture
def fill(encoder: ImageEncoder, library_folder: Path) -> Callable[..., Report]:
    """Adds paths to the library in `library_folder`, without the cost of another process."""

    def fill(*paths: Path | str, **options: Any) -> Report:
        with searchlib.open_library(library_folder, encoder=encoder) as library:
            return library.add(*paths, **options)

    return fill


@pytest.fixture
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are kept in this test; nothing is there yet."""
    folder = tmp_path / "models"
    monkeypatch.setenv("SEARCHLIB_MODELS", str(folder))
    return folder


@pytest.fixture
def make_card(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image model of the tests' data and its card, with other fields where given."""

    def make_card(file: str = "picture.pte", /, name: str = "own", **fields: Any) -> Path:
        folder = tmp_path / f"card-{name}"
        folder.mkdir()
        path = Path(shutil.copy(MODELS / file, folder))
        card = dataclasses.replace(
            bare_card(MODELS / "picture.pte"),
            **{
                "name": name,
                "path": path,
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                **fields,
            },
        )
        (folder / "card.toml").write_text(card_as_toml(card), encoding="utf-8")
        return folder / "card.toml"

    return make_card


@pytest.fixture
def tokenizer_json() -> str:
    """A real tokenizer of a few words, with a mark at the start and at the end, as CLIP has."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    words = [
        "<start>",
        "<end>",
        "<unknown>",
        *["a", "dog", "cat", "on", "the", "beach", "photo", "of", "is"],
    ]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return str(tokenizer.to_str())


@pytest.fixture
def make_text_card(tmp_path: Path, tokenizer_json: str) -> Callable[..., Path]:
    """Writes a text model of the tests' data, its tokenizer and its card."""

    def make_text_card(
        file: str = "words.pte", /, name: str = "words", max_tokens: int = 77, **fields: Any
    ) -> Path:
        folder = tmp_path / f"card-{name}"
        folder.mkdir()
        path = Path(shutil.copy(MODELS / file, folder))
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_text(tokenizer_json, encoding="utf-8")
        card = TextCard(
            **{
                "name": name,
                "summary": "a text model for tests",
                "path": path,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
                "dimension": 512,
                "licence": "MIT",
                "source": "the tests",
                "tokenizer": tokenizer,
                "tokenizer_sha256": hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
                "max_tokens": max_tokens,
                **fields,
            }
        )
        (folder / "card.toml").write_text(card_as_toml(card), encoding="utf-8")
        return folder / "card.toml"

    return make_text_card


class Hub(Protocol):
    """A server of files on this machine, which stands in the place of Hugging Face.

    Attributes:
        folder: what it serves; a path of Hugging Face is a path below it.
        url: of it, without a slash at its end.
        asked: the paths of all requests so far.
    """

    folder: Path
    url: str
    asked: list[str]


@pytest.fixture
def hub(tmp_path: Path, tokenizer_json: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with CLIP's files, which have the published names and are models of the tests."""
    folder = tmp_path / "hub"
    files = folder / CLIP_FILES
    (files / "xnnpack").mkdir(parents=True)
    for name, model in CLIP_MODELS.items():
        shutil.copy(MODELS / model, files / "xnnpack" / name)
    (files / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield types.SimpleNamespace(folder=folder, url=url, asked=asked)
        server.shutdown()
        thread.join()


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
