import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchlib.encoder import download as module
from searchlib.encoder.download import Downloaded, download
from searchlib.encoder.hub import mirrored
from searchlib.errors import (
    ChecksumError,
    DownloadError,
    DownloadInterruptedError,
    OfflineError,
)
from tests.servers import File, Server, closed_port

CONTENT = random.Random(1).randbytes(3_000_000)
OTHER = random.Random(2).randbytes(3_000_000)
MB = 1_000_000


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in ("SEARCHLIB_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "model.pte"


def get(source, target, **options):
    usual = {"sha256": None, "size": None, "max_bytes": 10 * MB, "pause": 0, "timeout": 20}
    return download(source, target, **{**usual, **options})


def beside(target):
    """The names in the target's folder, but for the lock."""
    return sorted(p.name for p in target.parent.iterdir() if p.name != f"{target.name}.lock")


WHOLE = ["model.pte", "model.pte.json"]
PART = ["model.pte.part", "model.pte.part.json"]


def test_a_file_is_downloaded_checked_and_recorded(server, target):
    url = server.serve("/model.pte", File(CONTENT))
    found = get(url, target, sha256=sha256(CONTENT).upper(), size=len(CONTENT))
    assert found == Downloaded(target, sha256(CONTENT), len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert beside(target) == WHOLE
    record = json.loads((target.parent / "model.pte.json").read_text())
    assert record == {"url": url, "sha256": sha256(CONTENT), "bytes": len(CONTENT)}


def test_what_is_there_is_not_downloaded_again(server, target):
    url = server.serve("/a", File(CONTENT))
    first = get(url, target)
    calls = []
    assert get(url, target, on_progress=calls.append) == first
    assert get(url, target, sha256=sha256(CONTENT)) == first
    assert calls == [1.0]
    assert len(server.requests) == 1


def test_progress_rises_from_0_to_1_over_breaks_and_restarts(server, target):
    file = File(CONTENT, breaks=[2 * MB, 100], ranges=False)
    calls = []
    get(server.serve("/a", file), target, on_progress=calls.append)
    assert calls == sorted(set(calls))
    assert (calls[0], calls[-1]) == (0.0, 1.0)
    assert sum(0 < call < 1 for call in calls) > 10


def test_progress_is_0_and_then_1_where_the_length_is_unknown(server, target):
    def chunked(exchange):
        exchange.head(200, Transfer_Encoding="chunked")
        for start in range(0, len(CONTENT), 50_000):
            exchange.chunk(CONTENT[start : start + 50_000])
        exchange.chunk(b"")

    url = server.serve("/a", chunked)
    calls = []
    assert get(url, target, on_progress=calls.append).bytes == len(CONTENT)
    assert calls == [0.0, 1.0]
    calls.clear()
    again = target.with_name("b.pte")
    get(url, again, size=len(CONTENT), on_progress=calls.append)
    assert len(calls) > 10
    assert again.read_bytes() == CONTENT


def test_a_progress_that_raises_stops_the_download_and_keeps_what_came(server, target):
    file = File(CONTENT)
    url = server.serve("/a", file)

    def stop(fraction):
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(url, target, on_progress=stop)
    assert beside(target) == PART
    get(url, target)
    assert file.sent[1] < len(CONTENT) / 2
    assert target.read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_broke(server, target):
    file = File(CONTENT, breaks=[MB, 0, MB])
    get(server.serve("/a", file), target)
    assert target.read_bytes() == CONTENT
    assert file.sent == [MB, 0, MB, MB]
    assert server.headers_of("Range") == [
        None, f"bytes={MB}-", f"bytes={MB}-", f"bytes={2 * MB}-",
    ]  # fmt: skip
    assert server.headers_of("If-Range") == [None, '"1"', '"1"', '"1"']


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 40_000), max_size=4), st.booleans(), st.booleans())
def test_breaks_anywhere_never_change_the_content(tmp_path_factory, breaks, ranges, etag):
    content = CONTENT[:30_000]
    target = tmp_path_factory.mktemp("any") / "model.pte"
    file = File(content, breaks=list(breaks), ranges=ranges, etag='"1"' if etag else None)
    with Server() as server:
        get(server.serve("/a", file), target)
    assert target.read_bytes() == content
    assert beside(target) == WHOLE


