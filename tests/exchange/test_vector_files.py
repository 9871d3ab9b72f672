"""The formats alone: what is written is read again, and what is broken is named."""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.errors import VectorFileError
from searchlib.exchange.checks import checked_blocks
from searchlib.exchange.formats import open_vectors, write_vectors
from searchlib.exchange.rows import Header, OutBlock, file_uri, local_path

IDENTITY = "a" * 64
SUFFIXES = [".npy", ".jsonl", ".parquet"]
DIMENSION = 4

raw_names = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0})
paths = st.lists(raw_names.map(lambda name: "/photos/" + os.fsdecode(name)), max_size=3)


def unit(rows, dimension=DIMENSION, seed=0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def absolute(name: str) -> str:
    return os.path.abspath(name)  # noqa: PTH100 - resolving links is another thing


def require(suffix: str) -> str:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    return suffix


def header(count: int, dimension: int = DIMENSION) -> Header:
    return Header("test", IDENTITY, dimension, count)


def write(path: Path, vectors: np.ndarray, names=None, step: int = 3) -> Path:
    """A whole file, in blocks of a few rows."""
    names = names or [(f"/photos/{n}.jpg",) for n in range(len(vectors))]
    digests = [f"{n:064x}" for n in range(len(vectors))]
    blocks = (
        OutBlock(digests[at : at + step], names[at : at + step], vectors[at : at + step])
        for at in range(0, len(vectors), step)
    )
    write_vectors(path, header(len(vectors), vectors.shape[1]), blocks)
    return path


def read(path: Path, dimension: int = DIMENSION):
    blocks = list(checked_blocks(open_vectors(path), dimension))
    keys = [key for block in blocks for key in block.keys]
    vectors = [vector for block in blocks for vector in block.vectors]
    assert [block.first for block in blocks] == [1 + 256 * n for n in range(len(blocks))]
    return keys, np.array(vectors, np.float32).reshape(-1, dimension)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=25, deadline=None)
@given(names=st.lists(paths, max_size=8), seed=st.integers(0, 1000))
def test_what_is_written_is_read_again_whatever_the_names(suffix, names, seed):
    require(suffix)
    vectors = unit(len(names), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"v{suffix}", vectors, [tuple(some) for some in names])
        keys, found = read(path)
        assert open_vectors(path).header.count == len(names)
        assert not list(Path(folder).glob(".*"))
    assert [key.digest for key in keys] == [n.to_bytes(32, "big") for n in range(len(names))]
    expected = [[absolute(name) for name in some] for some in names]
    assert [[local_path(text, Path("/")) for text in key.paths] for key in keys] == expected
    np.testing.assert_allclose(found, vectors, atol=1e-7)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_rows_come_in_blocks_and_in_order(suffix, tmp_path):
    vectors = unit(1000)
    keys, found = read(write(tmp_path / f"v{require(suffix)}", vectors, step=300))
    assert [int.from_bytes(key.digest, "big") for key in keys] == list(range(1000))
    np.testing.assert_allclose(found, vectors, atol=1e-7)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_header_says_which_model_it_is(suffix, tmp_path):
    path = write(tmp_path / f"v{require(suffix)}", unit(2))
    found = open_vectors(path).header
    assert (found.model, found.identity) == ("test", IDENTITY)
    assert (found.dimension, found.count) == (4, 2)


def test_numpy_reads_the_array(tmp_path):
    vectors = unit(7)
    write(tmp_path / "v.npy", vectors)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), vectors)
    first, *rows = map(json.loads, (tmp_path / "v.jsonl").read_text().splitlines())
    assert first["searchlib"] == "vectors"
    assert rows[2] == {"digest": f"{2:064x}", "paths": ["/photos/2.jpg"]}


