"""A file in a process of its own: read as elsewhere, and unable to end anything but that process.

What a broken picture does to a decoder is really done in the child: a `sitecustomize` module on its
path makes Pillow's JPEG decoder crash, hang or allocate at a picture of one odd size.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

import searchlib
from searchlib.catalog import ReadFile, SkippedFile
from searchlib.encoder import built_in_card
from searchlib.errors import EncoderError, ModelFileError
from searchlib.images import DEFAULT_MAX_PIXELS
from searchlib.ingest.alone import read_alone
from searchlib.ingest.place import stat_of
from searchlib.ingest.read import read_file
from searchlib.ingest.walk import Found

BROKEN_SIZE = (83, 59)
MB = 1 << 20


def found(path: Path) -> Found:
    return Found(str(path), stat_of(path.stat()), str(path.parent))


def alone(path: Path, **options) -> ReadFile | SkippedFile:
    return read_alone(found(path), built_in_card(), **{"max_pixels": DEFAULT_MAX_PIXELS, **options})


def crash(path: Path, reason: str) -> SkippedFile:
    return SkippedFile(str(path), stat_of(path.stat()), str(path.parent), reason, failure="crash")


def assert_read_as_here(path: Path, encoder, **options) -> ReadFile:
    """The same outcome as in this process, with the same vector to the last bit."""
    options = {"max_pixels": DEFAULT_MAX_PIXELS, **options}
    there = read_alone(found(path), encoder.card, **options)
    here = read_file(found(path), encoder, known=lambda _: False, thumbnails=None, **options)
    assert isinstance(there, ReadFile)
    assert there.content.vector.tobytes() == here.content.vector.tobytes()
    assert there.content.vector.dtype == here.content.vector.dtype
    assert there.content.facts == here.content.facts
    plain = dataclasses.replace(there, content=None)
    assert plain == dataclasses.replace(here, content=None)
    return there


@pytest.fixture
def broken(tmp_path) -> Path:
    """The picture at which the decoder of `break_decoder` breaks."""
    path = tmp_path / "broken.jpg"
    Image.fromarray(skimage.data.astronaut()).resize(BROKEN_SIZE).save(path)
    return path


@pytest.fixture
def break_decoder(tmp_path, monkeypatch):
    """Makes the decoder of new processes do this at a picture of BROKEN_SIZE."""

    def break_decoder(*does: str) -> None:
        lines = "\n".join(f"        {line}" for line in does)
        code = f"""
import ctypes, os, signal, subprocess, sys, time
from PIL.JpegImagePlugin import JpegImageFile

really = JpegImageFile.load_prepare

def load_prepare(self):
    if self.size == {BROKEN_SIZE}:
{lines}
    really(self)