def test_a_download_that_breaks_again_and_again_is_interrupted_and_resumed_by_the_next(
    server, target
):
    file = File(CONTENT, breaks=[MB + 7, 0, 0])
    url = server.serve("/a", file)
    with pytest.raises(DownloadInterruptedError) as caught:
        get(url, target, tries=2)
    assert str(caught.value) == (
        f"{url}: the connection broke off; 1 MB are kept, and the next try goes on from there"
    )
    assert beside(target) == PART
    file.breaks.clear()
    get(url, target)
    assert server.headers_of("Range")[-1] == f"bytes={MB + 7}-"
    assert target.read_bytes() == CONTENT


def test_tries_that_bring_much_do_not_count_as_failed(server, target):
    content = CONTENT * 3
    file = File(content, breaks=[1_200_000] * 7)
    get(server.serve("/a", file), target, tries=2)
    assert target.read_bytes() == content
    assert sum(file.sent) == len(content)


def test_a_server_that_stalls_is_left_and_asked_again(server, target):
    file = File(CONTENT)

    def stall_once(exchange):
        server.serve("/a", file)
        exchange.head(200, Content_Length=len(CONTENT), ETag='"1"')
        exchange.body(CONTENT[:MB])
        exchange.hang()

    get(server.serve("/a", stall_once), target, timeout=0.5)
    assert server.headers_of("Range") == [None, f"bytes={MB}-"]
    assert target.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, target):
    file = File(CONTENT, breaks=[MB], ranges=False)
    get(server.serve("/a", file), target)
    assert file.sent == [MB, len(CONTENT)]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_file_that_was_changed_meanwhile_is_read_from_the_start(server, target, if_range, pinned):
    file = File(CONTENT, breaks=[MB], if_range=if_range)
    url = server.serve("/a", file)
    with pytest.raises(DownloadInterruptedError):
        get(url, target, tries=1)
    file.content, file.etag = OTHER, '"2"'
    get(url, target, sha256=sha256(OTHER) if pinned else None)
    assert target.read_bytes() == OTHER


def test_a_file_that_was_changed_without_a_sign_is_found_out_by_its_sum(server, target):
    file = File(CONTENT, breaks=[MB])
    url = server.serve("/a", file)
    with pytest.raises(DownloadInterruptedError):
        get(url, target, tries=1, sha256=sha256(OTHER))
    file.content = OTHER
    get(url, target, sha256=sha256(OTHER))
    assert target.read_bytes() == OTHER
    assert file.sent == [MB, 2 * MB, 3 * MB]


def test_a_part_longer_than_the_file_has_become_is_dropped(server, target):
    file = File(CONTENT, breaks=[MB], if_range=False)
    url = server.serve("/a", file)
    with pytest.raises(DownloadInterruptedError):
        get(url, target, tries=1)
    file.content, file.etag = OTHER[:1000], '"2"'
    get(url, target)
    assert target.read_bytes() == OTHER[:1000]


def test_without_a_sign_of_its_version_a_part_is_resumed_only_under_a_pin(server, target):
    for pin, ranges in ((sha256(CONTENT), [None, f"bytes={MB}-"]), (None, [None, None])):
        server.requests.clear()
        path = target.with_name(f"{bool(pin)}.pte")
        get(server.serve("/a", File(CONTENT, etag=None, breaks=[MB])), path, sha256=pin)
        assert server.headers_of("Range") == ranges
        assert server.headers_of("If-Range") == [None, None]
        assert path.read_bytes() == CONTENT


def test_a_weak_etag_is_no_sign_of_a_version(server, target):
    file = File(CONTENT, etag='W/"1"', breaks=[MB])
    get(server.serve("/a", file), target, sha256=sha256(CONTENT))
    assert server.headers_of("If-Range") == [None, None]