def test_pyarrow_reads_the_table_and_a_name_that_is_no_text_is_a_uri(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    raw = os.fsdecode(b"/photos/caf\xe9.jpg")
    write(tmp_path / "v.parquet", unit(2), [("/a.jpg", "/b.jpg"), (raw,)])
    table = parquet.read_table(tmp_path / "v.parquet")
    assert table["path"].to_pylist() == [["/a.jpg", "/b.jpg"], ["file:///photos/caf%E9.jpg"]]
    assert str(table.schema.field("vector").type).startswith("fixed_size_list<")
    assert table.schema.metadata[b"identity"] == IDENTITY.encode()


@given(name=raw_names)
def test_a_file_uri_is_the_same_path_again(name):
    path = absolute("/photos/" + os.fsdecode(name))
    assert local_path(file_uri(path), Path("/elsewhere")) == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b.jpg", "/root/a/b.jpg"),
        ("../b.jpg", "/b.jpg"),
        ("/abs/b.jpg", "/abs/b.jpg"),
        ("file:///x%20y.jpg", "/x y.jpg"),
        ("file://localhost/x.jpg", "/x.jpg"),
        ("file://nas/x.jpg", None),
        ("content://media/external/images/1", None),
        ("ph://B84E8479-475C/L0/001", None),
        ("https://example.org/x.jpg", None),
        ("a\0b", None),
        ("C:x.jpg", "/root/C:x.jpg"),
    ],
)
def test_paths_and_uris_mean_files_of_this_machine_or_none(text, expected):
    assert local_path(text, Path("/root")) == expected


def test_an_app_may_write_no_more_than_paths_and_vectors(tmp_path):
    rows = [
        {"path": "a.jpg", "vector": [1, 0, 0, 0], "takenAt": 17},
        {"uri": "file:///b.jpg", "vector": [0, 1.0, 0, 0]},
        {"digest": "AB" * 32, "vector": [0, 0, 0.6, 0.8]},
    ]
    path = tmp_path / "phone.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    keys, vectors = read(path)
    assert [key.name for key in keys] == ["a.jpg", "file:///b.jpg", "ab" * 32]
    np.testing.assert_allclose(vectors[2], [0, 0, 0.6, 0.8], atol=1e-7)
    assert open_vectors(path).header == Header()


@pytest.mark.parametrize("kind", ["list<float>", "list<double>", "large_list", "fixed<double>"])
@pytest.mark.parametrize("path_kind", ["string", "large_string", "list", "null", "absent"])
def test_parquet_of_other_writers_is_read(kind, path_kind, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    vectors = unit(300).astype(np.float64)
    types = {
        "list<float>": pa.list_(pa.float32()),
        "list<double>": pa.list_(pa.float64()),
        "large_list": pa.large_list(pa.float32()),
        "fixed<double>": pa.list_(pa.float64(), 4),
    }
    columns = {
        "other": pa.array(range(300)),
        "vector": pa.array(vectors.tolist(), types[kind]),
        "digest": pa.array([f"{n:064x}" if path_kind in ("null", "absent") or n % 2 else None
                            for n in range(300)]),
    }  # fmt: skip
    names = [f"{n}.jpg" for n in range(300)]
    if path_kind == "list":
        columns["path"] = pa.array([[name] for name in names])
    elif path_kind == "null":
        columns["path"] = pa.nulls(300)
    elif path_kind != "absent":
        columns["path"] = pa.array(names, getattr(pa, path_kind)())
    parquet.write_table(pa.table(columns), tmp_path / "v.parquet", row_group_size=70)
    keys, found = read(tmp_path / "v.parquet")
    np.testing.assert_allclose(found, vectors, atol=1e-6)
    if path_kind not in ("null", "absent"):
        assert [key.paths for key in keys] == [(name,) for name in names]


def bad_npy(array: np.ndarray, rows: int | None = None):
    def make(folder: Path) -> Path:
        np.save(folder / "v.npy", array)
        count = len(array) if rows is None else rows
        lines = [json.dumps({"path": f"{n}.jpg"}) for n in range(count)]
        (folder / "v.jsonl").write_text("".join(line + "\n" for line in lines))
        return folder / "v.npy"

    return make


def bad_jsonl(*lines: str | bytes | dict):
    def make(folder: Path) -> Path:
        encoded = [
            line if isinstance(line, bytes)
            else (json.dumps(line) if isinstance(line, dict) else line).encode()
            for line in lines
        ]  # fmt: skip
        (folder / "v.jsonl").write_bytes(b"\n".join(encoded) + b"\n")
        return folder / "v.jsonl"

    return make


def bad_parquet(**columns):
    def make(folder: Path) -> Path:
        pa = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.table(columns), folder / "v.parquet")
        return folder / "v.parquet"

    return make


