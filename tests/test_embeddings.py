"""ImageEmbeddings and TextEmbeddings: each row of the API of React Native ExecuTorch's embeddings.

The rows are `load`, `fromModelName`, `fromCustomModel`, `forward`, `delete`, `isReady`,
`isGenerating`, `error`, `downloadProgress` and `preventLoad`, the kinds of image that `forward`
takes, and the errors.
"""

import asyncio
import base64
import gc
import http.server
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searchlib import FetchPolicy, ImageEmbeddings, TextEmbeddings, errors
from searchlib.encoder import built_in_card, registry
from searchlib.images import load

pytestmark = pytest.mark.usefixtures("models_folder")

QUANTIZED = "clip-vit-base-patch32-image-quantized"


@pytest.fixture(scope="session")
def built_in() -> ImageEmbeddings:
    return ImageEmbeddings("tiny-vit-5m")


@pytest.fixture
def cat(original_photos: Path) -> Path:
    return original_photos / "cat.jpg"


@pytest.fixture(scope="session")
def photographs(original_photos: Path) -> list[Path]:
    return sorted(original_photos.iterdir())


# -- Loading ---------------------------------------------------------------------------------------


def test_load(cat: Path) -> None:
    model = ImageEmbeddings()
    model.load("tiny-vit-5m")
    assert model.is_ready
    assert model.forward(cat).shape == (320,)


