"""What `searchlib search` writes, and how it is asked on the command line."""

from __future__ import annotations

import csv
import fcntl
import io
import itertools
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from searchlib.cli import main

SIXEL_TERMINAL = b"\x1b[?62;4;22c"
OTHER_TERMINAL = b"\x1b[?64;1;2;6;22c"
FORMS = ("--json", "--jsonl", "--csv", "--paths", "-0")


@pytest.fixture
def search(filled_library):
    """Runs `searchlib search` on the library with the eight photographs, in this process."""

    def search(*arguments):
        words = [os.fspath(word) for word in ("search", *arguments, "--library", filled_library)]
        done = CliRunner().invoke(main, words)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return subprocess.CompletedProcess(
            words, done.exit_code, done.stdout_bytes, done.stderr_bytes
        )

    return search


def names(done) -> list[str]:
    return [Path(os.fsdecode(line)).name for line in done.stdout.splitlines()]


def test_several_terms_are_searched_for_together(search, original_photos):
    cat, coins, rocket = (original_photos / name for name in ("cat.jpg", "coins.png", "rocket.jpg"))
    done = search(cat, "+", coins, "-", rocket, "-k2", "--paths")
    assert sorted(names(done)) == ["cat.jpg", "coins.png"]
    by_options = search("--like", cat, "--like", coins, "--unlike", rocket, "-k2", "--paths")
    assert by_options.stdout == done.stdout
    heavier = search(f"3:{coins}", "+", cat, "-k2", "--paths")
    assert names(heavier) == ["coins.png", "cat.jpg"]


def test_a_stored_image_is_asked_by_its_id_and_is_not_among_its_matches(search, original_photos):
    found = json.loads(search(original_photos / "cat.jpg", "-k1", "--json").stdout)
    id = found["matches"][0]["image"]["id"]
    done = search(f"id:{id}", "--paths")
    assert len(names(done)) == 7
    assert "cat.jpg" not in names(done)
    assert search("id:99").returncode == 2


def test_the_answer_goes_on_behind_its_cursor_and_its_offset(search, original_photos):
    query = original_photos / "cat.jpg"
    all_ = names(search(query, "-k8", "--paths"))
    first = json.loads(search(query, "-k3", "--json").stdout)
    behind = search(query, "-k3", "--cursor", first["cursor"], "--paths")
    assert names(behind) == all_[3:6]
    assert names(search(query, "-k3", "--offset", "5", "--paths")) == all_[5:8]
    assert search(query, "--offset", "1", "--cursor", first["cursor"]).returncode == 2
    done = search(query, "--cursor", "nonsense")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"searchlib: ")


def test_a_threshold_leaves_out_what_is_less_alike(search, original_photos):
    query = original_photos / "cat.jpg"
    done = search(query, "--min-similarity", "0.9", "--all", "--json")
    answer = json.loads(done.stdout)
    assert [Path(match["path"]).name for match in answer["matches"]] == ["cat.jpg"]
    assert answer["min_similarity"] == {"value": 0.9, "kind": "cosine", "cosine": 0.9}
    flipped = search("--unlike", query, "--like", original_photos / "coins.png", "--all",
                     "--min-similarity", "0.999")  # fmt: skip
    assert (flipped.returncode, flipped.stdout) == (1, b"")
    assert flipped.stderr == b"no image is so similar\n"
    for wrong in ("much", "7", "101%"):
        assert search(query, "--min-similarity", wrong).returncode == 2
    assert search(query, "--all").returncode == 2


def test_conditions_limit_it_and_are_pointed_at_where_they_are_wrong(search, original_photos):
    query = original_photos / "cat.jpg"
    done = search(query, "--where", "format:png", "--paths")
    assert sorted(names(done)) == ["camera.png", "clock.png", "coins.png"]
    none = search(query, "--where", "tag:beach")
    assert (none.returncode, none.stdout) == (1, b"")
    assert none.stderr == b"no image meets the conditions\n"
    wrong = search(query, "--where", "format:png and fodler:/a", "--json")
    text, mark, reason = wrong.stderr.decode().splitlines()
    assert text == "format:png and fodler:/a"
    assert mark == "               ^^^^^^"
    assert "folder" in reason
    assert (wrong.returncode, wrong.stdout) == (2, b"")


