"""What is mounted where: read from a real table, in a mount namespace of the test's own."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from searchlib.ingest.mounts import MountTable, device_of_nearest, gives_events, mount_of

ODD = "with space\\back\ttab\nline é"

SHARED = """
nfs nfs4 cifs smb3 smbfs 9p afs ceph glusterfs fuse.glusterfs lustre virtiofs vboxsf vmhgfs
fuse.vmhgfs-fuse fuse.sshfs fuse.rclone fuse.s3fs fuse.gvfsd-fuse fuse.grpcfuse grpcfuse osxfs
drvfs fuse.mergerfs fuse.portal
"""
LOCAL = """
ext4 xfs btrfs zfs bcachefs f2fs vfat exfat ntfs3 fuseblk fuse.ntfs-3g overlay tmpfs apfs hfs
squashfs
"""
IN_A_NAMESPACE = f"""
import os, subprocess, sys
from searchlib.ingest.mounts import MountTable, device_of_nearest, mount_of

top = sys.argv[1]
odd = os.path.join(top, {ODD!r})
inner = os.path.join(odd, "inner")
os.mkdir(odd)
before = mount_of(odd).point

table = MountTable()
assert not table.changed()
subprocess.run(["mount", "-t", "tmpfs", "a source", odd], check=True)
assert table.changed()
assert not table.changed()
subprocess.run(["mount", "-t", "tmpfs", "another", odd], check=True)
subprocess.run(["umount", odd], check=True)
assert table.changed()
assert not table.changed()

found = mount_of(os.path.join(odd, "not", "there"))
assert (found.point, found.kind, found.source) == (odd, "tmpfs", "a source"), found
assert found.device == os.stat(odd).st_dev == device_of_nearest(os.path.join(odd, "not", "there"))
assert mount_of(top).point == before
assert mount_of(odd + "x").point == before

os.symlink(odd, os.path.join(top, "link"))
assert mount_of(os.path.join(top, "link", "x")).point == odd

os.mkdir(inner)
subprocess.run(["mount", "-t", "ramfs", "none", inner], check=True)
assert mount_of(inner).kind == "ramfs"
subprocess.run(["mount", "-t", "tmpfs", "cover", odd], check=True)
assert mount_of(odd).source == "cover"
os.mkdir(inner)
assert mount_of(inner).source == "cover", "the ramfs is covered and cannot be reached"
subprocess.run(["umount", odd], check=True)
assert mount_of(inner).kind == "ramfs"
subprocess.run(["umount", inner], check=True)
subprocess.run(["umount", odd], check=True)
assert mount_of(odd).point == before
assert table.changed()
"""


def test_mounts_are_found_whatever_their_names_and_however_they_cover_each_other(
    tmp_path: Path,
) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if sys.platform != "linux" or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("this machine lets no one make a mount namespace")
    subprocess.run([*namespace, sys.executable, "-c", IN_A_NAMESPACE, tmp_path], check=True)


def test_every_path_lies_on_a_mount_that_is_above_it(tmp_path: Path) -> None:
    for path in ("/", "/proc/self", str(tmp_path), str(tmp_path / "no" / "such")):
        point = mount_of(path).point
        assert os.path.ismount(point)
        assert os.path.realpath(path).startswith(point)


@pytest.mark.parametrize(
    "kind",
    SHARED.split(),
)
def test_what_others_can_change_unseen_gives_no_events(kind: str) -> None:
    assert not gives_events(kind)


@pytest.mark.parametrize(
    "kind",
    ["", *LOCAL.split()],
)
def test_a_local_or_unknown_kind_gives_events(kind: str) -> None:
    assert gives_events(kind)


def test_the_device_is_that_of_the_nearest_thing_that_is_there(tmp_path: Path) -> None:
    here = tmp_path.stat().st_dev
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "broken").symlink_to("nowhere")
    for path in ("", "a/b/c", "file", "file/below", "broken", "broken/below"):
        assert device_of_nearest(str(tmp_path / path)) == here
    assert device_of_nearest("/proc/self/no/such") == Path("/proc/self").stat().st_dev


def test_a_device_that_cannot_be_told_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert device_of_nearest(str(tmp_path / "loop" / "x")) is None
    assert device_of_nearest(str(tmp_path / ("n" * 300))) is None


def test_a_table_without_mounting_does_not_change() -> None:
    with closing(MountTable()) as table:
        assert [table.changed() for _ in range(3)] == [False] * 3
