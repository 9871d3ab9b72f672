"""File systems that become full, and drives that are pulled; mounting needs root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def mount(*arguments: str | Path) -> bool:
    """Whether something could be mounted."""
    return _done("mount", *arguments)


class Disk:
    """A file system in memory that can be made smaller and larger."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def leave(self, free_bytes: int) -> None:
        """Set its size so that this much is free."""
        facts = os.statvfs(self.path)
        used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
        size = f"remount,size={used + free_bytes}"
        subprocess.run(["mount", "-o", size, self.path], check=True)


class Drive:
    """A drive with a place where it is mounted while it is plugged in.

    Args:
        path: of that place.
        backing: a folder for what it is made of.
        real: a file system of its own on a loop device, whose end the kernel tells watchers of;
            otherwise a folder in memory that is bound to the place, of which it tells nothing.
    """

    def __init__(self, path: Path, backing: Path, *, real: bool) -> None:
        self.path = path
        self._backing = backing
        self._real = real
        self._devices: list[str] = []
        self._memories: list[Path] = []
        self._plugged = False

    def make(self) -> bool:
        """Whether there can be such a thing here."""
        self.path.mkdir()
        self._backing.mkdir()
        if not self._real:
            return self._new_memory()
        image = self._backing / "image"
        with image.open("wb") as file:
            file.truncate(32 << 20)
        return _done("mkfs.ext4", "-q", image) and self._new_device()

    def plug(self) -> None:
        """Mount it."""
        source = self._devices[-1] if self._real else self._memories[-1]
        assert mount(*(() if self._real else ("--bind",)), source, self.path)
        self._plugged = True

    def pull(self) -> None:
        """Unmount it, whoever uses it."""
        assert _done("umount", "--lazy", self.path)
        self._plugged = False

    def renumber(self) -> None:
        """Have it another device number from the next time on, as after a restart; not plugged."""
        if self._real:
            assert self._new_device()
            return
        before = self._memories[-1]
        assert self._new_memory()
        assert _done("cp", "-a", f"{before}/.", self._memories[-1])

    def close(self) -> None:
        """Take all away."""
        if self._plugged:
            self.pull()
        for device in self._devices:
            _done("losetup", "-d", device)
        for memory in self._memories:
            _done("umount", "--lazy", memory)

    def _new_device(self) -> bool:
        command = ["losetup", "-f", "--show", str(self._backing / "image")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return False
        # The one before stays attached, so that this one has another number.
        self._devices += done.stdout.split()
        return done.returncode == 0

    def _new_memory(self) -> bool:
        memory = self._backing / f"{len(self._memories)}"
        memory.mkdir()
        if not mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", memory):
            return False
        self._memories.append(memory)
        return True


def _done(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