@pytest.mark.parametrize("damage", ["flip", "extend", "cut", "facts", "garbage", "other"])
def test_a_damaged_part_does_not_harm(server, target, damage):
    file = File(CONTENT, breaks=[MB])
    url = server.serve("/a", file)
    with pytest.raises(DownloadInterruptedError):
        get(url, target, tries=1)
    part, facts = (target.with_name(name) for name in PART)
    if damage == "flip":
        part.write_bytes(bytes(MB))
    elif damage == "extend":
        part.write_bytes(OTHER + OTHER)
    elif damage == "cut":
        part.write_bytes(CONTENT[: MB // 2])
    elif damage == "facts":
        facts.unlink()
    elif damage == "garbage":
        facts.write_bytes(b"\xff{")
    else:
        url = server.serve("/b", file)
    get(url, target, sha256=sha256(CONTENT))
    assert target.read_bytes() == CONTENT
    assert beside(target) == WHOLE


def test_a_part_that_is_complete_needs_no_request(server, target):
    url = server.serve("/a", File(CONTENT, breaks=[0]))
    with pytest.raises(DownloadInterruptedError):
        get(url, target, tries=1)
    target.with_name("model.pte.part").write_bytes(CONTENT)
    get(url, target)
    assert len(server.requests) == 1
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (404, "check the name and the version in the URL"),
        (401, "set HF_TOKEN to a token"),
        (403, "set HF_TOKEN to a token"),
        (416, ""),
        (206, ""),
    ],
)
def test_a_refusal_of_the_server_names_the_url_and_is_not_repeated(server, target, status, advice):
    url = server.serve("/a", lambda exchange: exchange.whole(b"no", status))
    with pytest.raises(DownloadError) as caught:
        get(url, target)
    assert str(caught.value).startswith(f"{url}: the server answered {status} ")
    assert advice in str(caught.value)
    assert len(server.requests) == 1
    assert beside(target) == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_failure_of_the_server_may_pass(server, target, status):
    file = File(CONTENT)

    def once(exchange):
        server.serve("/a", file)
        exchange.head(status)

    get(server.serve("/a", once), target)
    assert target.read_bytes() == CONTENT
    url = server.serve("/b", lambda exchange: exchange.head(status))
    with pytest.raises(DownloadError, match="try again later") as caught:
        get(url, target, tries=3)
    assert not isinstance(caught.value, DownloadInterruptedError)
    assert [path for path, _ in server.requests].count("/b") == 3


def test_no_network_is_said_at_once_and_a_part_is_kept(target):
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}/a"
        with pytest.raises(DownloadError, match="refused the connection") as caught:
            get(url, target, pause=1000)
        assert not isinstance(caught.value, DownloadInterruptedError)
    with Server() as gone:
        url = gone.serve("/a", File(CONTENT, breaks=[MB]))
        with pytest.raises(DownloadInterruptedError):
            get(url, target, tries=1)
    with pytest.raises(DownloadInterruptedError, match="1 MB are kept"):
        get(url, target)
    assert beside(target) == PART


def test_wrong_bytes_are_refused_with_both_sums_and_nothing_stays(server, target):
    url = server.serve("/a", File(CONTENT))
    with pytest.raises(ChecksumError) as caught:
        get(url, target, sha256=sha256(OTHER))
    assert str(caught.value) == (
        f"{url}: its SHA-256 is {sha256(CONTENT)} and should be {sha256(OTHER)}; nothing was "
        "kept. Try again; if it stays so, the file was replaced: give the new sum if you trust it"
    )
    assert beside(target) == []
    assert len(server.requests) == 1


def test_without_a_pin_later_downloads_must_match_the_first(server, target):
    file = File(CONTENT)
    url = server.serve("/a", file)
    get(url, target)
    target.unlink()
    file.content = OTHER
    record = target.with_name("model.pte.json")
    with pytest.raises(ChecksumError) as caught:
        get(url, target)
    for part in (sha256(CONTENT), sha256(OTHER), f"delete {record} if you trust it"):
        assert part in str(caught.value)
    record.unlink()
    assert get(url, target).sha256 == sha256(OTHER)


def test_a_damaged_file_at_the_target_is_replaced_and_only_when_the_new_one_is_whole(
    server, target
):
    file = File(CONTENT)
    url = server.serve("/a", file)
    get(url, target)
    damaged = CONTENT[:-1] + b"?"
    target.write_bytes(damaged)
    file.content = OTHER
    with pytest.raises(ChecksumError):
        get(url, target)
    assert target.read_bytes() == damaged
    file.content = CONTENT
    get(url, target)
    assert target.read_bytes() == CONTENT


