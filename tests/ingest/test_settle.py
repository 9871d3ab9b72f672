"""Settling, against a naive account of what happened; looks and leases on real files."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.ingest.settle import Look, Settler, being_written, look


@dataclass
class World:
    """Files whose size is the number of their changes, and the time at which each changed last."""

    now: float = 0.0
    looks: dict[str, Look] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    writing: set[str] = field(default_factory=set)
    looked: int = 0
    changes: int = 0

    def change(self, path: str, kind: str = "file") -> None:
        self.changes += 1
        self.looks[path] = Look(kind, self.changes)  # type: ignore[arg-type]
        self.changed[path] = self.now

    def look(self, path: str) -> Look:
        self.looked += 1
        return self.looks.get(path, Look("gone"))

    def settler(self, seconds: float = 1.0, patience: float = 600.0) -> Settler:
        return Settler(
            seconds=seconds,
            patience=patience,
            clock=lambda: self.now,
            look=self.look,
            being_written=lambda path: path in self.writing,
        )


def taken(settler: Settler, limit: int = 100) -> list[tuple[str, int]]:
    return [(settled.path, settled.mark) for settled in settler.take(limit)]


def test_a_file_that_stands_still_is_given_out_once_after_the_time() -> None:
    world = World()
    world.change("a")
    settler = world.settler()
    settler.note("a", 7)
    assert settler.next_due() == 1.0
    world.now = 0.99
    assert taken(settler) == []
    world.now = 1.0
    (settled,) = settler.take(9)
    assert (settled.path, settled.mark, settled.look, settled.seconds) == (
        "a",
        7,
        Look("file", 1),
        1,
    )
    assert taken(settler) == []
    assert len(settler) == 0
    assert settler.next_due() is None


def test_a_change_begins_the_waiting_anew_and_a_mark_does_not() -> None:
    world = World()
    settler = world.settler()
    world.change("a")
    settler.note("a", 1)
    world.now = 0.9
    world.change("a")
    settler.note("a", 3)
    settler.note("a", 2)
    world.now = 1.0
    assert taken(settler) == []
    world.now = 1.9
    assert taken(settler) == []
    settler.note("a", 4)
    world.now = 2.0
    assert taken(settler) == [("a", 4)]


def test_a_file_that_is_open_for_writing_waits() -> None:
    world = World(writing={"a"})
    settler = world.settler()
    world.change("a")
    settler.note("a", 1)
    for _ in range(5):
        world.now += 1
        assert taken(settler) == []
    world.writing.clear()
    world.now += 1
    assert taken(settler) == [("a", 1)]


def test_gone_needs_a_second_look_as_files_are_replaced_through_it() -> None:
    world = World()
    settler = world.settler()
    settler.note("a", 1)
    settler.note("b", 1)
    world.now = 0.5
    world.change("a")
    world.now = 1.0
    (settled,) = settler.take(9)
    assert (settled.path, settled.look) == ("b", Look("gone"))
    world.now = 2.0
    (settled,) = settler.take(9)
    assert (settled.path, settled.look) == ("a", Look("file", 1))


@pytest.mark.parametrize(
    "second",
    [
        Look("file", 2, 20, 30, 40),
        Look("file", 1, 19, 30, 40),
        Look("file", 1, 20, 31, 40),
        Look("file", 1, 20, 30, 41),
        Look("folder", 1, 20, 30, 40),
        Look("gone"),
        Look("unreadable", reason="cannot be read"),
    ],
)
def test_any_difference_begins_the_waiting_anew(second: Look) -> None:
    world = World(looks={"a": Look("file", 1, 20, 30, 40)})
    settler = world.settler()
    settler.note("a", 1)
    world.now, world.looks["a"] = 1.0, second
    assert settler.take(9) == []
    world.now = 2.0
    assert [settled.look for settled in settler.take(9)] == [second]


def test_a_folder_rests_though_files_come_into_it() -> None:
    world = World()
    settler = world.settler()
    world.change("f", "folder")
    settler.note("f", 1)
    world.now = 1.0
    world.change("f", "folder")
    assert taken(settler) == [("f", 1)]


def test_what_never_rests_is_late_once_and_can_come_again() -> None:
    world = World()
    settler = world.settler(patience=5)
    settler.note("a", 1)
    for _ in range(4):
        world.now += 1
        world.change("a")
        assert settler.take(9) == settler.late() == []
    world.now += 1
    world.change("a")
    assert settler.take(9) == []
    (late,) = settler.late()
    assert (late.path, late.mark, late.seconds, late.look.size) == ("a", 1, 5, 5)
    assert settler.late() == []
    assert len(settler) == 0
    settler.note("a", 2)
    world.now += 1
    assert taken(settler) == [("a", 2)]


def test_what_rests_but_was_not_taken_in_time_is_not_late() -> None:
    world = World()
    settler = world.settler(patience=5)
    world.change("a")
    settler.note("a", 1)
    world.now = 100
    assert taken(settler) == [("a", 1)]
    assert settler.late() == []


def test_a_forgotten_path_is_not_given_out_until_it_is_noted_again() -> None:
    world = World()
    settler = world.settler()
    settler.note("a", 1)
    settler.forget("a")
    settler.forget("b")
    assert settler.next_due() is None
    world.now = 0.5
    settler.note("a", 2)
    world.now = 1.0
    assert taken(settler) == []
    world.now = 1.5
    assert taken(settler) == [("a", 2)]


def test_many_that_wait_cost_no_look_until_they_are_due() -> None:
    world = World()
    settler = world.settler()
    for number in range(100_000):
        settler.note(str(number), number)
    assert len(settler) == world.looked == 100_000
    assert taken(settler) == []
    assert world.looked == 100_000
    world.now = 1.0
    assert taken(settler, 10) == [(str(number), number) for number in range(10)]
    assert world.looked == 100_010


def test_no_time_at_all_still_needs_two_looks_and_ends() -> None:
    world = World()
    settler = world.settler(seconds=0)
    settler.note("a", 1)
    world.change("a")
    assert taken(settler) == []
    assert taken(settler) == [("a", 1)]


paths = st.sampled_from("abcd")
steps = st.one_of(
    st.tuples(st.just("note"), paths),
    st.tuples(st.just("forget"), paths),
    st.tuples(st.just("change"), paths, st.sampled_from(["file", "file", "folder", "gone"])),
    st.tuples(st.just("open"), paths),
    st.tuples(st.just("close"), paths),
    st.tuples(st.just("wait"), st.sampled_from([1, 3, 4, 10, 11])),
    st.tuples(st.just("take"), st.integers(0, 5)),
)


@given(st.lists(steps, max_size=60))
def test_whatever_happens_only_what_rests_is_given_out_and_all_of_it_once(
    sequence: list[tuple[str, str | int]],
) -> None:
    world = World()
    settler = world.settler(seconds=10, patience=45)
    waiting: dict[str, tuple[float, int]] = {}
    mark = 0

    def take(limit: int) -> None:
        due = settler.next_due()
        for settled in settler.take(limit):
            noted, newest = waiting.pop(settled.path)
            assert settled.mark == newest
            assert settled.seconds == world.now - noted >= 10
            assert settled.look.kind == world.look(settled.path).kind
            if settled.look.kind == "file":  # others can come and go between two looks unseen
                assert world.now - world.changed[settled.path] >= 10
                assert settled.path not in world.writing
            assert due is not None
            assert due <= world.now
        for late in settler.late():
            noted, newest = waiting.pop(late.path)
            assert late.mark == newest
            assert late.seconds == world.now - noted >= 45

    for what, *which in sequence:
        match what, which:
            case "note", [str(path)]:
                mark += 1
                noted, _ = waiting.get(path, (world.now, 0))
                waiting[path] = noted, mark
                settler.note(path, mark)
            case "forget", [str(path)]:
                waiting.pop(path, None)
                settler.forget(path)
            case "change", [str(path), str(kind)]:
                world.change(path, kind)
            case "open", [str(path)]:
                world.writing.add(path)
            case "close", [str(path)]:
                world.writing.discard(path)
            case "wait", [int(seconds)]:
                world.now += seconds
            case "take", [int(limit)]:
                take(limit)
        assert len(settler) == len(waiting)
    world.writing.clear()
    for _ in range(2):
        world.now += 10
        take(99)
    assert not waiting
    assert settler.next_due() is None


def test_a_look_at_each_kind_of_thing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    status = file.stat()
    seen = Look("file", 5, status.st_mtime_ns, status.st_ino, status.st_dev)
    assert look(str(file)) == look(str(tmp_path / "link")) == seen
    assert look(str(tmp_path)).kind == "folder"
    for name in ("broken", "no", "no/such", "file/below"):
        assert look(str(tmp_path / name)) == Look("gone")
    assert look(str(tmp_path / "pipe")) == Look("unreadable", reason="is a pipe, not a file")
    assert look("/dev/null") == Look("unreadable", reason="is a device, not a file")
    assert look(str(tmp_path / "loop")).kind == "unreadable"
    assert "symbolic links" in str(look(str(tmp_path / "loop")).reason)


def test_a_look_at_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert look("socket") == Look("unreadable", reason="is a socket, not a file")


@pytest.fixture
def leased(tmp_path: Path) -> Path:
    """A file on a file system that has leases."""
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "file"
    path.write_bytes(b"")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (AttributeError, OSError):
        pytest.skip("no leases here")
    finally:
        os.close(descriptor)
    return path


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_a_file_that_another_process_writes_is_seen(leased: Path, mode: str) -> None:
    code = f"file = open({os.fspath(leased)!r}, {mode!r}); print(flush=True); input(); file.close()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert being_written(str(leased))
        assert being_written(str(leased))
        process.communicate("\n")
    assert not being_written(str(leased))
    with leased.open("rb"):
        assert not being_written(str(leased))


def test_what_cannot_be_told_is_no_writing(tmp_path: Path) -> None:
    assert not being_written(str(tmp_path / "no"))
    assert not being_written(str(tmp_path))
    assert not being_written("/proc/self/status")


BROKEN_LEASE = """
import fcntl, subprocess, sys, time
from searchlib.ingest import settle

