"""Drives that are pulled and plugged: their files are offline, never missing, and come back."""

import json

from tests.reliability.watching import FULL, write
from tests.truth import assert_equals_disk

FILES = 12


def fill(root, count=FILES, first=0):
    for number in range(first, first + count):
        write(root / f"{number % 3}" / f"{number:04}.png", number)


def test_a_pulled_drive_is_offline_and_comes_back_as_it_was(quick, any_drive, root, watch):
    drive = any_drive
    fill(drive.path)
    fill(root, 4, 100)
    roots = [drive.path, root]
    running = watch(quick, *roots)
    running.wait_idle()
    running.until_equals_disk(roots, quick.encoder)
    for number, renumbered in enumerate((False, True, True) if FULL else (False, True)):
        told = len(running.events)
        drive.pull()
        if renumbered:
            drive.renumber()
        running.wait_for("offline", after=told)
        away = running.until_equals_disk([root], quick.encoder, offline=[drive.path])
        assert len(away.present) == 4 + number
        # The other folder goes on meanwhile.
        write(root / f"meanwhile-{number}.png", 200 + number)
        running.until_equals_disk([root], quick.encoder, offline=[drive.path])
        drive.plug()
        running.until_equals_disk(roots, quick.encoder)
        # It is listened to again.
        write(drive.path / f"again-{number}.png", 300 + number)
        after = running.until_equals_disk(roots, quick.encoder)
        assert len(after.present) == FILES + 4 + 2 * (number + 1)
        assert after.vectors == after.changes == len(after.present)
    running.terminate()


def test_a_drive_that_was_changed_elsewhere_is_as_it_is_now(quick, drive, watch, tmp_path):
    fill(drive.path)
    running = watch(quick, drive.path)
    running.wait_idle()
    before = running.until_equals_disk([drive.path], quick.encoder)
    told = len(running.events)
    drive.pull()
    running.wait_for("offline", after=told)
    running.kill()
    # Another machine changes it.
    place, drive.path = drive.path, tmp_path / "elsewhere"
    drive.path.mkdir()
    drive.plug()
    (drive.path / "0" / "0000.png").unlink()
    (drive.path / "1").rename(drive.path / "one")
    write(drive.path / "2" / "0002.png", 500)
    write(drive.path / "new.png", 501)
    drive.pull()
    drive.path = place
    running = watch(quick, drive.path)
    running.wait_idle()
    running.until_equals_disk([], quick.encoder, offline=[drive.path])
    drive.plug()
    after = running.until_equals_disk([drive.path], quick.encoder)
    assert after.changes == before.changes + 2
    running.terminate()


def test_a_drive_that_is_pulled_during_a_scan(quick, drive, watch):
    fill(drive.path, 300)
    for events in (2, 30, 200) if FULL else (2, 100):
        running = watch(quick, drive.path)
        running.wait_events(events)
        told = len(running.events)
        drive.pull()
        running.wait(
            lambda event: event["event"] == "scanning" and event["reason"] != "the start",
            after=told,
            words="scan of a pulled drive",
        )
        running.until_equals_disk([], quick.encoder, offline=[drive.path], failing=None)
        drive.plug()
        truth = running.until_equals_disk([drive.path], quick.encoder)
        assert len(truth.present) == 300
        assert truth.changes == truth.vectors
        running.terminate()
        for path in list(drive.path.rglob("*.png")):
            path.write_bytes(path.read_bytes() + b"x")


def test_an_add_of_a_pulled_drive_takes_nothing_for_deleted(quick, drive, run):
    def add(*paths):
        done = run("add", "--json", "--library", quick.library, *paths, env=quick.env)
        return done.returncode, json.loads(done.stdout)

    fill(drive.path)
    assert add(drive.path)[1]["added"] == FILES
    for renumbered in (False, True):
        drive.pull()
        if renumbered:
            drive.renumber()
        code, report = add(drive.path)
        assert (code, report["missing"], report["offline"]) == (3, 0, FILES)
        assert "its drive is not mounted" in report["skipped"][-1]["reason"]
        assert_equals_disk(quick.library, [], quick.encoder, offline=[drive.path])
        drive.plug()
        code, report = add(drive.path)
        assert (code, report["added"], report["unchanged"]) == (0, 0, FILES)
        assert_equals_disk(quick.library, [drive.path], quick.encoder)


def test_without_its_marker_nothing_is_believed_gone_or_new(quick, root, watch, tmp_path):
    fill(root)
    (root / ".mounted").touch()
    running = watch(quick, root, "--marker", ".mounted", "--rescan", "1")
    running.wait_idle()
    before = running.until_equals_disk([root], quick.encoder)
    # As a network drive goes that leaves its folder, and files that someone saves there meanwhile.
    root.rename(tmp_path / "away")
    root.mkdir()
    write(root / "wrong.png", 600)
    running.wait_for("offline")
    running.until_equals_disk([], quick.encoder, offline=[root])
    (root / "wrong.png").unlink()
    root.rmdir()
    (tmp_path / "away").rename(root)
    after = running.until_equals_disk([root], quick.encoder)
    assert after.changes == before.changes
    (root / ".mounted").unlink()
    (root / "0" / "0000.png").unlink()
    told = len(running.events)
    running.wait_for("offline", after=told)
    write(root / ".mounted", 601)
    running.wait_for("missing", after=told)
    running.until_equals_disk([root], quick.encoder)
    running.terminate()


def test_a_folder_that_is_not_there_yet_is_watched_once_it_is(quick, root, watch):
    below = root / "not" / "yet"
    running = watch(quick, below, root / "here", "--rescan", "1")
    running.wait_idle()
    fill(below)
    running.until_equals_disk([below], quick.encoder)
    below.rename(root / "here")
    write(root / "here" / "more.png", 700)
    running.until_equals_disk([root / "here"], quick.encoder)
    running.terminate()