def test_nothing_to_look_for_is_a_mistake(search):
    done = search()
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"say what to look for" in done.stderr


def test_words_need_a_model_that_knows_them(search):
    for arguments in (["--text", "a cat"], ["a cat"]):
        done = search(*arguments)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"knows only pictures" in done.stderr
    done = search("--like", "a cat")
    assert b"--like a cat: no such file" in done.stderr


@pytest.mark.parametrize("one", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_forms_exclude_each_other(one, other):
    if one != other:
        done = CliRunner().invoke(main, ["search", "id:1", one, other])
        assert done.exit_code == 2
        assert "exclude each other" in done.output


def test_every_form_has_the_same_matches_in_the_same_order(search, original_photos):
    query = original_photos / "cat.jpg"
    shown = search(query).stdout.decode().splitlines()
    lines = [json.loads(line) for line in search(query, "--jsonl").stdout.splitlines()]
    whole = json.loads(search(query, "--json").stdout)["matches"]
    table = list(csv.DictReader(io.StringIO(search(query, "--csv").stdout.decode(), newline="")))
    assert lines == whole
    assert [line.partition("  ")[2] for line in shown] == [match["path"] for match in whole]
    assert [row["path"] for row in table] == [match["path"] for match in whole]
    for row, match in zip(table, whole, strict=True):
        assert (int(row["rank"]), float(row["score"])) == (match["rank"], match["score"])
        facts = match["image"]["facts"]
        assert (row["digest"], row["format"]) == (match["image"]["digest"], facts["format"])
        assert (row["width"], row["places"], row["taken_at"]) == (str(facts["width"]), "1", "")


def test_odd_names_come_out_of_every_form(run, fill, photos, library_folder):
    odd = os.fsdecode(b'a,"b"\n\xff.jpg')
    (photos / "cat.jpg").rename(photos / odd)
    fill(photos)
    arguments = ["search", photos / odd, "-k1", "--library", library_folder]
    raw = os.fsencode(photos / odd)
    assert run(*arguments, "--paths").stdout == raw + b"\n"
    assert run(*arguments, "-0").stdout == raw + b"\0"
    assert json.loads(run(*arguments, "--jsonl").stdout)["path"] == str(photos / odd)
    text = run(*arguments, "--csv").stdout.decode("utf-8", "surrogateescape")
    _, row = csv.reader(io.StringIO(text, newline=""))
    assert row[3] == str(photos / odd)


def test_it_explains_itself_on_stderr_and_in_json(search, original_photos):
    cat, coins = original_photos / "cat.jpg", original_photos / "coins.png"
    arguments = [cat, "+", f"2:{coins}", "-k2"]
    done = search(*arguments, "--explain")
    assert done.stdout == search(*arguments).stdout
    said = done.stderr.decode()
    assert f"2 x image {coins}, cosine 1.000" in said
    assert re.search(
        r"tiny-vit-5m, every vector compared: decode [\d.]+ ms, encode [\d.]+ ms, "
        r"search [\d.]+ ms, fetch [\d.]+ ms, total [\d.]+ ms\n",
        said,
    )
    answer = json.loads(search(*arguments, "--explain", "--json").stdout)
    assert set(answer["timings"]) == {"decode", "encode", "search", "fetch", "total"}
    for match in answer["matches"]:
        shares = sum(term["share"] for term in match["terms"])
        assert shares == pytest.approx(match["score"], abs=1e-3)


def test_a_page_of_all_matches_is_written(search, original_photos, tmp_path):
    page = tmp_path / "page.html"
    done = search(original_photos / "cat.jpg", "--html", page, "--where", "format:png")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/webp;base64,") == 3
    assert f"like: {original_photos / 'cat.jpg'}" in html
    assert "where: format:png" in html
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_picture_that_is_gone_is_a_partial_failure(run, fill, photos, library_folder, tmp_path):
    fill(photos)
    query = shutil.copy(photos / "cat.jpg", tmp_path)
    (photos / "coins.png").write_bytes(b"other bytes")
    page = tmp_path / "page.html"
    done = run("search", query, "--html", page, "--library", library_folder)
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 8
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"no picture of {photos}/coins.png: ")
    assert page.read_text(encoding="utf-8").count("data:image/webp;base64,") == 7