def with_row(vectors: np.ndarray, row: int, values) -> np.ndarray:
    changed = vectors.copy()
    changed[row - 1] = values
    return changed


GOOD = {"path": "a.jpg", "vector": [1, 0, 0, 0]}
ROW = {"searchlib": "vectors", "version": 1}
BAD = {
    "dimension of npy": (bad_npy(unit(3, 5)), "row 1.*5 numbers and the model's have 4"),
    "float64": (bad_npy(unit(3).astype(np.float64)), "float64; save it as float32"),
    "float16": (bad_npy(unit(3).astype(np.float16)), "float16; save it as float32"),
    "integers": (bad_npy(np.eye(4, dtype=np.int32)), "int32; save it as float32"),
    "objects": (bad_npy(np.array([[{}]], object)), "object; save it as float32"),
    "columns first": (bad_npy(np.asfortranarray(unit(3))), "Fortran order"),
    "one axis": (bad_npy(unit(3).ravel(), 12), r"its shape is \(12,\)"),
    "NaN": (bad_npy(with_row(unit(600), 400, np.nan)), "row 400: .*NaN or infinite"),
    "Inf": (bad_npy(with_row(unit(3), 3, [np.inf, 0, 0, 0])), "row 3: .*NaN or infinite"),
    "length": (bad_npy(with_row(unit(3), 2, [1.002, 0, 0, 0])), "row 2: .*length 1.002"),
    "zero": (bad_npy(with_row(unit(3), 2, 0)), "row 2: .*length 0 and"),
    "huge": (bad_npy(with_row(unit(3), 2, 3e38)), "row 2: .*length 6e\\+38"),
    "fewer lines": (bad_npy(unit(9), 8), "9 vectors and v.jsonl has 8 rows"),
    "more lines": (bad_npy(unit(9), 11), "9 vectors and v.jsonl has 11 rows"),
    "not JSON": (bad_jsonl(GOOD, '{"path": "b.jp'), "line 2: this is not JSON"),
    "a number": (bad_jsonl("17"), "line 1: this is no JSON object"),
    "deep": (bad_jsonl("[" * 100_000), "line 1: this is not JSON"),
    "digits": (bad_jsonl('{"path": "a", "vector": [' + "9" * 5000 + "]}"), "is not JSON"),
    "latin-1": (bad_jsonl(b'{"path": "caf\xe9.jpg"}'), "line 1: this is not UTF-8"),
    "no end": (bad_jsonl("x" * (1 << 24)), "line 1: this line has no end"),
    "short digest": (bad_jsonl(GOOD, {"digest": "ab12", "vector": [1, 0, 0, 0]}), "row 2.*64 hex"),
    "digest": (bad_jsonl({"digest": "g" * 64, "vector": [1, 0, 0, 0]}), "row 1.*64 hex"),
    "digest with spaces": (bad_jsonl({"digest": " 1" * 32, "vector": [1, 0, 0, 0]}), "64 hex"),
    "no key": (bad_jsonl({"vector": [1, 0, 0, 0]}), "row 1.*which image"),
    "path of numbers": (bad_jsonl({"path": 7, "vector": [1, 0, 0, 0]}), "row 1: a path is 7"),
    "lone surrogate": (bad_jsonl('{"path": "\\ud800", "vector": [1,0,0,0]}'), "lone surrogate"),
    "paths": (bad_jsonl({"paths": "a.jpg", "vector": [1, 0, 0, 0]}), "row 1: its paths"),
    "no vector": (bad_jsonl({"path": "a.jpg"}), "row 1: it has no vector.*v.npy"),
    "vector of text": (bad_jsonl({"path": "a", "vector": ["1"] * 4}), "row 1.*list of numbers"),
    "booleans": (bad_jsonl({"path": "a", "vector": [True, 0, 0, 0]}), "list of numbers"),
    "null": (bad_jsonl({"path": "a", "vector": None}), "list of numbers"),
    "longer": (bad_jsonl(GOOD, {"path": "a", "vector": [1, 0, 0, 0, 0]}), "row 2.*5 numbers"),
    "JSON NaN": (bad_jsonl('{"path": "a", "vector": [NaN, 0, 0, 0]}'), "row 1: .*NaN"),
    "JSON overflow": (bad_jsonl('{"path": "a", "vector": [1e999, 0, 0, 0]}'), "row 1: .*NaN"),
    "JSON integer": (bad_jsonl('{"path": "a", "vector": [' + "9" * 400 + ", 0,0,0]}"), "NaN"),
    "two headers": (bad_jsonl(ROW, GOOD, ROW), "line 3: this is a second header"),
    "cut off": (bad_jsonl({**ROW, "count": 3}, GOOD, GOOD), "2 rows and its header says 3"),
    "too many": (bad_jsonl({**ROW, "count": 1}, GOOD, GOOD), "2 rows and its header says 1"),
    "newer": (bad_jsonl({**ROW, "version": 2}, GOOD), "version 2.*upgrade"),
    "no version": (bad_jsonl({"searchlib": "vectors"}, GOOD), "version is None"),
    "identity": (bad_jsonl({**ROW, "identity": "abc"}, GOOD), "identity is 'abc'"),
    "dimension": (bad_jsonl({**ROW, "dimension": -4}, GOOD), "dimension is -4"),
    "other file": (bad_jsonl({"searchlib": "index"}, GOOD), "searchlib is 'index'"),
    "no vector column": (bad_parquet(path=["a"]), "it needs vector"),
    "no key column": (bad_parquet(vector=[[1.0, 0, 0, 0]]), "it needs vector, and digest or path"),
    "null vector": (bad_parquet(path=["a", "b"], vector=[[1.0, 0, 0, 0], None]), "row 2: it has"),
    "null number": (bad_parquet(path=["a"], vector=[[1.0, None, 0, 0]]), "row 1: .*missing"),
    "short row": (bad_parquet(path=["a", "b"], vector=[[1.0, 0, 0, 0], [1.0]]), "row 2.*1 numbers"),
    "column of integers": (bad_parquet(path=["a"], vector=[[1, 0, 0, 0]]), "list.*int64"),
    "column of numbers": (bad_parquet(path=[1], vector=[[1.0, 0, 0, 0]]), "path is int64"),
    "parquet digest": (bad_parquet(digest=["xy"], vector=[[1.0, 0, 0, 0]]), "row 1.*64 hex"),
    "neither": (bad_parquet(digest=[None], path=["a"], vector=[[2.0, 0, 0, 0]]), "length 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_file_and_row(name, tmp_path):
    make, words = BAD[name]
    path = make(tmp_path)
    with pytest.raises(VectorFileError, match=words) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "v."))
    assert message.isprintable()


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".txt", ""])
def test_a_file_that_is_not_there_is_said(suffix, tmp_path):
    require(suffix)
    with pytest.raises(VectorFileError, match=f"v{suffix}: (there is no such|the name tells)"):
        open_vectors(tmp_path / f"v{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pipe_does_not_stop_the_reader(suffix, tmp_path):
    os.mkfifo(tmp_path / f"v{require(suffix)}")
    with pytest.raises(VectorFileError, match="not a file"):
        open_vectors(tmp_path / f"v{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_or_flipped_is_refused_or_read_with_good_vectors(suffix, data):
    require(suffix)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"v{suffix}", unit(9))
        content = path.read_bytes()
        if data.draw(st.booleans(), label="cut"):
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        else:
            place = data.draw(st.integers(0, len(content) - 1))
            flipped = content[place] ^ data.draw(st.integers(1, 255))
            content = content[:place] + bytes([flipped]) + content[place + 1 :]
        path.write_bytes(content)
        refused = None
        try:
            keys, vectors = read(path)
        except VectorFileError as error:
            refused = str(error)
        if refused is not None:
            assert refused.startswith(folder)
            return
        assert len(keys) == len(vectors)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_was_cut_anywhere_is_refused(suffix, tmp_path):
    path = write(tmp_path / f"v{require(suffix)}", unit(9))
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        with pytest.raises(VectorFileError):
            read(path)


def test_the_two_files_of_different_exports_do_not_pass_for_one(tmp_path):
    path = write(tmp_path / "v.npy", unit(5, seed=1))
    lines = (tmp_path / "v.jsonl").read_bytes()
    write(path, unit(5, seed=2))
    (tmp_path / "v.jsonl").write_bytes(lines)
    with pytest.raises(VectorFileError, match=r"v.jsonl was written for other vectors"):
        read(path)
    (tmp_path / "v.jsonl").unlink()
    with pytest.raises(VectorFileError, match=r"v.jsonl is missing beside it"):
        read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_what_was_there(suffix, tmp_path):
    path = write(tmp_path / f"v{require(suffix)}", unit(5))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def failing():
        yield OutBlock(["a" * 64], [()], unit(1))
        raise OSError(28, "No space left on device")

    with pytest.raises(VectorFileError, match="No space left"):
        write_vectors(path, header(5), failing())
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ['{"mine": 1}\n', "[1]\n", "7\n", "\xff", "", "rows alone"])
def test_lines_beside_the_array_that_are_not_its_own_are_not_replaced(content, tmp_path):
    lines = tmp_path / "v.jsonl"
    if content == "rows alone":
        content = write(lines, unit(2)).read_text()
    lines.write_text(content, encoding="latin-1")
    with pytest.raises(VectorFileError, match="would be replaced"):
        write(tmp_path / "v.npy", unit(2))
    assert [file.name for file in tmp_path.iterdir()] == ["v.jsonl"]
    assert lines.read_text(encoding="latin-1") == content
    lines.unlink()
    write(tmp_path / "v.npy", unit(2))
    write(tmp_path / "v.npy", unit(3))
    assert len(read(tmp_path / "v.npy")[0]) == 3
    with pytest.raises(VectorFileError, match=r"belongs to v\.npy"):
        write(lines, unit(2))
    assert len(read(tmp_path / "v.npy")[0]) == 3


def test_rows_with_vectors_do_not_pass_for_those_of_an_array(tmp_path):
    write(tmp_path / "v.npy", unit(2, seed=1))
    write(tmp_path / "w.jsonl", unit(2, seed=2)).replace(tmp_path / "v.jsonl")
    with pytest.raises(VectorFileError, match=r"v\.jsonl: row 1: it has a vector of its own"):
        read(tmp_path / "v.npy")


def test_what_a_killed_writer_left_long_ago_is_removed(tmp_path):
    old, young = tmp_path / ".v.npy.0123.part", tmp_path / ".v.npy.4567.part"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))
    write(tmp_path / "v.npy", unit(2))
    assert (old.exists(), young.exists()) == (False, True)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(VectorFileError, match=r"v\.npy: it cannot be written: No such file"):
        write(tmp_path / "nowhere" / "v.npy", unit(2))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for attempt in (open_vectors, lambda path: write(path, unit(2))):
        with pytest.raises(VectorFileError, match=r"pip install 'searchlib\[parquet\]'"):
            attempt(tmp_path / "v.parquet")
