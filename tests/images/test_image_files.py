import io
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from blake3 import blake3
from PIL import Image

from searchlib.errors import DecodeError, SourceError
from searchlib.images import Fingerprint, fingerprint, load, open_file
from searchlib.images.files import HOLD_BYTES

BLAKE3_OF_NOTHING = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.fixture
def large(tmp_path, wide_photo):
    """A compressed TIFF with a tail that makes it too large to hold; the tail takes no disk."""
    path = tmp_path / "large.tif"
    wide_photo.save(path, compression="tiff_lzw")
    os.truncate(path, HOLD_BYTES + 4096)
    return path


def refused(path):
    with pytest.raises(SourceError) as caught:
        open_file(path)
    assert str(caught.value) == f"{caught.value.source}: {caught.value.reason}"
    for operation in (load, fingerprint):
        with pytest.raises(SourceError) as again:
            operation(path)
        assert again.value.reason == caught.value.reason
    assert caught.value.lasting is False
    return caught.value.reason


def test_the_digest_is_blake3_of_the_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"some bytes" * 1000)
    expected = blake3(b"some bytes" * 1000).digest()
    assert fingerprint(path) == Fingerprint(expected, 10_000)
    assert fingerprint(b"some bytes" * 1000) == Fingerprint(expected, 10_000)
    assert fingerprint(b"").digest.hex() == BLAKE3_OF_NOTHING
    with open_file(path) as opened:
        assert opened.fingerprint == fingerprint(path)


def test_an_opened_file_tells_what_lies_on_disk(tmp_path, photo):
    path = tmp_path / "a.png"
    photo.save(path)
    status = path.stat()
    with open_file(path) as opened:
        assert opened.path == str(path)
        assert opened.size == status.st_size
        assert opened.mtime_ns == status.st_mtime_ns
        assert (opened.device, opened.inode) == (status.st_dev, status.st_ino)


def test_an_opened_file_is_decoded_from_what_was_read(tmp_path, photo):
    path = tmp_path / "a.png"
    photo.save(path)
    with open_file(path) as opened:
        path.write_bytes(b"something else")
        loaded = opened.load()
        assert loaded.pixels.tobytes() == photo.tobytes()
        assert loaded.digest == opened.digest
        assert opened.load().pixels.size == photo.size
    opened.close()


def test_a_large_file_is_hashed_and_decoded_without_holding_it(large, wide_photo):
    with open_file(large) as opened:
        assert opened.size == HOLD_BYTES + 4096
        assert opened.fingerprint == fingerprint(large)
        for _ in range(2):
            assert opened.load().pixels.tobytes() == wide_photo.tobytes()


def test_a_large_file_that_changes_after_it_was_hashed_is_refused(large):
    with open_file(large) as opened:
        os.truncate(large, HOLD_BYTES + 1)
        with pytest.raises(SourceError, match="changed while being read") as caught:
            opened.load()
    assert caught.value.lasting is False


def test_a_large_file_that_is_cut_short_does_not_end_the_process(large):
    program = """
import os, sys
from searchlib.errors import SourceError
from searchlib.images import open_file
opened = open_file(sys.argv[1])
os.truncate(sys.argv[1], 100)
try:
    opened.load()
except SourceError as error:
    assert "changed while being read" in error.reason
"""
    subprocess.run([sys.executable, "-c", program, str(large)], check=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_file_whose_size_is_not_its_length_is_taken_for_a_changing_one():
    assert "changed while being read" in refused("/proc/self/status")


def test_an_empty_file_is_read_but_not_a_picture(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    assert fingerprint(path).digest.hex() == BLAKE3_OF_NOTHING
    with open_file(path) as opened, pytest.raises(DecodeError) as caught:
        opened.load()
    assert caught.value.reason == "the file is empty"
    assert caught.value.lasting is True


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "gone.jpg"
    with pytest.raises(SourceError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: no such file"
    assert refused(path) == "no such file"
    assert refused(path / "below a file that is missing") == "no such file"


def test_a_link_to_nowhere_and_a_ring_of_links_are_refused(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    assert refused(tmp_path / "dangling.jpg") == "no such file"
    (tmp_path / "ring.jpg").symlink_to(tmp_path / "ring.jpg")
    assert refused(tmp_path / "ring.jpg").startswith("cannot be read: ")


def test_a_link_to_a_picture_is_the_picture(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert fingerprint(tmp_path / "b.png") == fingerprint(tmp_path / "a.png")


def test_a_folder_is_refused(tmp_path):
    assert refused(tmp_path) == "is a folder, not a file"


def test_a_device_is_refused():
    assert refused("/dev/null") == "is a device, not a file"


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    path = tmp_path / "pipe.jpg"
    os.mkfifo(path)
    reasons = []
    thread = threading.Thread(target=lambda: reasons.append(refused(path)), daemon=True)
    thread.start()
    thread.join(60)
    assert reasons == ["is a pipe, not a file"]


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the address of a socket is limited to about 100 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert refused("socket.jpg") == "is a socket, not a file"


def test_names_that_no_file_can_have_are_refused():
    assert refused("a\0b.jpg").startswith("is not a path")
    assert refused(Path("a" * 5000)).startswith("cannot be read: ")
    assert refused("") == "no such file"


def test_a_file_without_permission_is_refused(tmp_path, photo):
    path = tmp_path / "secret.png"
    photo.save(path)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        assert refused(path) == "no permission to read it"
    finally:
        if root:
            os.seteuid(0)


def test_a_name_that_is_not_utf8_works_and_is_shown_in_errors(tmp_path, photo):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.png")
    try:
        photo.save(path, "PNG")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    assert load(path).pixels.size == photo.size
    Path(path).write_bytes(b"text")
    with pytest.raises(DecodeError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{tmp_path}/caf\\xe9\\n.png: not an image")


def descriptors():
    return {entry.name for entry in Path("/dev/fd").iterdir()}


def test_files_are_closed(tmp_path, photo, large):
    photo.save(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("text")
    before = descriptors()
    for path in (tmp_path / "a.png", large):
        load(path)
        fingerprint(path)
    for path in (tmp_path / "text.png", tmp_path / "gone.png", tmp_path):
        with pytest.raises((SourceError, DecodeError)):
            load(path)
    assert descriptors() == before


def test_a_large_picture_that_needs_no_descriptor_is_decoded(tmp_path, photo):
    buffer = io.BytesIO()
    photo.save(buffer, "BMP")
    path = tmp_path / "large.bmp"
    path.write_bytes(buffer.getvalue())
    os.truncate(path, HOLD_BYTES + 1)
    assert load(path).pixels.tobytes() == Image.open(buffer).tobytes()