path = sys.argv[1]
writers = []
set_lease = fcntl.fcntl

def during_the_lease(descriptor, what, argument):
    if (what, argument) == (fcntl.F_SETLEASE, fcntl.F_UNLCK):
        write = f"open({path!r}, 'ab').write(b'x')"
        writers.append(subprocess.Popen([sys.executable, "-c", write]))
        while set_lease(descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK:
            time.sleep(0.01)  # until the writer is at its open
    return set_lease(descriptor, what, argument)

settle.fcntl.fcntl = during_the_lease
print(settle.being_written(path))
assert writers[0].wait() == 0
"""


def test_who_opens_the_file_in_the_instant_of_the_lease_ends_nobody(leased: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BROKEN_LEASE, leased],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode != -signal.SIGIO
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert leased.read_bytes() == b"x"


def test_the_settler_of_a_real_file_waits_for_its_writer(leased: Path) -> None:
    now = 0.0

    def clock() -> float:
        return now

    settler = Settler(clock=clock)
    with leased.open("ab") as file:
        settler.note(str(leased), 1)
        now = 1.0
        assert settler.take(9) == []
        file.write(b"more")
    now = 2.0
    assert settler.take(9) == []
    now = 3.0
    (settled,) = settler.take(9)
    assert settled.look.size == 4
    os.utime(leased, ns=(0, 0))
    settler.note(str(leased), 2)
    os.utime(leased, ns=(0, -(10**18)))
    now = 4.0
    assert settler.take(9) == []
    now = 5.0
    assert [settled.look.mtime_ns for settled in settler.take(9)] == [-(10**18)]