def test_another_url_is_another_file(server, target):
    get(server.serve("/a", File(CONTENT)), target)
    assert get(server.serve("/b", File(OTHER)), target).sha256 == sha256(OTHER)
    assert target.read_bytes() == OTHER


def test_another_length_than_the_pinned_one_is_refused_before_it_is_read(server, target):
    def endless(exchange):
        exchange.head(200, Content_Length=5 * MB)
        exchange.hang()

    with pytest.raises(ChecksumError, match="it has 5000000 bytes and should have 3000000"):
        get(server.serve("/a", endless), target, size=3 * MB)
    assert beside(target) == []
    with pytest.raises(DownloadError, match="it is larger than 4 MB"):
        get(server.url("/a"), target, max_bytes=4 * MB)


def test_more_bytes_than_pinned_end_it_at_once(server, target):
    def endless(exchange):
        exchange.head(200, Transfer_Encoding="chunked")
        while True:
            exchange.chunk(bytes(100_000))

    url = server.serve("/a", endless)
    with pytest.raises(ChecksumError, match="more came than the 3000000 bytes"):
        get(url, target, size=3 * MB)
    assert beside(target) == []
    with pytest.raises(DownloadError, match="it is larger than 10 MB"):
        get(url, target)
    assert beside(target) == []


def test_fewer_bytes_than_pinned_or_announced_are_refused(server, target):
    def short(exchange):
        exchange.head(200, Transfer_Encoding="chunked")
        exchange.chunk(CONTENT[:MB])
        exchange.chunk(b"")

    with pytest.raises(ChecksumError, match="it has 1000000 bytes and should have 3000000"):
        get(server.serve("/a", short), target, size=3 * MB)

    def liar(exchange):
        exchange.head(200, Content_Length=3 * MB)
        exchange.body(CONTENT[:MB])

    with pytest.raises(DownloadInterruptedError):
        get(server.serve("/b", liar), target, tries=2)
    assert not target.exists()


def test_a_length_that_is_announced_too_small_is_found_out_by_the_pin(server, target):
    def liar(exchange):
        exchange.head(200, Content_Length=MB)
        exchange.body(CONTENT)

    url = server.serve("/a", liar)
    with pytest.raises(ChecksumError):
        get(url, target, size=3 * MB)
    with pytest.raises(ChecksumError):
        get(url, target, sha256=sha256(CONTENT))
    assert beside(target) == []


def test_compression_that_was_not_asked_for_is_refused(server, target):
    url = server.serve("/a", lambda exchange: exchange.whole(b"x", Content_Encoding="gzip"))
    with pytest.raises(DownloadError, match="compressed"):
        get(url, target)


@pytest.mark.parametrize("url", ["http://example.com/a", "ftp://example.com/a", "s3://b/c"])
def test_only_https_is_downloaded_from(target, url):
    with pytest.raises(DownloadError, match="is not allowed here, only https"):
        get(url, target)


