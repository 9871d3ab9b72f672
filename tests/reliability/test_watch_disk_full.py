"""A disk that is full while folders are watched: it is told, and made up for later."""

import pytest

import searchlib
from tests.reliability.disks import Disk
from tests.reliability.watching import FULL, write

SPACE = 12_000_000


# Nothing at all fails the list of dirty paths; a little more the heartbeat, the commit of what was
# read, or the index's checkpoint, as the log of the database comes to its end.
@pytest.mark.parametrize("free", [0, 40_000, 120_000, 250_000] if FULL else [0, 120_000])
def test_a_full_disk_is_told_and_made_up_for(disk, root, prepare_library, watch, free):
    quick = prepare_library(disk.path / "library")
    for number in range(30):
        write(root / f"{number:02}.png", number)
    running = watch(quick, root, "--thumbnails")
    running.wait_idle()
    running.until_equals_disk([root], quick.encoder)
    for round in range(2 if FULL else 1):
        told = len(running.events)
        disk.leave(free)
        (root / f"{round:02}.png").unlink()
        (root / f"{round + 10:02}.png").rename(root / f"moved-{round}.png")
        for number in range(150):
            write(root / f"{round}" / f"{number:03}.png", 1000 * (round + 1) + number)
        trouble = running.wait_for("trouble", after=told)
        assert "no space left" in trouble["reason"]
        disk.leave(SPACE)
        truth = running.until_equals_disk([root], quick.encoder)
        assert len(truth.present) == 29 - round + 150 * (round + 1)
    running.terminate()
    # The next look makes the thumbnails that there was no space for.
    with searchlib.open_library(quick.library, encoder=quick.encoder) as library:
        digests = {truth.present[path].hex() for path in truth.present}
        without = [digest for digest in digests if library.thumbnail(digest) is None]
    assert without == [] or free == 0 or len(without) < len(digests)


def test_no_space_for_a_checkpoint_at_the_end_loses_nothing(disk, root, prepare_library, watch):
    quick = prepare_library(disk.path / "library")
    running = watch(quick, root)
    running.wait_idle()
    for number in range(40):
        write(root / f"{number:02}.png", number)
    running.until_equals_disk([root], quick.encoder)
    disk.leave(0)
    (root / "00.png").unlink()
    running.wait_for("trouble")
    running.end()
    assert "Traceback" not in running.said()
    disk.leave(SPACE)
    running = watch(quick, root)
    running.until_equals_disk([root], quick.encoder)
    running.terminate()


def test_no_space_for_what_a_scan_has_found(disk, root, quick, watch):
    """What has to be read is kept in a file of the system's folder for such, which is full."""
    long = "x" * 200
    folder = root / long / long / long
    first = write(folder / "first.png", 1)
    count = 1500
    for number in range(count):
        (folder / f"{number:04}-{long}.png").hardlink_to(first)
    disk.leave(200_000)
    running = watch(quick, root, env={"TMPDIR": str(disk.path)})
    trouble = running.wait_for("trouble")
    assert "space" in trouble["reason"]
    write(root / "meanwhile.png", 2)
    disk.leave(SPACE)
    truth = running.until_equals_disk([root], quick.encoder)
    assert len(truth.present) == count + 2
    running.terminate()


def test_a_folder_of_pictures_on_a_full_disk_has_no_part_in_it(disk: Disk, quick, watch):
    """The pictures' disk is full: half a file is told as such, and read when it is whole."""
    pictures = disk.path / "pictures"
    write(pictures / "whole.png", 1)
    running = watch(quick, pictures)
    running.wait_idle()
    data = write(disk.path / "model.png", 2).read_bytes()
    (disk.path / "model.png").unlink()
    (pictures / "torn.png").write_bytes(data[:200])
    running.until_equals_disk([pictures], quick.encoder, failing=[pictures / "torn.png"])
    (pictures / "torn.png").write_bytes(data)
    running.until_equals_disk([pictures], quick.encoder)
    running.terminate()
