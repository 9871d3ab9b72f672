"""`searchlib index`, as a person and as a program see it."""

import json
import os
import re
import resource
import signal
import time

import pytest

import searchlib
from tests.conftest import LARGE

RECIPES = ["exact", "inverted", "milvus"]


def plain(output: bytes) -> str:
    """The output without what no two runs share."""
    text = re.sub(r" in \d+\.\d s", " in S s", os.fsdecode(output))
    return re.sub(r"recall@10 [01]\.\d+ measured", "recall@10 R measured", text)


def index_files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("index-*")}


@pytest.fixture
def index(run, library_folder):
    """Runs `searchlib index` on the library of this test."""

    def index(*arguments, **options):
        return run("index", *arguments, "--library", library_folder, **options)

    return index


def choose(folder, recipe, *, build=False, **how):
    """Chooses an index, and builds it where that is wanted, without the cost of a process."""
    with searchlib.open_library(folder, background=False) as library:
        library.use_index(recipe, **how)
        if build:
            assert library.build_index()


def choice(folder):
    with searchlib.open_library(folder, background=False) as library:
        return library.index_choice()


@pytest.mark.usefixtures("filled_library")
def test_recipes_are_listed_with_their_figures(index):
    done = index("list")
    lines = done.stdout.decode().splitlines()
    assert [line for line in lines if line[0] != " "] == [
        "exact  in use, by size",
        "inverted",
        "milvus",
    ]
    assert lines[1].startswith("    Compares the question with every vector")
    assert "    recall@10: 1.0 at 10k, 1.0 at 100k, 1.0 at 1M" in lines
    assert (done.returncode, done.stderr) == (0, b"")
    listed = {each["name"]: each for each in json.loads(index("list", "--json").stdout)}
    assert list(listed) == RECIPES
    assert listed["exact"]["measured"]["recall_at_10"]["1M"] == 1.0
    assert [listed["exact"][key] for key in ("in_use", "chosen", "by_size")] == [True, False, True]
    assert not any(listed["milvus"][key] for key in ("in_use", "chosen", "by_size", "uri"))


def test_recipes_are_listed_without_a_library(run, index, tmp_path):
    done = run("index", "list", env={"XDG_DATA_HOME": str(tmp_path)})
    assert done.returncode == 0
    assert [line for line in done.stdout.decode().splitlines() if line[0] != " "] == RECIPES
    named = index("list")
    assert named.returncode == 2
    assert b"library" in named.stderr