def test_from_model_name_downloads_with_progress(hub: Any, cat: Path) -> None:
    shares: list[float] = []
    model = ImageEmbeddings.from_model_name("clip", on_download_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert model.dimension == 512
    vector = model.forward(cat)
    assert vector.shape == (512,)
    assert vector.dtype == np.float32
    assert float(np.linalg.norm(vector.astype(np.float64))) == pytest.approx(1, abs=1e-6)
    assert len(hub.asked) == 1


def test_from_custom_model_takes_a_card(make_card: Callable[..., Path], cat: Path) -> None:
    path = make_card()
    for source in (path, str(path), path.parent):
        model = ImageEmbeddings.from_custom_model(source)
        assert model.forward(cat).shape == (512,)


def test_from_custom_model_takes_a_file_a_uri_and_a_url(
    hub: Any, make_card: Callable[..., Path], cat: Path
) -> None:
    file = make_card().parent / "picture.pte"
    shutil.copy(file, hub.folder / "my.pte")
    shares: list[float] = []
    vectors = [
        ImageEmbeddings.from_custom_model(source, on_download_progress=shares.append).forward(cat)
        for source in (file, str(file), file.as_uri(), f"{hub.url}/my.pte", f"{hub.url}/my.pte")
    ]
    for vector in vectors:
        np.testing.assert_array_equal(vector, vectors[0])
    assert shares[-1] == 1.0
    assert hub.asked == ["/my.pte"]


def test_prevent_load(cat: Path) -> None:
    model = ImageEmbeddings("tiny-vit-5m", prevent_load=True)
    assert model.prevent_load
    assert not model.is_ready
    with pytest.raises(errors.NotLoadedError):
        model.forward(cat)
    model.load()
    assert model.is_ready
    assert not ImageEmbeddings("tiny-vit-5m").prevent_load


def test_download_progress(hub: Any) -> None:
    model = ImageEmbeddings(QUANTIZED, prevent_load=True)
    assert model.download_progress == 0
    seen: list[float] = []
    model.load(on_download_progress=lambda _: seen.append(model.download_progress))
    assert seen[-1] == model.download_progress == 1
    assert len(hub.asked) == 1


def test_is_ready_and_delete(cat: Path) -> None:
    with ImageEmbeddings("tiny-vit-5m") as model:
        assert model.is_ready
    assert not model.is_ready
    model.delete()
    with pytest.raises(errors.NotLoadedError, match="call load first"):
        model.forward(cat)


def test_error_is_that_of_the_last_call(cat: Path) -> None:
    model = ImageEmbeddings("tiny-vit-5m")
    assert model.error is None
    with pytest.raises(errors.SourceError):
        model.forward("nowhere.jpg")
    assert isinstance(model.error, errors.SourceError)
    model.forward(cat)
    assert model.error is None


def test_a_failed_load_leaves_the_model_that_was_loaded(cat: Path) -> None:
    model = ImageEmbeddings("tiny-vit-5m")
    with pytest.raises(errors.ModelSourceError):
        model.load("no-such-model")
    assert isinstance(model.error, errors.ModelSourceError)
    assert model.forward(cat).shape == (320,)


# -- What forward takes ----------------------------------------------------------------------------


@pytest.fixture
def web(original_photos: Path) -> Iterator[str]:
    handler = partial(_Quiet, directory=str(original_photos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_forward_takes_every_kind_of_image(built_in: ImageEmbeddings, cat: Path, web: str) -> None:
    content = cat.read_bytes()
    text = base64.b64encode(content).decode()
    pixels = load(cat).pixels
    same = {
        "path": cat,
        "path as text": str(cat),
        "file URI": cat.as_uri(),
        "URL": f"{web}/cat.jpg",
        "data URI": f"data:image/jpeg;base64,{text}",
        "base64": text,
        "bytes": content,
        "Pillow image": pixels,
        "raw RGB pixels": np.asarray(pixels),
    }
    expected = built_in.forward(cat)
    for kind, image in same.items():
        np.testing.assert_array_equal(built_in.forward(image), expected, err_msg=kind)


def test_forward_for_others_does_not_fetch_from_private_addresses(
    built_in: ImageEmbeddings, web: str
) -> None:
    policy = FetchPolicy(private=False)
    with pytest.raises(errors.SourceError, match="private address"):
        built_in.forward(f"{web}/cat.jpg", fetch_policy=policy)
    with pytest.raises(errors.SourceError, match="private address"):
        asyncio.run(built_in.aforward(f"{web}/cat.jpg", fetch_policy=policy))


def test_forward_of_the_same_picture_from_another_file_is_near(
    built_in: ImageEmbeddings, cat: Path
) -> None:
    buffer = io.BytesIO()
    load(cat).pixels.save(buffer, "JPEG", quality=60)
    assert built_in.forward(cat) @ built_in.forward(buffer.getvalue()) > 0.95


def test_aforward(built_in: ImageEmbeddings, photographs: list[Path]) -> None:
    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(built_in.aforward(path) for path in photographs))

    for path, vector in zip(photographs, asyncio.run(all_at_once()), strict=True):
        np.testing.assert_array_equal(vector, built_in.forward(path))


# -- Errors ----------------------------------------------------------------------------------------


def test_not_loaded() -> None:
    with pytest.raises(errors.NotLoadedError):
        ImageEmbeddings().forward("cat.jpg")
    with pytest.raises(errors.NotLoadedError):
        _ = TextEmbeddings().dimension


def test_already_generating_and_is_generating(built_in: ImageEmbeddings, cat: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(os.PathLike[str]):
        """A path that is asked for while the call is running."""

        def __fspath__(self) -> str:
            begun.set()
            go_on.wait(30)
            return str(cat)

    assert not built_in.is_generating
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(built_in.forward, Slow())
        try:
            assert begun.wait(30)
            assert built_in.is_generating
            with pytest.raises(errors.AlreadyGeneratingError):
                built_in.forward(cat, wait=False)
            with pytest.raises(errors.AlreadyGeneratingError):
                built_in.load("tiny-vit-5m")
            with pytest.raises(errors.AlreadyGeneratingError):
                built_in.delete()
            waited = built_in.forward(cat)
        finally:
            go_on.set()
        np.testing.assert_array_equal(running.result(), waited)
    assert not built_in.is_generating
    built_in.forward(cat, wait=False)


@pytest.mark.parametrize(
    "image",
    [
        "nowhere.jpg",
        b"not a picture",
        base64.b64encode(b"just a text, and no picture at all").decode(),
        "data:image/png;base64,AAAA",
        "",
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        5,
    ],
)
def test_unreadable_image(built_in: ImageEmbeddings, image: Any) -> None:
    with pytest.raises(errors.ImageError):
        built_in.forward(image)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("no-such-model", errors.ModelSourceError, "there is no model 'no-such-model'; known"),
        ("clip-vit-base-patch32-text", errors.ModelSourceError, "is a text model"),
        (5, errors.ModelSourceError, "not int"),
        (b"model.pte", errors.ModelSourceError, "not bytes"),
        (None, errors.ModelSourceError, "no model is named"),
        ("nowhere.pte", errors.ModelFileError, "nowhere.pte"),
        ("nowhere.toml", errors.CardError, "nowhere.toml"),
        ("ftp://example.org/model.pte", errors.DownloadError, "https"),
        ("http://example.org/model.pte", errors.DownloadError, "https"),
    ],
)
def test_invalid_source(source: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        ImageEmbeddings().load(source)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("pair.pte", errors.UnexpectedInputsError),
        ("linear.pte", errors.UnexpectedInputsError),
        ("words.pte", errors.UnexpectedInputsError),
    ],
)
def test_unexpected_inputs(make_card: Callable[..., Path], file: str, error: Any) -> None:
    card = make_card(file)
    for source in (card, card.parent / file):
        with pytest.raises(error, match=file):
            ImageEmbeddings(source)


def test_wrong_dimensions(make_card: Callable[..., Path]) -> None:
    with pytest.raises(errors.WrongDimensionsError, match="512"):
        ImageEmbeddings(make_card(dimension=320))