JpegImageFile.load_prepare = load_prepare
"""
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return break_decoder


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(done)


# -- Files that end nothing ----------------------------------------------------------------------


def test_a_photograph_gets_the_vector_that_it_gets_in_this_process(original_photos, encoder):
    assert_read_as_here(original_photos / "camera.png", encoder)


def test_a_picture_of_the_corpus_gets_the_vector_that_it_gets_here(shared_data, encoder):
    assert_read_as_here(shared_data / "bad" / "exif_orientation" / "Landscape_6.jpg", encoder)


def test_another_model_is_used_where_its_card_is_given(original_photos, cropping):
    assert_read_as_here(original_photos / "coffee.jpg", cropping)


def test_a_name_that_is_no_text_is_read_too(original_photos, tmp_path, encoder):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/not \xff text\n.jpg"))
    path.write_bytes((original_photos / "cat.jpg").read_bytes())
    assert_read_as_here(path, encoder)


def test_it_works_where_searchlib_is_found_by_a_changed_path_only(
    original_photos, tmp_path, monkeypatch, encoder
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "searchlib").symlink_to(Path(searchlib.__file__).parent)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [str(elsewhere), *sys.path])
    assert_read_as_here(original_photos / "cat.jpg", encoder)


def test_what_is_no_picture_is_refused_as_in_this_process(tmp_path, encoder):
    path = tmp_path / "words.jpg"
    path.write_text("these are words")
    here = read_file(
        found(path), encoder, known=lambda _: False, max_pixels=DEFAULT_MAX_PIXELS, thumbnails=None
    )
    assert isinstance(here, SkippedFile)
    assert alone(path) == here
    assert here.failure == "content"


def test_a_file_that_is_gone_is_no_crash(broken):
    gone = found(broken)
    broken.unlink()
    outcome = read_alone(gone, built_in_card(), max_pixels=DEFAULT_MAX_PIXELS)
    assert isinstance(outcome, SkippedFile)
    assert outcome.failure == "access"
    assert outcome.stat == gone.stat


def test_the_largest_size_holds_there_too(original_photos):
    outcome = alone(original_photos / "cat.jpg", max_pixels=1000)
    assert isinstance(outcome, SkippedFile)
    assert outcome.failure == "content"
    assert "the limit is 1000" in outcome.reason


def test_what_native_code_prints_does_not_spoil_the_answer(broken, break_decoder, encoder):
    break_decoder("os.write(1, b'noise' * 100_000)", "os.write(2, b'noise' * 100_000)")
    assert_read_as_here(broken, encoder)


def test_a_crash_leaves_no_core_file(broken, break_decoder):
    break_decoder("import resource; sys.exit(resource.getrlimit(resource.RLIMIT_CORE)[0] + 40)")
    assert alone(broken) == crash(broken, "decoding it ended the process (exit code 40)")


# -- Files that end the process ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("ctypes.string_at(0)", "decoding it ended the process (signal SIGSEGV)"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "decoding it was ended by SIGKILL, most likely for want of memory",
        ),
        (
            "os.write(2, b'codec: broken table\\n'); os._exit(1)",
            "decoding it ended the process (codec: broken table)",
        ),
    ],
)
def test_a_picture_that_ends_its_decoder_is_reported(broken, break_decoder, does, reason):
    break_decoder(does)
    assert alone(broken) == crash(broken, reason)


def test_an_allocation_that_ends_a_native_decoder_is_told_as_such(broken, break_decoder):
    break_decoder(
        "os.write(2, b'terminate called after throwing\\n  what():  std::bad_alloc\\n')",
        "os.abort()",
    )
    assert alone(broken, memory_bytes=3 << 30) == crash(
        broken, "decoding it needs more than 3 GB of memory"
    )


# -- Time ----------------------------------------------------------------------------------------


def test_a_picture_that_never_comes_to_its_end_is_given_up_with_all_it_started(
    broken, break_decoder, tmp_path
):
    started = tmp_path / "started"
    break_decoder(
        "helper = subprocess.Popen(['sleep', '600'])",
        f"open({str(started)!r}, 'w').write(str(helper.pid))",
        "while True: pass",
    )
    assert alone(broken, seconds=0.5) == crash(broken, "decoding it took more than 0.5 s")
    helper = int(started.read_text())
    assert wait_for(lambda: not is_running(helper))


def test_a_crash_is_told_though_something_that_it_started_lives_on(broken, break_decoder, tmp_path):
    started = tmp_path / "started"
    break_decoder(
        "helper = subprocess.Popen(['sleep', '600'])",
        f"open({str(started)!r}, 'w').write(str(helper.pid))",
        "os.abort()",
    )
    assert alone(broken, seconds=0.5) == crash(
        broken, "decoding it ended the process (signal SIGABRT)"
    )
    helper = int(started.read_text())
    assert wait_for(lambda: not is_running(helper))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not end orphans")
def test_the_child_dies_with_its_parent(broken, break_decoder, tmp_path):
    started = tmp_path / "started"
    break_decoder(
        f"open({str(started)!r}, 'w').write(str(os.getpid()))",
        "time.sleep(600)",
    )
    code = """