@pytest.mark.parametrize("name", ["SEARCHLIB_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_what_is_there_is_found(server, target, monkeypatch, name):
    url = server.serve("/a", File(CONTENT))
    with pytest.raises(OfflineError, match="downloads are switched off"):
        get(url, target, offline=True)
    monkeypatch.setenv(name, "1")
    with pytest.raises(OfflineError):
        get(url, target)
    assert server.requests == []
    monkeypatch.setenv(name, "0")
    found = get(url, target)
    monkeypatch.setenv(name, "TRUE")
    assert get(url, target, offline=True) == found


def test_local_files_are_copied_checked_and_taken_as_they_are_now(tmp_path, target):
    source = tmp_path / "a model #1.pte"
    source.write_bytes(CONTENT)
    calls = []
    for given_as in (source, str(source), source.as_uri()):
        calls.clear()
        target.unlink(missing_ok=True)
        found = get(given_as, target, offline=True, on_progress=calls.append)
        assert found == Downloaded(target, sha256(CONTENT), len(CONTENT))
        assert target.read_bytes() == CONTENT
        assert calls == sorted(set(calls))
        assert calls[-1] == 1.0
    source.write_bytes(OTHER)
    assert get(source, target).sha256 == sha256(OTHER)
    with pytest.raises(ChecksumError, match="its SHA-256"):
        get(source, target, sha256=sha256(CONTENT))
    with pytest.raises(ChecksumError, match="it has 3000000 bytes and should have 5"):
        get(source, target, size=5)
    assert target.read_bytes() == OTHER
    assert beside(target) == WHOLE


@pytest.mark.parametrize(
    "source", ["/nowhere/model.pte", "file:///nowhere/model.pte", "/", "/dev/zero"]
)
def test_a_local_source_that_is_no_file_is_refused(target, source):
    with pytest.raises(DownloadError, match="no such file; check the path"):
        get(source, target)


def test_a_file_of_another_machine_is_refused(target):
    with pytest.raises(DownloadError, match="on another machine"):
        get("file://server/share/model.pte", target)


def test_a_folder_that_cannot_be_made_is_said(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    target = tmp_path / "file" / "model.pte"
    with pytest.raises(DownloadError, match="cannot be a folder: a file is in its place"):
        get(server.serve("/a", File(CONTENT)), target)


@pytest.fixture
def disk(tmp_path):
    """A file system in memory of 4 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    arguments = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    try:
        done = subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    if not done:
        pytest.skip("a small file system cannot be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_said_and_the_download_goes_on_when_there_is_space(server, disk):
    target = disk / "model.pte"
    file = File(CONTENT)
    url = server.serve("/a", file)
    filler = disk / "filler"

    def fill(fraction):
        # Another program takes what was free when the download began.
        if fraction > 0.4 and not filler.exists():
            filler.write_bytes(bytes(2 * MB))

    with pytest.raises(DownloadError, match=r"no space left on this disk .* free some"):
        get(url, target, on_progress=fill)
    with pytest.raises(DownloadError, match=r"no space left .* are needed and .* are free"):
        get(url, target)
    filler.unlink()
    get(url, target)
    assert target.read_bytes() == CONTENT
    assert server.headers_of("Range")[-1] is not None


def test_what_cannot_fit_is_refused_before_it_is_read(server, disk):
    def large(exchange):
        exchange.head(200, Content_Length=9 * MB)
        exchange.hang()

    with pytest.raises(DownloadError, match="9 MB are needed"):
        get(server.serve("/a", large), disk / "model.pte")


def test_a_folder_that_cannot_be_written_is_said_and_what_lies_there_is_used(server, disk):
    url = server.serve("/a", File(CONTENT))
    get(url, disk / "there.pte")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert get(url, disk / "there.pte").sha256 == sha256(CONTENT)
    with pytest.raises(DownloadError, match=r"b\.pte: cannot be written: Read-only"):
        get(url, disk / "b.pte")


SCRIPT = """
import sys
from pathlib import Path
from searchlib.encoder.download import download
found = download(sys.argv[1], Path(sys.argv[2]), sha256=None, size=None, max_bytes=10**8, pause=0)
print(found.sha256, found.bytes)
"""


def start(url, target):
    command = [sys.executable, "-c", SCRIPT, url, str(target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_several_processes_one_downloads_and_all_get_the_file(server, target):
    file = File(CONTENT)
    others_wait = threading.Event()

    def slow(exchange):
        others_wait.wait(60)
        file(exchange)

    url = server.serve("/a", slow)
    processes = [start(url, target) for _ in range(4)]
    wait_for(lambda: server.requests)
    others_wait.set()
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert (output.decode(), errors) == (f"{sha256(CONTENT)} {len(CONTENT)}\n", b"")
    assert file.sent == [len(CONTENT)]
    assert beside(target) == WHOLE


def test_of_several_threads_one_downloads_and_all_get_the_file(server, target):
    file = File(CONTENT)
    url = server.serve("/a", file)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: get(url, target), range(8)))
    assert set(found) == {Downloaded(target, sha256(CONTENT), len(CONTENT))}
    assert file.sent == [len(CONTENT)]


def test_a_killed_download_leaves_a_part_and_no_lock_that_holds(server, target):
    file = File(CONTENT)

    def half(exchange):
        exchange.head(200, Content_Length=len(CONTENT), ETag=file.etag)
        exchange.body(CONTENT[: 2 * MB])
        exchange.hang()

    url = server.serve("/a", half)
    process = start(url, target)
    part = target.with_name("model.pte.part")
    wait_for(lambda: part.exists() and part.stat().st_size == 2 * MB)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert beside(target) == PART
    server.serve("/a", file)
    assert get(url, target).sha256 == sha256(CONTENT)
    assert server.headers_of("Range") == [None, f"bytes={2 * MB}-"]
    assert target.read_bytes() == CONTENT
    assert beside(target) == WHOLE


KILLED = """
import hashlib, os, sys
from pathlib import Path
import httpcore2, filelock
from searchlib.encoder.download import download

url, folder, expected = sys.argv[1:]
step, status = -1, None
while status != 0:
    step += 1
    target = Path(folder) / f"{step}.pte"
    options = dict(sha256=None, size=None, max_bytes=10**8, pause=0)
    if (child := os.fork()) == 0:
        left = step

        def audit(event, args):
            global left
            if event in ("open", "os.rename", "os.remove") and str(target) in str(args[0]):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), 9)

        sys.addaudithook(audit)
        download(url, target, **options)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, 9), status
    if target.exists():
        assert hashlib.sha256(target.read_bytes()).hexdigest() == expected
    assert download(url, target, **options).sha256 == expected
    left = {p.name.removeprefix(target.name) for p in Path(folder).glob(f"{step}.*")}
    assert left - {".part.json"} == {"", ".json", ".lock"}, left
