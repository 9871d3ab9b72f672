"""A watcher that is stopped for a while: what it did not hear in the meantime is found."""

import signal
import time

from tests.reliability.watching import FULL, Writer, write

SECONDS = 60.0 if FULL else 3.0
# The kernel's queue holds 16384 events; each file makes two or three.
FILES = 20_000 if FULL else 600


def test_what_happens_while_it_is_stopped_is_not_lost(quick, root, watch):
    for number in range(20):
        write(root / f"old-{number}.png", number)
    running = watch(quick, root)
    running.wait_idle()
    until = time.monotonic() + SECONDS
    running.process.send_signal(signal.SIGSTOP)
    writer = Writer("storm", root, FILES, 2)
    for number in range(10):
        (root / f"old-{number}.png").unlink()
        (root / f"old-{number + 10}.png").rename(root / f"moved-{number}.png")
    assert writer.wait() == "done\n"
    time.sleep(max(0.0, until - time.monotonic()))
    running.process.send_signal(signal.SIGCONT)
    write(root / "after.png", 1000)
    truth = running.until_equals_disk([root], quick.encoder, most_vectors=2000)
    assert len(truth.present) == FILES + 11
    assert truth.changes == truth.vectors
    running.terminate()