@pytest.mark.usefixtures("filled_library")
def test_a_small_library_stays_exact_and_says_so(index):
    done = index("use", "inverted")
    assert done.stdout.decode() == (
        "inverted is chosen: it begins at 10,000 vectors and the library has 8, so exact serves, "
        "which compares every one\n"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done = index("build")
    assert done.stdout == b"nothing to build: exact, 8 vectors, all compared\n"
    assert (done.returncode, done.stderr) == (0, b"")
    auto = index("use", "auto")
    assert auto.stdout == b"the index is chosen by size: exact is in use\n"
    tuned = index("tune")
    assert tuned.stdout == (
        b"exact, 8 vectors: every one is compared, so the recall is 1 and there is nothing to "
        b"tune\n"
    )


def test_an_index_is_chosen_built_verified_tuned_and_left_again(
    run, index, large_library, original_photos
):
    question = ("search", original_photos / "cat.jpg", "-k1", "--library", large_library)
    exact = run(*question).stdout
    done = index("use", "inverted", "--recall", "0.95")
    assert done.stdout.decode() == (
        "inverted is chosen: inverted is built in the background of `searchlib watch` or of an "
        "app, or now by `searchlib index build`; until then exact serves\n"
    )
    status = run("status", "--library", large_library).stdout.decode()
    assert (
        f"\nindex        exact, {LARGE:,} vectors\n"
        "build        due: run `searchlib index build`, or leave `searchlib watch` running\n"
    ) in status

    done = index("build")
    assert plain(done.stdout) == (
        f"built in S s: inverted, {LARGE:,} vectors, recall@10 R measured, 0.95 asked for\n"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert run(*question).stdout == exact
    status = run("status", "--library", large_library).stdout
    assert (
        f"\nindex        inverted, {LARGE:,} vectors (0 fresh, 0 dead), recall@10 R measured, "
        "0.95 asked for\non disk"
    ) in plain(status)

    done = index("verify")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{LARGE:,} vectors compared: the index is right\n"
    again = index("use", "inverted", "--recall", "0.9")
    assert again.stdout == (
        b"inverted is chosen and in use; `searchlib index tune` sets it to a recall of 0.9 now\n"
    )
    tuned = json.loads(index("tune", "--recall", "0.999", "--json").stdout)
    assert (tuned["target"], choice(large_library).recall) == (0.999, 0.999)
    assert tuned["tuning"]["probes"] > 0
    line = plain(index("tune").stdout)
    assert re.fullmatch(
        rf"inverted, {LARGE:,} vectors: recall@10 R measured, 0\.999 asked for, with \d+ probes "
        r"and \d+ candidates ranked again for 10 neighbours(; more .*)?\n",
        line,
    )

    back = index("use", "auto", "--json")
    chosen = json.loads(back.stdout)
    assert (chosen["chosen"], chosen["recipe"], chosen["is_due"]) == (None, "inverted", True)
    done = index("build", "--json")
    report = json.loads(done.stdout)
    assert (report["built"], report["recipe"], report["recall_target"]) == (True, "exact", 0.999)
    assert [name[-5:] for name in index_files(large_library)] == [".ckpt"]


def test_a_small_library_is_built_where_somebody_insists(index, filled_library):
    choose(filled_library, "inverted")
    done = index("build", "--always")
    assert done.returncode == 0
    assert plain(done.stdout).startswith("built in S s: inverted, 8 vectors, recall@10 ")
    names = [line for line in index("list").stdout.decode().splitlines() if line[0] != " "]
    assert names == ["exact", "inverted  in use, chosen", "milvus"]


def test_damage_is_said_and_healed(index, large_library):
    choose(large_library, "inverted", build=True)
    (base,) = large_library.glob("*.base")
    data = bytearray(base.read_bytes())
    data[len(data) // 2] ^= 1
    base.write_bytes(data)
    done = index("verify")
    assert done.returncode == 1
    damaged, healed = done.stdout.decode().splitlines()
    assert damaged.startswith(f"damaged: {base}: ")
    assert healed == f"{LARGE:,} vectors compared: the index was built anew from the catalog"
    assert done.stderr.decode().splitlines()[-1] == (
        "until it is built again, every vector is compared; run `searchlib index build`, or leave "
        "`searchlib watch` running"
    )
    done = index("verify", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "right": True,
        "checked": LARGE,
        "missing": 0,
        "different": 0,
        "extra": 0,
        "damage": None,
        "healed": False,
    }


def test_damage_that_cannot_be_healed_is_said_too(run, filled_library):
    (checkpoint,) = filled_library.glob("*.ckpt")
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[:-1])
    for path in (*filled_library.iterdir(), filled_library):
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = run("index", "verify", "--library", filled_library, unprivileged=True)
    filled_library.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert done.stdout.decode().splitlines()[-1] == (
        "8 vectors compared: the library cannot be written, so the index was not healed"
    )
    assert checkpoint.read_bytes() == data[:-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_leaves_the_index_as_it_is(
    start, large_library, original_photos, number, code
):
    with searchlib.open_library(large_library, background=False) as library:
        library.search(original_photos / "cat.jpg")
    choose(large_library, "inverted", recall=1.0)
    before = index_files(large_library)
    assert len(before) == 1
    process = start("index", "build", "--library", large_library)
    # The vectors are written before FAISS learns anything of them, which takes longer.
    while not any(name.endswith(".base") for name in index_files(large_library)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert (output, error) == (b"", b"searchlib: interrupted; the index is as it was\n")
    assert process.returncode == code
    assert index_files(large_library) == before


def test_a_build_that_cannot_write_its_files_leaves_the_index_as_it_is(index, large_library):
    choose(large_library, "inverted")
    before = index_files(large_library)

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))

    done = index("build", preexec_fn=no_large_files)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        f"searchlib: {large_library}: the index cannot be written (File too large); it stays as "
        "it was\n"
    )
    assert index_files(large_library) == before


def test_two_builds_at_once_are_one(index, start, large_library):
    choose(large_library, "inverted", recall=1.0)
    first = start("index", "build", "--library", large_library)
    while not any(name.endswith(".base") for name in index_files(large_library)):
        assert first.poll() is None, first.communicate()
        time.sleep(0.002)
    second = index("build")
    output, error = first.communicate(timeout=60)
    assert (first.returncode, error) == (0, b"")
    assert output.startswith(b"built in ")
    if second.returncode == 2:
        assert b"another process is building" in second.stderr
    else:  # the first one was done by then
        assert second.stdout.startswith(b"nothing to build")


def test_a_terminal_shows_how_far_it_is(on_a_terminal, large_library):
    choose(large_library, "inverted")
    code, output, drawn = on_a_terminal("index", "build", "--library", large_library)
    assert code == 0
    assert output.startswith(b"built in ")
    for step in (b"training", b"tuning"):
        assert step in drawn
    # The bar is wiped.
    assert drawn.rpartition(b"\x1b[2K")[2].strip() == b""
    code, output, drawn = on_a_terminal("index", "verify", "--library", large_library)
    assert (code, b"comparing" in drawn) == (0, True)


def test_a_password_is_never_printed(index, run, filled_library):
    uri = "https://me:secret@localhost:19530/photos?token=secret"
    used = index("use", "milvus", "--uri", uri)
    outputs = [used, index("list", "--json"), run("status", "--json", "--library", filled_library)]
    for done in outputs:
        assert b"secret" not in done.stdout + done.stderr
    assert used.stdout.startswith(b"milvus is chosen, at https://localhost:19530/photos: ")
    assert b"https://localhost:19530/photos" in outputs[1].stdout
    assert choice(filled_library).uri == uri


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("use", "nonsense"), "there is no index recipe 'nonsense'; known are: exact, inverted"),
        (("use", "milvus"), "the milvus index needs the URI of its server"),
        (("use", "exact", "--uri", "http://localhost"), "takes no URI; only milvus does"),
        (("use", "exact", "--recall", "1.5"), "1.5 is not in the range"),
        (("use", "exact", "--recall", "0"), "0.0 is not in the range"),
        (("tune", "--recall", "2"), "2.0 is not in the range"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(index, filled_library, arguments, words):
    done = index(*arguments)
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert choice(filled_library).recipe is None


def test_an_empty_library_has_nothing_to_build_and_nothing_wrong(index, library_folder):
    choose(library_folder, "inverted")
    assert index("verify").stdout == b"0 vectors compared: the index is right\n"
    done = index("tune")
    assert done.returncode == 2
    assert b"the library is empty" in done.stderr
    insisted = index("build", "--always")
    assert insisted.returncode == 2
    assert b"not built" in insisted.stderr


def test_add_tells_of_an_index_that_the_library_has_outgrown(run, large_library, original_photos):
    line = (
        b"the library has outgrown its index; run `searchlib index build`, or leave `searchlib "
        b"watch` running\n"
    )
    cat, coffee = original_photos / "cat.jpg", original_photos / "coffee.jpg"
    assert run("add", cat, "--library", large_library).stderr == b""
    choose(large_library, "inverted")
    done = run("add", cat, "--library", large_library)
    assert (done.returncode, done.stderr) == (0, line)
    choose(large_library, "inverted", build=True)
    done = run("add", coffee, "--library", large_library)
    assert (done.returncode, done.stderr) == (0, b"")
    with searchlib.open_library(large_library, background=False) as library:
        assert library.search(coffee)[0].path == str(coffee)
