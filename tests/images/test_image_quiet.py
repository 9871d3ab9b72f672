import ctypes
import logging
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from searchlib.images import load
from searchlib.images.quiet import mute_c, quiet


def test_warnings_inside_are_dropped_and_those_outside_are_not():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.warn("before", UserWarning, stacklevel=1)
        with quiet():
            warnings.warn("inside", UserWarning, stacklevel=1)
            warnings.warn("inside", DeprecationWarning, stacklevel=1)
            with quiet():
                warnings.warn("deeper", UserWarning, stacklevel=1)
            warnings.warn("inside again", UserWarning, stacklevel=1)
        warnings.warn("after", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["before", "after"]


def test_warnings_that_are_errors_for_the_host_are_none_inside():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet():
            warnings.warn("inside", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="outside"):
            warnings.warn("outside", UserWarning, stacklevel=1)


def test_it_ends_with_the_block_even_when_that_raises():
    with pytest.raises(KeyError), quiet():
        raise KeyError
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", UserWarning, stacklevel=1)


def test_another_thread_keeps_its_warnings():
    inside, done = threading.Event(), threading.Event()

    def stay_inside():
        with quiet():
            inside.set()
            done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stay_inside)
        assert inside.wait(60)
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
        done.set()
        waiting.result()


def test_the_filters_do_not_grow():
    with quiet():
        length = len(warnings.filters)
    for _ in range(5):
        with quiet():
            pass
        warnings.simplefilter("default", ImportWarning)
    with quiet():
        assert len(warnings.filters) <= length + 1


def test_pillows_tiff_log_is_silent_only_inside(caplog):
    log = logging.getLogger("PIL.TiffImagePlugin")
    with quiet():
        log.error("inside")
    log.error("outside")
    assert caplog.messages == ["outside"]


def test_many_threads_decode_without_a_word(photo, encode, capfd):
    palette = photo.quantize(4)
    warned = encode(palette, "PNG", transparency=bytes([255, 0, 255, 128]))
    broken = b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    corrupt = encode(photo, "JPEG", exif=b"Exif\0\0" + broken)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        sizes = [r.pixels.size for r in pool.map(load, [warned, corrupt] * 40)]
    assert sizes == [(512, 512)] * 80
    assert [f for f in warnings.filters if f in before] == before
    assert capfd.readouterr() == ("", "")


def test_what_c_prints_is_dropped_only_inside(capfd):
    library = ctypes.CDLL(None)

    def say(words):
        library.perror(words)

    say(b"before")
    with mute_c():
        say(b"inside")
        with mute_c():
            say(b"deeper")
        say(b"still inside")
        os.write(2, b"the descriptor\n")
        sys.stderr.write("of Python\n")
    say(b"after")
    said = capfd.readouterr().err
    assert "inside" not in said
    assert "deeper" not in said
    for words in ("before", "the descriptor", "of Python", "after"):
        assert words in said


def test_many_threads_that_mute_c_leave_its_stderr_as_it_was(capfd):
    start = threading.Barrier(8)

    def mute():
        start.wait()
        for _ in range(200):
            with mute_c():
                pass

    threads = [threading.Thread(target=mute) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ctypes.CDLL(None).perror(b"after")
    assert "after" in capfd.readouterr().err
