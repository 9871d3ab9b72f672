"""The engine on small programs whose answers numpy gives as well (see data/make_models.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import searchlib
from searchlib.encoder.engine import (
    TensorSpec,
    get_threads,
    open_engine,
    set_threads,
)
from searchlib.errors import EngineError, InputError, ModelFileError

DATA = Path(__file__).parent / "data"
LINEAR = DATA / "linear.pte"
PACKAGE = Path(searchlib.__file__).parent

X = np.linspace(-2, 2, 18, dtype=np.float32).reshape(3, 6)


def linear(x: NDArray[Any]) -> NDArray[Any]:
    weight = (np.arange(24).reshape(4, 6) - 12) / 8
    bias = np.arange(4) / 4 - 0.5
    return np.maximum(x.astype(np.float64) @ weight.T + bias, 0)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            textwrap.dedent(code),
            str(LINEAR),
        ],
        capture_output=True,
        text=True,
        cwd=DATA,  # not the checkout, whose sources would hide an installed searchlib
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
        timeout=120,
        check=False,
    )


@pytest.fixture
def threads() -> Iterator[int]:
    before = get_threads()
    yield before
    set_threads(before)


def test_specs_name_dtypes_and_largest_shapes() -> None:
    engine = open_engine(LINEAR)
    assert engine.inputs == (TensorSpec("float32", (8, 6)),)
    assert engine.outputs == (TensorSpec("float32", (8, 4)),)


@pytest.mark.parametrize("rows", range(1, 9))
def test_every_batch_size_up_to_the_largest_gives_what_numpy_gives(rows: int) -> None:
    x = np.linspace(-3, 3, rows * 6, dtype=np.float32).reshape(rows, 6)
    (y,) = open_engine(LINEAR).run([x])
    assert y.dtype == np.float32
    assert y.shape == (rows, 4)
    np.testing.assert_allclose(y, linear(x), atol=1e-5)


def test_batch_sizes_can_shrink_and_grow_on_one_engine() -> None:
    engine = open_engine(LINEAR)
    for rows in (8, 1, 5, 2, 8):
        x = np.full((rows, 6), rows, np.float32)
        np.testing.assert_allclose(engine.run([x])[0], linear(x), atol=1e-4)


def test_int64_inputs_look_rows_up() -> None:
    ids = np.array([[3, 9, 0, 7]])
    mask = np.array([[1, 1, 0, 1]])
    table = np.arange(30).reshape(10, 3) / 4
    (mean,) = open_engine(DATA / "lookup.pte").run([ids, mask])
    np.testing.assert_allclose(mean, [table[[3, 9, 7]].mean(0)], rtol=1e-6)


def test_two_inputs_and_two_outputs_keep_their_order() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.full((2, 3), 3, np.float32)
    total, product = open_engine(DATA / "pair.pte").run((a, b))
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(product, a * b)


def test_quantized_operators_outside_xnnpack_run() -> None:
    (y,) = open_engine(DATA / "quantized.pte").run([X])
    np.testing.assert_allclose(y, linear(X), atol=0.15)


def test_nan_and_infinity_are_handed_on() -> None:
    x = np.array([1, 0, -1, np.e], np.float32)
    (y,) = open_engine(DATA / "logarithm.pte").run([x])
    np.testing.assert_allclose(y, [0, -np.inf, np.nan, 1], atol=1e-6)


def test_outputs_are_new_arrays_that_outlive_the_engine() -> None:
    engine = open_engine(LINEAR)
    (first,) = engine.run([X])
    (second,) = engine.run([-X])
    del engine
    first += 0  # writable
    np.testing.assert_allclose(first, linear(X), atol=1e-5)
    np.testing.assert_allclose(second, linear(-X), atol=1e-5)


def test_inputs_are_left_alone_and_may_be_read_only() -> None:
    x = X.copy()
    x.flags.writeable = False
    open_engine(LINEAR).run([x])
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([X.astype(np.float64)], "input 0 must be a numpy array of float32"),
        ([X.astype(np.int64)], "input 0 must be a numpy array of float32"),
        ([X.astype(">f4")], "input 0 must be a numpy array of float32"),
        ([X.astype(object)], "input 0 must be a numpy array of float32"),
        ([X.tolist()], "input 0 must be a numpy array of float32"),
        ([None], "input 0 must be a numpy array of float32"),
        ([np.asfortranarray(X)], "input 0 must be C-contiguous"),
        ([np.concatenate([X, X])[::2]], "input 0 must be C-contiguous"),
        ([np.broadcast_to(X[:1], (3, 6))], "input 0 must be C-contiguous"),
        ([X[0]], "input 0 must have 2 dimensions, not 1"),
        ([X[None]], "input 0 must have 2 dimensions, not 3"),
        ([X[:0]], "input 0 is empty"),
        ([], "the model takes 1 inputs, not 0"),
        ([X, X], "the model takes 1 inputs, not 2"),
    ],
)
def test_an_array_the_model_does_not_take_is_refused(inputs: Any, says: str) -> None:
    engine = open_engine(LINEAR)
    with pytest.raises(EngineError, match=says) as caught:
        engine.run(inputs)
    assert str(LINEAR) in str(caught.value)
    assert caught.value.code in (0x12, 0x13)


@pytest.mark.parametrize("shape", [(9, 6), (3, 5), (6, 8)])
def test_a_shape_the_runtime_refuses_carries_its_code_and_its_reason(
    shape: tuple[int, int],
) -> None:
    engine = open_engine(LINEAR)
    with pytest.raises(EngineError) as caught:
        engine.run([np.zeros(shape, np.float32)])
    assert caught.value.code in (0x01, 0x10)
    assert "tensor" in str(caught.value) or "shapes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_engine_still_works_after_it_refused_an_input() -> None:
    engine = open_engine(LINEAR)
    for bad in (np.zeros((9, 6), np.float32), np.zeros((3, 5), np.float32), X.T):
        with pytest.raises(EngineError):
            engine.run([bad])
        np.testing.assert_allclose(engine.run([X])[0], linear(X), atol=1e-5)


def test_an_id_outside_the_table_is_refused_by_the_kernel() -> None:
    engine = open_engine(DATA / "lookup.pte")
    one = np.array([[1]])
    for ids in (np.array([[10]]), np.array([[-1]])):
        with pytest.raises(EngineError, match="indices_ptr"):
            engine.run([ids, one])


def test_a_missing_file_is_a_model_file_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.pte: no such model file"):
        open_engine(tmp_path / "none.pte")


def test_a_directory_is_a_model_file_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        open_engine(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"<html>404</html>" * 9, bytes(4096)])
def test_garbage_is_a_model_file_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.pte"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not an ExecuTorch program"):
        open_engine(path)


@given(size=st.integers(0, LINEAR.stat().st_size - 1))
def test_a_file_cut_anywhere_is_a_model_file_error(
    size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.pte"
    path.write_bytes(LINEAR.read_bytes()[:size])
    with pytest.raises(ModelFileError, match=r"truncated|not an ExecuTorch program"):
        open_engine(path)


@given(size=st.integers(16, LINEAR.stat().st_size - 1))
def test_a_cut_file_whose_header_gives_no_segment_size_is_refused(
    size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(LINEAR.read_bytes()[:size])
    content[12] = 24  # the header's length before the size of the segments was added to it
    path = tmp_path_factory.mktemp("old") / "old.pte"
    path.write_bytes(content)
    with pytest.raises((ModelFileError, EngineError)):
        open_engine(path)


def test_a_program_of_another_format_names_the_runtimes_code(tmp_path: Path) -> None:
    content = bytearray(LINEAR.read_bytes())
    content[4:8] = b"ET99"
    path = tmp_path / "other.pte"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"other\.pte: the model cannot be loaded") as caught:
        open_engine(path)
    assert caught.value.code == 0x23
    assert "ET99" in str(caught.value)


def test_a_file_name_that_is_not_utf8_opens(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.pte")
    try:
        path.write_bytes(LINEAR.read_bytes())
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    np.testing.assert_allclose(open_engine(path).run([X])[0], linear(X), atol=1e-5)


def test_threads_sharing_one_engine_get_the_same_bits() -> None:
    engine = open_engine(LINEAR)
    inputs = [np.full((1 + i % 8, 6), i, np.float32) for i in range(16)]
    expected = [engine.run([x])[0].tobytes() for x in inputs]
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(first: int) -> None:
        start.wait()
        for turn in range(200):
            i = (first + turn) % len(inputs)
            if engine.run([inputs[i]])[0].tobytes() != expected[i]:
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_run_lets_other_python_threads_go_on() -> None:
    """With switching forbidden, the other thread can only start where `run` lets go of the GIL."""
    engine = open_engine(LINEAR)
    progress: list[int] = []
    go = threading.Lock()
    go.acquire()

    def other() -> None:
        with go:
            progress.append(1)

    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        go.release()
        for _ in range(20_000):
            if progress:
                break
            engine.run([X])
        seen = len(progress)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert seen == 1


def test_the_number_of_threads_can_be_set_and_read(threads: int) -> None:
    for count in (1, 3, 2, threads):
        set_threads(count)
        assert get_threads() == count


@pytest.mark.parametrize("count", [0, -1, 257])
def test_a_senseless_number_of_threads_is_refused(count: int, threads: int) -> None:
    with pytest.raises(InputError, match="threads"):
        set_threads(count)
    assert get_threads() == threads


def test_open_engines_give_the_same_bits_after_the_threads_change() -> None:
    """In a process of its own: a thread pool that is used after it is gone ends the process."""
    result = run_python(
        """
        import sys
        from pathlib import Path
        import numpy as np
        from searchlib.encoder.engine import get_threads, open_engine, set_threads

        engine = open_engine(Path(sys.argv[1]).with_name("logarithm.pte"))
        x = np.linspace(1, 9, 65536, dtype=np.float32)
        expected = engine.run([x])[0].tobytes()
        for count in (1, 4, 1, 3, 2, 8, 1, 2):
            set_threads(count)
            assert get_threads() == count
            waste = [np.full(size, 0x41, np.uint8) for size in range(64, 4096, 16)]
            assert engine.run([x])[0].tobytes() == expected
        print("done")
        """
    )
    assert result.stdout.strip() == "done", result.stderr


@pytest.mark.parametrize("model", ["linear", "logarithm", "quantized"])
def test_a_single_threaded_engine_gives_the_same_bits(model: str, threads: int) -> None:
    path = DATA / f"{model}.pte"
    x = np.linspace(1, 9, 65536, dtype=np.float32) if model == "logarithm" else X
    alone = open_engine(path, single_threaded=True)
    expected = open_engine(path).run([x])[0].tobytes()
    assert alone.run([x])[0].tobytes() == expected
    set_threads(threads + 1)
    assert alone.run([x])[0].tobytes() == expected


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux to count threads")
def test_a_single_threaded_engine_starts_no_thread_and_runs_on_its_caller() -> None:
    """In a process of its own, where nothing has started the thread pool before."""
    result = run_python(
        """
        import os, sys, time
        from pathlib import Path

        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy starts threads as well
        import numpy as np
        from searchlib.encoder import built_in_card
        from searchlib.encoder.engine import open_engine, set_threads

        x = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
        before = len(os.listdir("/proc/self/task"))
        alone = open_engine(built_in_card().path, single_threaded=True)
        began, process = time.thread_time(), time.process_time()
        outputs = [alone.run([x])[0].tobytes() for _ in range(3)]
        own, all_of_it = time.thread_time() - began, time.process_time() - process
        print(len(os.listdir("/proc/self/task")) - before, all_of_it - own < own / 10)
        set_threads(4)
        wide = open_engine(built_in_card().path)
        print(len(os.listdir("/proc/self/task")) - before > 0)
        print({*outputs, wide.run([x])[0].tobytes(), alone.run([x])[0].tobytes()} == {*outputs})
        """
    )
    assert result.stdout.split() == ["0", "True", "True", "True"], result.stderr


@pytest.mark.usefixtures("threads")
def test_the_threads_can_change_while_engines_run() -> None:
    x = np.linspace(1, 9, 65536, dtype=np.float32)
    engines = [(open_engine(LINEAR), X), (open_engine(DATA / "logarithm.pte"), x)]
    expected = [engine.run([x])[0].tobytes() for engine, x in engines]
    done = threading.Event()
    wrong: list[int] = []

    def work(n: int) -> None:
        engine, x = engines[n % 2]
        while not done.is_set():
            if engine.run([x])[0].tobytes() != expected[n % 2]:
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for turn in range(60):
        set_threads(1 + turn % 4)
    done.set()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_engine_opened_before_a_fork_runs_in_the_child() -> None:
    result = run_python(
        """
        import os, sys
        from pathlib import Path
        import numpy as np
        from searchlib.encoder.engine import open_engine, set_threads

        set_threads(4)
        engine = open_engine(Path(sys.argv[1]).with_name("logarithm.pte"))
        x = np.linspace(1, 9, 65536, dtype=np.float32)
        expected = engine.run([x])[0].tobytes()
        child = os.fork()
        if child == 0:
            os._exit(0 if engine.run([x])[0].tobytes() == expected else 1)
        print(os.waitpid(child, 0)[1])
        """
    )
    assert result.stdout.strip() == "0", result.stderr


def test_nothing_heavy_is_imported_and_nothing_is_printed() -> None:
    result = run_python(
        """
        import sys
        from pathlib import Path
        import searchlib.encoder.engine as e

        assert "searchlib.encoder._engine" not in sys.modules
        import numpy as np
        from searchlib.errors import EngineError

        path = Path(sys.argv[1])
        print(e.get_threads() > 0)
        e.set_threads(2)
        engine = e.open_engine(path)
        print(engine.run([np.ones((2, 6), np.float32)])[0].shape)
        try:
            engine.run([np.ones((9, 6), np.float32)])
        except EngineError as error:
            print(error.code)
        print([name for name in ("torch", "executorch", "pandas") if name in sys.modules])
        """
    )
    assert result.stdout.splitlines() == ["True", "(2, 4)", "16", "[]"]
    assert result.stderr == ""
    assert result.returncode == 0


def test_the_runtimes_log_is_shown_when_asked_for() -> None:
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from searchlib.encoder.engine import open_engine

        try:
            open_engine(Path(sys.argv[1])).run([np.ones((9, 6), np.float32)])
        except Exception:
            pass
        """
    assert run_python(code).stderr == ""
    assert "Attempted to resize" in run_python(code, SEARCHLIB_DEBUG_RUNTIME="1").stderr