import sys
from pathlib import Path
from searchlib.encoder import built_in_card
from searchlib.ingest.alone import read_alone
from searchlib.ingest.place import stat_of
from searchlib.ingest.walk import Found
path = sys.argv[1]
read_alone(Found(path, stat_of(Path(path).stat()), None), built_in_card(), max_pixels=10**6)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, broken])
    try:
        assert wait_for(lambda: started.exists() and started.read_text())
        child = int(started.read_text())
        assert is_running(child)
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not is_running(child))


# -- Memory --------------------------------------------------------------------------------------

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")


def write_large_png(path: Path, side: int) -> None:
    """A grey PNG of zeros, without ever holding it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(1)
    row = bytes(side + 1)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@linux_only
def test_a_picture_that_needs_too_much_memory_is_given_up(tmp_path):
    path = tmp_path / "large.png"
    write_large_png(path, 30_000)
    assert path.stat().st_size < 8 * MB
    outcome = alone(path, max_pixels=10**9, memory_bytes=200 * MB)
    assert outcome == crash(path, "decoding it needs more than 200 MB of memory")


@linux_only
@pytest.mark.parametrize(
    ("name", "options"),
    [("x.webp", {"lossless": True, "method": 0}), ("x.jpg", {"progressive": True})],
)
def test_a_good_picture_is_not_called_damaged_for_want_of_memory(tmp_path, name, options):
    path = tmp_path / name
    Image.new("RGB", (4000, 4000)).save(path, **options)
    outcome = alone(path, max_pixels=16_000_000, memory_bytes=MB)
    # It may have come to its end before its memory was looked at.
    assert isinstance(outcome, ReadFile) or outcome.failure == "crash"


@linux_only
def test_memory_that_is_taken_at_once_is_refused(broken, break_decoder):
    break_decoder("bytearray(64 << 30)")
    assert alone(broken, memory_bytes=1 << 30) == crash(
        broken, "decoding it needs more than 1 GB of memory"
    )


@linux_only
def test_memory_that_is_taken_bit_by_bit_is_seen(broken, break_decoder):
    break_decoder(
        "held = []",
        "for _ in range(30): held.append(b'x' * (16 << 20)); time.sleep(0.02)",
        "time.sleep(600)",
    )
    assert alone(broken, seconds=60, memory_bytes=200 * MB) == crash(
        broken, "decoding it needs more than 200 MB of memory"
    )


# -- What is no fault of the file ----------------------------------------------------------------


def test_a_model_that_is_missing_is_no_fault_of_the_file(original_photos, tmp_path):
    card = dataclasses.replace(built_in_card(), path=tmp_path / "none.pte")
    with pytest.raises(ModelFileError, match=r"none\.pte: the model file cannot be read"):
        read_alone(found(original_photos / "cat.jpg"), card, max_pixels=DEFAULT_MAX_PIXELS)


def test_an_interpreter_that_cannot_be_started_is_no_fault_of_the_file(
    original_photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(EncoderError, match=r"no-python: no process .* can be started"):
        alone(original_photos / "cat.jpg")


def test_a_process_that_ends_before_the_encoder_works_is_no_fault_of_the_file(
    original_photos, tmp_path, monkeypatch
):
    folder = tmp_path / "site"
    folder.mkdir()
    # At the first picture that is embedded, which is not the file.
    (folder / "sitecustomize.py").write_text(
        "import os, PIL.Image\nPIL.Image.linear_gradient = lambda *_: os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with pytest.raises(EncoderError, match=r"ended before it was ready \(signal SIGABRT\)"):
        alone(original_photos / "cat.jpg")


def test_an_interrupted_wait_ends_the_child(broken, break_decoder, tmp_path):
    started = tmp_path / "started"
    break_decoder(
        f"open({str(started)!r}, 'w').write(str(os.getpid()))",
        "time.sleep(600)",
    )

    def interrupt(_signal, _frame) -> None:
        if started.exists() and started.read_text():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            alone(broken, seconds=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not is_running(int(started.read_text()))