def test_invalid_output(make_card: Callable[..., Path], cat: Path) -> None:
    model = ImageEmbeddings(make_card("nan_picture.pte"))
    with pytest.raises(errors.OutputError, match="own"):
        model.forward(cat)
    assert isinstance(model.error, errors.OutputError)


def test_damaged_model_file(make_card: Callable[..., Path]) -> None:
    path = make_card()
    file = path.parent / "picture.pte"
    content = file.read_bytes()
    for damaged in (content[:-1], content[:5000], b"x" * len(content), b""):
        file.write_bytes(damaged)
        with pytest.raises(errors.ModelFileError, match=r"picture\.pte"):
            ImageEmbeddings(path)
        if damaged != content[:-1]:  # which is whole as far as the program says
            with pytest.raises(errors.ModelFileError, match=r"picture\.pte"):
                ImageEmbeddings(file)


def test_interrupted_download() -> None:
    """The server promises more than it sends, again and again."""
    content = (Path(__file__).parent / "encoder" / "data" / "picture.pte").read_bytes()

    class Breaking(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:1000])

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        model = ImageEmbeddings()
        with pytest.raises(errors.DownloadInterruptedError):
            model.load(f"http://127.0.0.1:{server.server_port}/model.pte")
        assert isinstance(model.error, errors.DownloadInterruptedError)
        assert not model.is_ready
        server.shutdown()
        thread.join()


def test_offline(hub: Any) -> None:
    with pytest.raises(errors.OfflineError):
        ImageEmbeddings(QUANTIZED, offline=True)
    assert hub.asked == []


# -- Many calls ------------------------------------------------------------------------------------


def test_many_threads_get_the_vectors_of_one_and_no_memory_is_lost(
    built_in: ImageEmbeddings, photographs: list[Path]
) -> None:
    pictures = [load(path).pixels.resize((256, 256)) for path in photographs]
    alone = [built_in.forward(picture) for picture in pictures]

    def call(number: int) -> bool:
        vector = built_in.forward(pictures[number % len(pictures)])
        return np.array_equal(vector, alone[number % len(pictures)])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))
        gc.collect()
        before = _resident()
        assert all(pool.map(call, range(400)))
        gc.collect()
    # What 400 vectors and pictures would take is many times as much.
    assert _resident() - before < 20e6


def _resident() -> int:
    """Bytes of this process in memory, where the system tells; 0 elsewhere."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def test_neither_torch_nor_the_catalog_nor_a_web_client_is_imported(cat: Path) -> None:
    code = (
        "import sys, searchlib\n"
        f"searchlib.ImageEmbeddings('tiny-vit-5m').forward({str(cat)!r})\n"
        "bad = {'torch', 'sqlalchemy', 'faiss', 'httpx', 'httpx2', 'tokenizers', 'pandas'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- Texts -----------------------------------------------------------------------------------------


def test_text_embeddings_of_a_name_and_of_its_image_model(hub: Any) -> None:
    text = TextEmbeddings.from_model_name("clip")
    vector = text.forward("a dog on the beach")
    assert vector.shape == (512,)
    assert vector.dtype == np.float32
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(
        TextEmbeddings("clip-vit-base-patch32-text").forward("a dog on the beach"), vector
    )
    assert len(hub.asked) == 2


def test_text_embeddings_of_a_card(make_text_card: Callable[..., Path]) -> None:
    model = TextEmbeddings.from_custom_model(make_text_card())
    vector = asyncio.run(model.aforward("a photo of a dog"))
    np.testing.assert_array_equal(vector, model.forward("a photo of a dog"))
    assert not np.array_equal(vector, model.forward("a photo of a cat"))
    with pytest.raises(errors.InputError, match="empty"):
        model.forward(" ")


def test_text_embeddings_refuse_what_is_no_text_model(make_card: Callable[..., Path]) -> None:
    with pytest.raises(errors.ModelSourceError, match="use ImageEmbeddings"):
        TextEmbeddings(make_card())
    with pytest.raises(errors.CardError, match="needs a card"):
        TextEmbeddings(make_card(name="other").parent / "picture.pte")
    with pytest.raises(errors.ModelSourceError, match="no text side"):
        TextEmbeddings("tiny-vit-5m")


def test_the_identity_is_that_of_the_card(built_in: ImageEmbeddings) -> None:
    assert built_in.identity == built_in_card().identity
    assert registry.card_for(built_in.identity) is not None


def test_a_picture_of_too_many_pixels_is_refused(built_in: ImageEmbeddings) -> None:
    with pytest.raises(errors.TooLargeError):
        built_in.forward(Image.new("RGB", (100, 100)), max_pixels=9999)