def test_without_the_native_module_executorch_runtime_gives_the_same() -> None:
    pytest.importorskip("torch")
    result = run_python(
        """
        import logging, sys
        from pathlib import Path
        sys.modules["searchlib.encoder._engine"] = None
        import numpy as np
        from searchlib.encoder.engine import TensorSpec, get_threads, open_engine, set_threads
        from searchlib.errors import EngineError

        records = []
        handler = logging.Handler()
        handler.emit = records.append
        logging.getLogger("searchlib").addHandler(handler)

        path = Path(sys.argv[1])
        set_threads(2)
        engine = open_engine(path)
        assert engine.inputs == (TensorSpec("float32", (8, 6)),), engine.inputs
        assert engine.outputs == (TensorSpec("float32", (8, 4)),), engine.outputs
        x = np.linspace(-2, 2, 18, dtype=np.float32).reshape(3, 6)
        x.flags.writeable = False
        first = engine.run([x])[0].tobytes()
        set_threads(3)
        assert get_threads() == 3
        assert engine.run([x])[0].tobytes() == first
        for bad in ([x, x], [x.astype(float)], [x.T], [x[0]], [x[:0]], [np.ones((9, 6), "f4")]):
            try:
                engine.run(bad)
            except EngineError as error:
                assert error.code in (0x10, 0x12) and str(path) in str(error), error
            else:
                raise AssertionError(bad)
        quantized = open_engine(path.with_name("quantized.pte")).run([x])[0]
        np.testing.assert_allclose(quantized, np.frombuffer(first, "f4").reshape(3, 4), atol=0.15)
        print(first.hex(), len(records), records[0].levelname)
        """
    )
    assert result.returncode == 0, result.stderr
    expected = open_engine(LINEAR).run([X])[0].tobytes().hex()
    assert result.stdout.split() == [expected, "1", "WARNING"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("sys.modules['searchlib.encoder._engine'] = None", "None in sys.modules"),
        ("importlib.metadata.version = lambda name: '0.1.0'", "installed is 0.1.0"),
    ],
    ids=["missing", "another executorch"],
)
def test_without_native_module_and_torch_the_error_says_what_to_do(spoil: str, reason: str) -> None:
    result = run_python(
        f"""
        import importlib.metadata, sys
        from pathlib import Path
        {spoil}
        sys.modules["torch"] = None
        from searchlib.encoder.engine import open_engine
        from searchlib.errors import EngineError

        try:
            open_engine(Path(sys.argv[1]))
        except EngineError as error:
            print(error)
        """
    )
    assert "reinstall searchlib, or install torch" in result.stdout
    assert result.stderr.count("the native engine cannot be loaded") == 1
    assert reason in result.stderr