def test_a_kept_thumbnail_stands_in_for_a_picture_that_is_gone(
    run, fill, photos, library_folder, tmp_path
):
    fill(photos, thumbnails=True)
    query = shutil.copy(photos / "cat.jpg", tmp_path)
    (photos / "coins.png").unlink()
    page = tmp_path / "page.html"
    done = run("search", query, "--html", page, "--library", library_folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert page.read_text(encoding="utf-8").count("data:image/webp;base64,") == 8


def test_a_page_that_cannot_be_written_is_named(search, original_photos, tmp_path):
    page = tmp_path / "nowhere" / "page.html"
    done = search(original_photos / "cat.jpg", "--html", page)
    assert done.returncode == 2
    assert str(tmp_path / "nowhere").encode() in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.fixture
def opener(tmp_path):
    """A folder with a program that opens what it is given: it writes down what that was."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("xdg-open", "open"):
        program = folder / name
        program.write_text(f'#!/bin/sh\ncd "{tmp_path}" && printf %s "$1" > new && mv new opened\n')
        program.chmod(0o755)
    return folder


def opened(tmp_path: Path) -> str:
    for _ in range(600):
        if (tmp_path / "opened").exists():
            return (tmp_path / "opened").read_text()
        time.sleep(0.05)
    pytest.fail("nothing was opened within half a minute")


def test_the_best_match_is_opened_or_the_page(
    run, original_photos, filled_library, tmp_path, opener
):
    env = {"PATH": f"{opener}{os.pathsep}{os.environ['PATH']}"}
    query = original_photos / "cat.jpg"
    arguments = ["search", query, "--open", "--library", filled_library]
    assert run(*arguments, env=env).returncode == 0
    assert opened(tmp_path) == str(query)
    (tmp_path / "opened").unlink()
    assert run(*arguments, "--html", "page.html", env=env, cwd=tmp_path).returncode == 0
    assert opened(tmp_path) == str(tmp_path / "page.html")


def test_where_nothing_opens_it_that_is_a_partial_failure(
    run, original_photos, filled_library, tmp_path
):
    done = run(
        "search", original_photos / "cat.jpg", "--open", "-k1", "--library", filled_library,
        env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout.startswith(b"1.000  ")
    assert b"no program opens it here" in done.stderr


def at_terminal(launch, environment, *arguments, answer=OTHER_TERMINAL, **variables) -> tuple:
    """Exit code of the command and what it wrote, where stdin and stdout are a terminal that
    answers so, of 100 characters of 10 x 20 pixels a line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 1000, 480))
    process = subprocess.Popen(
        [*launch, *arguments],
        env={**environment, "TERM": "xterm", **variables},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = b""
    while True:
        assert select.select([ours], [], [], 60)[0]
        try:
            piece = os.read(ours, 65536)
        except OSError:  # what Linux gives where the other end is closed
            piece = b""
        if not piece:
            break
        if b"\x1b[c" in piece:
            os.write(ours, answer)
            piece = piece.replace(b"\x1b[c", b"")
        shown += piece
    os.close(ours)
    _, error = process.communicate(timeout=60)
    return process.returncode, shown.replace(b"\r\n", b"\n"), error


def test_a_terminal_gets_a_table(launch, environment, original_photos, filled_library):
    code, shown, error = at_terminal(
        launch, environment, "search", original_photos / "cat.jpg", "-k2",
        "--library", filled_library,
    )  # fmt: skip
    assert (code, error) == (0, b"")
    text = re.sub(r"\x1b\[\d*m", "", shown.decode())
    head, first, _ = text.splitlines()
    assert head.split() == ["score", "percentile", "size", "taken", "path"]
    assert re.fullmatch(rf"1\.000 .* 400 x 266 .* {re.escape(str(original_photos))}/cat.jpg", first)


_PICTURE = rb"(?:\x1b_G[^\x1b]*\x1b\\)+|\x1b\]1337;[^\a]*\a|\x1bP[^\x1b]*\x1b\\"
_TOKEN = re.compile(
    rb"(?P<picture>%s)|\x1b\[(?P<count>\d+)(?P<move>[AC])|(?P<save>\x1b7)|(?P<restore>\x1b8)"
    rb"|(?P<line>\n)|(?P<return>\r)|(?P<text>[^\x1b\n\r]+)" % _PICTURE,
    re.DOTALL,
)


def on_screen(shown: bytes) -> tuple[list[int], dict[int, str]]:
    """The lines that pictures begin in, and what stands in each line that has text."""
    row = column = end = 0
    saved = (0, 0)
    pictures = []
    text: dict[int, str] = {}
    for piece in _TOKEN.finditer(shown):
        assert piece.start() == end, shown[end : end + 40]
        end = piece.end()
        match piece.lastgroup:
            case "picture":
                assert column == 0
                pictures.append(row)
            case "move":
                way = int(piece["count"])
                row, column = (row - way, column) if piece["move"] == b"A" else (row, column + way)
            case "save":
                saved = row, column
            case "restore":
                row, column = saved
            case "line":
                row, column = row + 1, 0
            case "return":
                column = 0
            case _:
                written = piece["text"].decode()
                text[row] = text.get(row, "").ljust(column) + written
                column += len(written)
    assert end == len(shown)
    return pictures, text


@pytest.mark.parametrize(
    ("variables", "answer", "begin"),
    [
        ({"TERM": "xterm-kitty"}, b"", b"\x1b_Ga=T"),
        ({"TERM_PROGRAM": "iTerm.app"}, b"", b"\x1b]1337;File="),
        ({}, SIXEL_TERMINAL, b"\x1bP0;1;0q"),
    ],
)
def test_a_terminal_that_can_gets_pictures(
    launch, environment, original_photos, filled_library, variables, answer, begin
):
    kept = {
        name: value
        for name, value in environment.items()
        if name not in ("TMUX", "TERM_PROGRAM", "KITTY_WINDOW_ID", "LC_TERMINAL")
    }
    arguments = ["search", original_photos / "cat.jpg", "-k3", "--library", filled_library]
    code, shown, error = at_terminal(launch, kept, *arguments, answer=answer, **variables)
    assert (code, error) == (0, b"")
    assert shown.count(begin) == 3
    assert shown.count(b"\x1b7") == shown.count(b"\x1b8") == 3
    pictures, text = on_screen(shown)
    names = [at for at, line in text.items() if "/photos/" in line]
    # The path is in the second line beside each picture, and nothing is written over one.
    assert [at - 1 for at in names] == pictures
    assert [later - earlier >= 8 for earlier, later in itertools.pairwise(pictures)] == [True] * 2
    assert all(line.startswith(" " * 26) for line in text.values())
    assert text[names[0]].strip() == f"{original_photos}/cat.jpg"
    never = at_terminal(launch, kept, *arguments, "--pictures", "never", **variables)
    assert begin not in never[1]
    assert b"score" in never[1]


def test_pictures_can_be_asked_for_where_there_is_no_terminal(run, original_photos, filled_library):
    arguments = ["search", original_photos / "cat.jpg", "-k1", "--library", filled_library]
    assert run(*arguments, "--pictures", "kitty").stdout.count(b"\x1b_Ga=T") == 1
    assert b"\x1b" not in run(*arguments).stdout


LOADED = """
import runpy, sys
try:
    runpy.run_module("searchlib.cli", run_name="__main__")
except SystemExit as end:
    assert end.code in (0, None), end.code
print(*sys.modules, sep="\\n", file=sys.stderr)
"""


# Each with all that is in it.
UNNEEDED = (
    *("rich", "httpx2", "alembic", "watchdog", "tokenizers", "fastapi", "pydantic"),
    *("filelock", "sqlalchemy.dialects.postgresql", "psycopg", "pymilvus"),
    *("searchlib.server", "searchlib.client", "searchlib.exchange", "searchlib.web"),
    *("searchlib.cli.pictures", "searchlib.cli.contact_sheet", "searchlib.cli.terminal_pictures"),
    *("searchlib.cli.add", "searchlib.cli.watch", "searchlib.cli.serve", "searchlib.status"),
    *("searchlib.catalog.conditions", "searchlib.catalog.conditions_sql"),
    *("searchlib.catalog.condition_paths", "searchlib.catalog.globs", "searchlib.search.where"),
    *("searchlib.catalog.postgresql", "searchlib.catalog.migrate"),
    *("searchlib.search.inspection", "searchlib.search.served_index"),
    *("searchlib.index.merge", "searchlib.index.tuning", "searchlib.index.pairs"),
    *("searchlib.index.join", "searchlib.index.bounds", "searchlib.index.numpy_index"),
    *("searchlib.index.milvus_collection", "searchlib.index.milvus_index"),
    *("searchlib.index.milvus_service", "searchlib.encoder.registry", "searchlib.encoder.text"),
)
TO_DECODE = ("PIL", "searchlib.images.source", "searchlib.images.decode")
TO_EMBED = ("searchlib.encoder.engine", "searchlib.encoder.preprocess")


def loaded_by(environment, *arguments):
    """The modules that a process has loaded when it ends, which found something."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "search", *arguments],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert b"/photos/" in done.stdout
    return set(done.stderr.decode().split())


def of(rooms, loaded):
    return sorted(name for name in loaded for room in rooms if f"{name}.".startswith(f"{room}."))


def test_a_query_loads_nothing_that_it_does_not_need(
    environment, original_photos, filled_library, tmp_path
):
    new = tmp_path / "new.png"
    with Image.open(original_photos / "cat.jpg") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(new)
    library = ("--library", filled_library)
    of_stored = loaded_by(environment, "id:1", *library)
    of_known = loaded_by(environment, original_photos / "cat.jpg", *library)
    of_new = loaded_by(environment, new, *library)
    # Older releases of numpy load it themselves.
    numpy = subprocess.check_output(
        [sys.executable, "-c", "import numpy, sys; print(*sys.modules)"]
    )
    for loaded in (of_stored, of_known, of_new):
        assert of(("numpy.ma",), loaded - set(numpy.decode().split())) == []
        assert {"searchlib.library", "faiss"} <= loaded
        assert of(UNNEEDED, loaded) == []
        # The room itself, and nothing that takes files in.
        assert of(("searchlib.ingest",), loaded) == ["searchlib.ingest"]
    assert of((*TO_DECODE, *TO_EMBED), of_stored) == []
    assert of(TO_EMBED, of_known) == []
    assert set(TO_EMBED) <= of_new
    # A name that is no module's would never be loaded.
    ours = [name for name in UNNEEDED if name.startswith("searchlib.")]
    assert [name for name in ours if find_spec(name) is None] == []
    with_conditions = loaded_by(environment, "id:1", "--where", "width>1", *library)
    assert "searchlib.catalog.conditions_sql" in with_conditions
