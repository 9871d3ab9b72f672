import errno
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from searchlib.images import (
    remove_stale_temporaries,
    remove_thumbnail,
    thumbnail_path,
    thumbnails,
    write_thumbnail,
)

DIGEST = bytes(range(0xAB, 0xAB + 32))


@pytest.fixture(autouse=True)
def each_folder_is_new(monkeypatch):
    monkeypatch.setattr(thumbnails, "_failed_folders", set())


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_path_is_made_of_the_digest(tmp_path):
    path = thumbnail_path(tmp_path, DIGEST)
    assert path == tmp_path / "ab" / f"{DIGEST.hex()}.webp"
    assert len(path.stem) == 64


def test_a_thumbnail_shows_the_picture_at_256_pixels(tmp_path, wide_photo):
    before = wide_photo.tobytes()
    assert write_thumbnail(tmp_path, DIGEST, wide_photo)
    assert wide_photo.tobytes() == before
    assert files(tmp_path) == [thumbnail_path(tmp_path, DIGEST)]
    with Image.open(thumbnail_path(tmp_path, DIGEST)) as small:
        assert small.format == "WEBP"
        assert small.size == (256, 171)
        expected = wide_photo.resize(small.size, Image.Resampling.LANCZOS)
        difference = np.abs(np.asarray(small.convert("RGB"), int) - np.asarray(expected, int))
    assert difference.mean() < 6


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 900), height=st.integers(1, 900))
def test_the_longer_side_is_256_and_nothing_is_enlarged(width, height, tmp_path_factory):
    folder = tmp_path_factory.mktemp("thumbnails")
    assert write_thumbnail(folder, DIGEST, Image.new("RGB", (width, height), (200, 10, 90)))
    with Image.open(thumbnail_path(folder, DIGEST)) as small:
        if max(width, height) <= 256:
            assert small.size == (width, height)
        else:
            assert max(small.size) == 256
            scale = 256 / max(width, height)
            assert abs(small.width - width * scale) < 1
            assert abs(small.height - height * scale) < 1


def test_nothing_of_the_pictures_metadata_is_kept(tmp_path, wide_photo):
    tagged = wide_photo.copy()
    exif = Image.Exif()
    exif[274] = 6
    tagged.info.update(exif=exif.tobytes(), icc_profile=b"profile", xmp=b"<x/>")
    assert write_thumbnail(tmp_path, DIGEST, tagged)
    with Image.open(thumbnail_path(tmp_path, DIGEST)) as small:
        assert not dict(small.getexif())
        assert not {"exif", "icc_profile", "xmp"} & small.info.keys()


def test_a_thumbnail_that_is_there_stays_as_it_is(tmp_path, wide_photo, photo):
    assert write_thumbnail(tmp_path, DIGEST, wide_photo)
    before = thumbnail_path(tmp_path, DIGEST).read_bytes()
    assert not write_thumbnail(tmp_path, DIGEST, photo)
    assert thumbnail_path(tmp_path, DIGEST).read_bytes() == before


def test_a_removed_thumbnail_can_be_written_again(tmp_path, photo):
    remove_thumbnail(tmp_path, DIGEST)
    write_thumbnail(tmp_path, DIGEST, photo)
    remove_thumbnail(tmp_path, DIGEST)
    assert files(tmp_path) == []
    assert write_thumbnail(tmp_path, DIGEST, photo)


def test_the_name_appears_only_with_the_whole_file(tmp_path, photo, monkeypatch):
    """At the moment of the rename the content is complete; before it there is no such name."""
    path = thumbnail_path(tmp_path, DIGEST)
    seen = []
    replace = Path.replace

    def watched(temporary, target):
        assert target == path
        assert not path.exists()
        assert temporary.parent == path.parent
        with Image.open(temporary) as small:
            small.load()
        seen.append(temporary)
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", watched)
    assert write_thumbnail(tmp_path, DIGEST, photo)
    assert len(seen) == 1


def test_many_threads_may_write_the_same_thumbnail(tmp_path, photo):
    start = threading.Barrier(8)

    def write():
        start.wait()
        write_thumbnail(tmp_path, DIGEST, photo)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(tmp_path) == [thumbnail_path(tmp_path, DIGEST)]
    with Image.open(thumbnail_path(tmp_path, DIGEST)) as small:
        small.load()


def test_an_error_of_the_disk_is_logged_once_and_stops_nothing(tmp_path, photo, caplog):
    (tmp_path / "thumbnails").write_bytes(b"a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            assert not write_thumbnail(tmp_path / "thumbnails", bytes([number]) * 32, photo)
        assert not write_thumbnail(tmp_path / "thumbnails" / "other", DIGEST, photo)
        remove_thumbnail(tmp_path / "thumbnails", DIGEST)
    assert len(caplog.records) == 2
    assert "thumbnails cannot be kept there" in caplog.text


def test_a_full_disk_leaves_nothing_behind(tmp_path, photo, caplog):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no device that is always full")
    path = thumbnail_path(tmp_path, DIGEST)
    path.parent.mkdir()

    class Full(type(tmp_path)):
        """Files of this folder are written to the full device."""

        def open(self, mode):
            self.touch()
            return full.open(mode.replace("x", "w"))

    assert not write_thumbnail(Full(tmp_path), DIGEST, photo)
    assert files(tmp_path) == []
    assert os.strerror(errno.ENOSPC) in caplog.text


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path, photo):
    write_thumbnail(tmp_path, DIGEST, photo)
    folder = thumbnail_path(tmp_path, DIGEST).parent
    stale, fresh = folder / "a.1.tmp", folder / "b.2.tmp"
    for path in (stale, fresh):
        path.write_bytes(b"half a thumb")
    long_ago = stale.stat().st_mtime - 7200
    os.utime(stale, (long_ago, long_ago))
    os.utime(thumbnail_path(tmp_path, DIGEST), (long_ago, long_ago))
    assert remove_stale_temporaries(tmp_path) == 1
    assert files(tmp_path) == sorted([fresh, thumbnail_path(tmp_path, DIGEST)])
    assert remove_stale_temporaries(tmp_path / "missing") == 0