print(step)
"""


def test_a_download_killed_before_any_change_of_the_disk_is_completed_by_the_next(server, tmp_path):
    url = server.serve("/a", File(CONTENT))
    command = [sys.executable, "-c", KILLED, url, str(tmp_path), sha256(CONTENT)]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    assert done.stderr == b""
    assert int(done.stdout) > 10


def test_hugging_face_is_asked_for_at_the_mirror_with_the_token(server, target, monkeypatch):
    with Server() as elsewhere:
        elsewhere.serve("/blob", File(CONTENT))
        server.serve(
            "/mirror/org/model/resolve/main/a.pte",
            lambda exchange: exchange.head(302, Location=elsewhere.url("/blob")),
        )
        monkeypatch.setenv("HF_ENDPOINT", server.url("/mirror/"))
        monkeypatch.setenv("HF_TOKEN", "secret\n")
        url = "https://huggingface.co/org/model/resolve/main/a.pte"
        get(url, target)
        assert server.headers_of("Authorization") == ["Bearer secret"]
        assert elsewhere.headers_of("Authorization") == [None]
        record = json.loads(target.with_name("model.pte.json").read_text())
        assert record["url"] == url
        with pytest.raises(DownloadError, match=f"{server.url('/mirror/org/b')}: .* 404"):
            get("https://huggingface.co/org/b", target.with_name("b.pte"))
        monkeypatch.delenv("HF_ENDPOINT")
        get(elsewhere.url("/blob"), target.with_name("b.pte"))
        assert elsewhere.headers_of("Authorization") == [None, None]


def test_the_mirror_must_be_https_or_this_machine(monkeypatch):
    url = "https://huggingface.co/a/b"
    assert mirrored(url) == url
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert mirrored(url) == "https://mirror.example/hf/a/b"
    assert mirrored("https://huggingface.co.evil.example/a") == (
        "https://huggingface.co.evil.example/a"
    )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8080")
    assert mirrored(url) == "http://127.0.0.1:8080/a/b"
    for wrong in ("http://mirror.example", "mirror.example", "ftp://mirror.example", "https://["):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        with pytest.raises(DownloadError, match="it must be an https URL"):
            mirrored(url)


def test_the_address_in_errors_and_records_has_no_login(server, target):
    url = server.serve("/a", File(CONTENT, breaks=[0])).replace("//", "//me:hidden@")
    with pytest.raises(DownloadInterruptedError) as caught:
        get(url, target, tries=1)
    assert "hidden" not in str(caught.value)
    get(url, target)
    assert all("hidden" not in p.read_text() for p in target.parent.glob("*.json"))


def test_the_pause_before_another_try_doubles(server, target, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    with pytest.raises(DownloadError):
        get(server.serve("/a", lambda exchange: exchange.head(503)), target, pause=0.5, tries=4)
    assert pauses == [0.5, 1.0, 2.0]
