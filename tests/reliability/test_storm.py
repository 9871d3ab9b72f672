"""More new files at once than any queue of events holds: each is in the library, none twice."""

from pathlib import Path

from tests.reliability.watching import FULL, Writer

FILES = 100_000 if FULL else 20_000


def test_a_storm_of_files_into_new_folders_loses_none(quick, root: Path, watch):
    running = watch(quick, root)
    running.wait_idle()
    writer = Writer("storm", root, FILES, 1)
    assert writer.wait() == "done\n"
    truth = running.until_equals_disk([root], quick.encoder, most_vectors=None if FULL else 1500)
    assert len(truth.present) == FILES
    # What came first as half a file was embedded at most once more, when it was whole.
    assert truth.changes == truth.vectors
    running.terminate()
