"""Hints from the kernel: what is handed on, and that every loss is said. All with real events."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from searchlib.ingest import events, watched
from searchlib.ingest.events import Listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these are inotify's events")

PATIENCE = 30.0


def until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class Heard:
    """A listener, and all that it has handed on."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.losses: list[tuple[str | None, str]] = []
        self.failures = 0
        self.listener = Listener(on_paths=self.on_paths, on_loss=self.on_loss, every=0.02)

    def on_paths(self, paths: Collection[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("database is locked")
        self.paths.update(paths)

    def on_loss(self, root: str | None, words: str) -> None:
        self.losses.append((root, words))

    def hears(self, *paths: Path | str) -> None:
        wanted = {os.fspath(path) for path in paths}
        until(lambda: wanted <= self.paths, f"{wanted - self.paths} was not handed on")

    def loses(self, root: Path | None, words: str) -> None:
        until(lambda: self.losses, "no loss was said")
        assert [place for place, _ in self.losses] == [root if root is None else str(root)]
        assert words in self.losses[0][1]
        self.losses.clear()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setattr(events, "_CHECK_EVERY", 0.2)
    heard = Heard()
    yield heard
    heard.listener.stop()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


BURST = """
import os, sys
for number in range(50):
    folder = os.path.join(sys.argv[1], str(number % 5), str(number)) if number % 2 else \\
        os.path.join(sys.argv[1], f"new{number}", "deep", "er")
    os.makedirs(folder)
    for name in range(40):
        with open(os.path.join(folder, f"{name}.jpg"), "wb") as file:
            file.write(b"x")
"""


def test_a_burst_into_new_folders_is_handed_on_or_said_to_be_lost(heard: Heard, root: Path) -> None:
    heard.listener.watch(str(root))
    subprocess.run([sys.executable, "-c", BURST, root], check=True)
    files = [path for path in root.rglob("*.jpg") if path.is_file()]
    assert len(files) == 2000

    def missing() -> list[Path]:
        inside = {os.fspath(path) for path in (root, *root.parents)}
        handed = heard.paths - inside
        return [f for f in files if not handed & {str(f), *map(str, f.parents)}]

    until(lambda: heard.losses or not missing(), "some files have no hint")


def test_each_way_to_change_a_file_or_folder_is_heard(heard: Heard, root: Path) -> None:
    (root / "old").write_bytes(b"")
    (root / "gone").write_bytes(b"")
    (root / "folder").mkdir()
    (root / "folder" / "in").write_bytes(b"")
    (root.parent / "away").mkdir()
    (root.parent / "away" / "sub").mkdir()
    (root.parent / "away" / "sub" / "in").write_bytes(b"")
    heard.listener.watch(str(root))
    assert heard.listener.last_event is None

    (root / "new").write_bytes(b"x")
    (root / "gone").unlink()
    (root / "hard").hardlink_to(root / "new")
    (root / "soft").symlink_to(root / "new")
    heard.hears(root / "new", root / "gone", root / "hard", root / "soft")
    assert abs((heard.listener.last_event or 0) - time.time()) < PATIENCE
    heard.paths.clear()
    with (root / "old").open("ab") as file:
        file.write(b"more")
    heard.hears(root / "old")
    (root / "old").rename(root / "renamed")
    (root / "folder").rename(root / "moved")
    heard.hears(root / "old", root / "renamed", root / "folder", root / "moved")
    (root.parent / "away").rename(root / "came")
    (root / "moved" / "in").rename(root.parent / "out")
    heard.hears(root / "came", root / "moved" / "in")
    heard.paths.clear()
    (root / "came" / "sub" / "later").write_bytes(b"")
    (root / "moved" / "later").write_bytes(b"")
    heard.hears(root / "came" / "sub" / "later", root / "moved" / "later")
    assert heard.losses == []


def test_names_of_all_kinds_are_handed_on_as_they_are(heard: Heard, root: Path) -> None:
    heard.listener.watch(str(root))
    names = [b"new\nline", b"emoji \xf0\x9f\x93\xb7", b"not utf-8 \xff\xfe", b" ", b"back\\slash"]
    for name in names:
        with open(os.path.join(os.fsencode(root), name), "wb"):  # noqa: PTH118, PTH123
            pass
    heard.hears(*(os.path.join(root, os.fsdecode(name)) for name in names))  # noqa: PTH118


def test_reading_and_attributes_are_not_even_asked_of_the_kernel(heard: Heard, root: Path) -> None:
    file = root / "file"
    file.write_bytes(b"x")
    heard.listener.watch(str(root))
    modify, attrib, opened, close_nowrite = 0x2, 0x4, 0x20, 0x10
    masks = [int(mask, 16) for mask in re.findall(r"inotify wd.* mask:(\w+)", inotify_state())]
    assert masks
    assert not any(mask & (modify | attrib | opened | close_nowrite) for mask in masks)

    file.read_bytes()
    file.chmod(0o600)
    os.utime(file)
    (root / "last").write_bytes(b"")
    heard.hears(root / "last")
    assert heard.paths == {str(root / "last")}


def inotify_state() -> str:
    state = ""
    for descriptor in Path("/proc/self/fdinfo").iterdir():
        with suppress(OSError):  # that of the listing itself
            state += descriptor.read_text()
    return state


def test_a_root_that_is_a_link_is_watched_under_its_own_name(heard: Heard, root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    heard.listener.watch(str(link))
    (root / "file").write_bytes(b"")
    heard.hears(link / "file")


def test_folders_below_are_left_alone_where_that_is_asked(heard: Heard, root: Path) -> None:
    (root / "below").mkdir()
    heard.listener.watch(str(root), recursive=False)
    (root / "below" / "file").write_bytes(b"")
    (root / "file").write_bytes(b"")
    heard.hears(root / "file")
    assert str(root / "below" / "file") not in heard.paths


def test_links_to_folders_are_followed_once_where_that_is_asked(heard: Heard, root: Path) -> None:
    away, more = root.parent / "away", root.parent / "more"
    for folder in (away / "sub", more, root / "real"):
        folder.mkdir(parents=True)
    (root / "a").symlink_to(away)
    (root / "loop").symlink_to(root.parent)
    (away / "back").symlink_to(root)
    (away / "sub" / "more").symlink_to(more)
    (root / "again").symlink_to(root / "real")
    heard.listener.watch(str(root), follow_links=True)

    (away / "sub" / "x").write_bytes(b"")
    (more / "y").write_bytes(b"")
    (root / "real" / "z").write_bytes(b"")
    heard.hears(root / "a/sub/x", root / "a/sub/more/y", root / "real/z", root / "again/z")

    (root / "a").unlink()
    heard.hears(root / "a")
    (root / "real" / "b").symlink_to(away)
    heard.hears(root / "real" / "b")
    heard.paths.clear()
    numbers = iter(range(100_000))

    def heard_through_the_new_link() -> bool:
        (more / f"{next(numbers)}").write_bytes(b"")
        return any(path.startswith(f"{root}/again/b/sub/more/") for path in heard.paths)

    until(heard_through_the_new_link, "a link made later is not followed")
    assert heard.losses == []


def test_links_to_folders_are_not_followed_otherwise(heard: Heard, root: Path) -> None:
    away = root.parent / "away"
    away.mkdir()
    (root / "link").symlink_to(away)
    heard.listener.watch(str(root))
    (away / "file").write_bytes(b"")
    (root / "last").write_bytes(b"")
    heard.hears(root / "last")
    assert heard.paths == {str(root / "last")}


def test_what_cannot_be_noted_now_is_kept_and_warned_of_once(
    heard: Heard, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard.failures = 3
    heard.listener.watch(str(root))
    for number in range(10):
        (root / str(number)).write_bytes(b"")
        time.sleep(0.02)
    heard.hears(*(root / str(number) for number in range(10)))
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == [
        "changed paths could not be noted, they are kept for another try: database is locked"
    ]
    assert heard.losses == []


def test_more_paths_than_can_be_kept_are_a_loss(
    heard: Heard, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT", 20)
    heard.failures = 10**9
    heard.listener.watch(str(root))
    for number in range(50):
        (root / str(number)).write_bytes(b"")
    heard.loses(None, "20 changed paths were waiting")
    heard.failures = 0
    (root / "later").write_bytes(b"")
    heard.hears(root / "later")


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_root_that_goes_is_a_loss_and_can_be_watched_again(
    heard: Heard, root: Path, how: str
) -> None:
    other = root.parent / "other"
    other.mkdir()
    heard.listener.watch(str(root))
    heard.listener.watch(str(other))
    if how == "deleted":
        root.rmdir()
    else:
        root.rename(root.parent / "moved")
    if how == "replaced":
        root.mkdir()
        heard.loses(root, "another folder is in its place")
    else:
        heard.loses(root, "")
        with pytest.raises(FileNotFoundError):
            heard.listener.watch(str(root))
        root.mkdir()
    heard.listener.watch(str(root))
    (root / "file").write_bytes(b"")
    (other / "file").write_bytes(b"")
    heard.hears(root / "file", other / "file")
    assert heard.losses == []


def test_a_reader_that_dies_is_a_loss(
    heard: Heard, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(watched._Reader, "handle_event", broken)
        heard.listener.watch(str(root))
        (root / "file").write_bytes(b"")
        heard.loses(root, "watching stopped")
    heard.listener.watch(str(root))
    (root / "later").write_bytes(b"")
    heard.hears(root / "later")


def test_stop_hands_on_what_has_come_and_leaves_nothing_behind(root: Path) -> None:
    def resources() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = resources()
    heard = Heard()
    heard.failures = 1  # so that there is something left
    heard.listener.watch(str(root))
    (root / "file").write_bytes(b"")
    until(lambda: not heard.failures, "nothing was handed on")
    heard.listener.stop()
    heard.listener.stop()
    heard.hears(root / "file")
    assert resources() == before


def test_what_is_watched_no_more_is_not_heard(heard: Heard, root: Path) -> None:
    other = root.parent / "other"
    other.mkdir()
    heard.listener.watch(str(root))
    heard.listener.watch(str(other))
    heard.listener.unwatch(str(other))
    heard.listener.unwatch("/no/such")
    (other / "file").write_bytes(b"")
    (root / "file").write_bytes(b"")
    heard.hears(root / "file")
    assert heard.paths == {str(root / "file")}


def test_a_root_that_is_none_is_refused(heard: Heard, root: Path) -> None:
    file = root / "file"
    file.write_bytes(b"")
    for path, error in ((root / "no", FileNotFoundError), (file, NotADirectoryError)):
        with pytest.raises(error) as caught:
            heard.listener.watch(str(path))
        assert caught.value.filename == str(path)


# What follows needs a process of its own: one that is stopped, that has a namespace, or that is
# not allowed everything. `print` is the listener's way to say what it hears.
LISTEN = """
import os, sys, time
from searchlib.ingest.events import Listener

root = sys.argv[1]
listener = Listener(
    on_paths=lambda paths: print(*sorted(paths), sep="\\n", flush=True),
    on_loss=lambda root, words: print("LOST", root, words, flush=True),
    every=0.02,
)
def watch():
    try:
        listener.watch(root)
        print("watching", flush=True)
    except OSError as error:
        print("REFUSED", type(error).__name__, error, flush=True)
"""


class Process:
    """A process that listens, and the lines that it said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def says(self, start: str) -> None:
        until(
            lambda: any(line.startswith(start) for line in self.lines),
            f"{start!r} was not said, but {self.lines[-10:]}",
        )

    def end(self) -> None:
        self.process.kill()
        self._thread.join()


@contextmanager
def listening(code: str, root: Path, *before: str) -> Iterator[Process]:
    with subprocess.Popen(
        [*before, sys.executable, "-c", LISTEN + code, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as popen:
        process = Process(popen)
        try:
            yield process
        finally:
            process.end()


def test_a_full_queue_is_a_loss_said_once_and_watching_goes_on(root: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 200_000:
        pytest.skip(f"this machine keeps {limit} events")
    (root / "a").write_bytes(b"")
    (root / "folder").mkdir()
    with listening("watch(); sys.stdin.read()", root) as process:
        process.says("watching")
        process.process.send_signal(signal.SIGSTOP)
        for _ in range(limit // 4 + 100):
            (root / "a").rename(root / "b")
            (root / "b").rename(root / "a")
        (root / "unheard").mkdir()
        process.process.send_signal(signal.SIGCONT)
        process.says("LOST None the kernel's event queue overflowed")
        (root / "folder" / "later").write_bytes(b"")
        (root / "unheard" / "later").write_bytes(b"")
        process.says(f"{root}/folder/later")
        process.says(f"{root}/unheard/later")
        assert sum("overflow" in line for line in process.lines) == 1


NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture
def namespace() -> tuple[str, ...]:
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets no one make a namespace")
    return NAMESPACE


def test_a_root_that_is_unmounted_is_a_loss(root: Path, namespace: tuple[str, ...]) -> None:
    code = """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
watch()
open(root + "/file", "w").close()
time.sleep(0.2)
subprocess.run(["umount", root], check=True)
sys.stdin.read()
"""
    with listening(code, root, *namespace) as process:
        process.says(f"{root}/file")
        process.says(f"LOST {root} another folder is in its place")


def test_the_limit_of_watches_is_told_at_once_and_later(
    root: Path, namespace: tuple[str, ...]
) -> None:
    code = """
limit = "/proc/sys/user/max_inotify_watches"
if not os.path.exists(limit):
    print("watching none here", flush=True)
    sys.exit()
open(limit, "w").write("5")
watch()
os.rmdir(root + "/0")
watch()
os.mkdir(root + "/later")
time.sleep(0.2)
watch()
open("/proc/sys/user/max_inotify_instances", "w").write("0")
watch()
print("end", flush=True)
sys.stdin.read()
"""
    for number in range(5):
        (root / str(number)).mkdir()
    with listening(code, root, *namespace) as process:
        process.says("watching")
        if "watching none here" in process.lines:
            pytest.skip("this kernel has no such limit for a namespace")
        process.says("end")
        said = [line for line in process.lines if line.startswith(("REFUSED", "LOST", "watching"))]
        assert said[0].startswith("REFUSED OSError [Errno 28] inotify watch limit reached: ")
        assert said[1] == "watching"
        assert said[2] == (
            f"LOST {root} no more folders can be watched; raise fs.inotify.max_user_watches"
        )
        assert said[3].startswith("REFUSED OSError [Errno 28]")
        assert said[4].startswith("REFUSED OSError [Errno 24] inotify instance limit reached: ")


def test_folders_that_may_not_be_listed_keep_nothing_from_being_watched(root: Path) -> None:
    drop: tuple[str, ...] = ()
    if os.geteuid() == 0:
        drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        if subprocess.run([*drop, "true"], check=False, capture_output=True).returncode:
            pytest.skip("root may list everything here")
    shut = [root / "shut", root / "too", root / "open" / "shut"]
    for folder in shut:
        folder.mkdir(parents=True)
        folder.chmod(0)
    code = """
watch()
sys.stdin.readline()
os.chmod(root, 0)
watch()
sys.stdin.read()
"""
    with listening(code, root, *drop) as process:
        process.says("watching")
        (root / "open" / "file").write_bytes(b"")
        process.says(f"{root}/open/file")
        assert not any("LOST" in line or "rror" in line for line in process.lines)
        assert process.process.stdin is not None
        process.process.stdin.write("\n")
        process.process.stdin.flush()
        process.says("REFUSED PermissionError")
    for folder in (root, *shut):
        folder.chmod(0o700)
