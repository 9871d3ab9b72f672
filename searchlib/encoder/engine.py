"""Run an ExecuTorch program (.pte) on numpy arrays.

    engine = open_engine(Path("model.pte"))
    (vectors,) = engine.run([pixels])

The engine is the native module `_engine`, built against the C++ SDK inside the executorch wheel:
it needs no torch, releases the GIL while it runs, and may be used from several threads. Where that
module cannot be loaded, executorch's own Python binding does the same work more slowly, and needs
torch. Neither is imported before the first call.

The runtime's own log lines become the reason in an EngineError; with SEARCHLIB_DEBUG_RUNTIME in the
environment, all of them are written to stderr as well.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import EngineError, InputError, ModelFileError

if TYPE_CHECKING:
    from types import ModuleType

logger = logging.getLogger(__name__)

MAX_THREADS = 256


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model takes or gives at one place.

    Attributes:
        dtype: the numpy name of its element type, "float32" or "int64" for inputs.
        shape: its size in each dimension; where the model allows smaller ones, the largest.
    """

    dtype: str
    shape: tuple[int, ...]


class Engine(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """One spec for each input, in order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """One spec for each output, in order."""

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model once.

        Args:
            inputs: one C-contiguous array for each of `self.inputs`, of its dtype and number of
                dimensions, and no larger than its shape.

        Returns:
            One new array for each of `self.outputs`. A model can give NaN: look before you use it.

        Raises:
            EngineError: an array that the model does not take, or a failure inside the runtime.
        """


def open_engine(path: Path, *, single_threaded: bool = False) -> Engine:
    """Load the method `forward` of an ExecuTorch program.

    The runtime trusts the bytes of a file of the right length: changed weights give other vectors
    and a changed structure can end the process, so compare the file's sha256 first.

    Args:
        path: of the program.
        single_threaded: run on the calling thread alone, whatever `set_threads` says; the outputs
            are the same to the last bit. executorch's own binding knows no such thing: where it
            takes the place of the native module, all engines share the threads of the process.

    Raises:
        ModelFileError: the file is missing, truncated, unreadable, or not an ExecuTorch program.
        EngineError: the runtime cannot load it, for instance for want of an operator.
    """
    _check_program(path)
    native = _native()
    if native is None:
        return _BindingEngine(path)
    return _NativeEngine(native, path, single_threaded)


def get_threads() -> int:
    """The number of threads that a run uses, those of all engines together.

    An engine that was opened as single-threaded does not count: it uses the caller's.
    """
    native = _native()
    if native is None:
        return int(_binding()._threadpool_get_thread_count())
    return int(native.get_threads())


def set_threads(count: int) -> None:
    """Set the number of threads for all engines of this process.

    Waits for the runs in flight. An engine that is already open prepares its weights again at its
    next run, so set this before opening a model where you can; a single-threaded one does not.

    Raises:
        InputError: `count` is not between 1 and 256.
    """
    if not 1 <= count <= MAX_THREADS:
        raise InputError(f"{count} threads: give a number from 1 to {MAX_THREADS}")
    native = _native()
    if native is None:
        _BindingEngine.set_threads(count)
    else:
        native.set_threads(count)


class _NativeEngine:
    def __init__(self, native: ModuleType, path: Path, single_threaded: bool) -> None:
        self._error: type[Exception] = native.Error
        self._path = path
        try:
            self._module = native.Module(os.fsencode(path), single_threaded=single_threaded)
        except self._error as error:
            raise self._refused("cannot be loaded", error) from None
        self.inputs = _specs(self._module.inputs)
        self.outputs = _specs(self._module.outputs)

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            outputs: list[NDArray[Any]] = self._module.run(inputs)
        except self._error as error:
            raise self._refused("did not run", error) from None
        return outputs

    def _refused(self, what: str, error: Exception) -> EngineError:
        message, code = error.args
        return EngineError(f"{self._path}: the model {what}: {_one_line(message)}", code=code)


def _specs(specs: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(dtype, shape) for dtype, shape in specs)


def _one_line(message: str, limit: int = 600) -> str:
    line = " ".join(message.split())
    return line if len(line) <= limit else line[:limit] + "…"


# -- The program file --------------------------------------------------------------------------

# A program starts with the offset of the flatbuffer's root (4 bytes), its identifier "ET12", and an
# extended header of little-endian fields: magic "eh00", header length (u32), size of the program
# (u64), offset of the first data segment or 0 (u64) and, from header length 32 on, the size of all
# segments (u64). Source: executorch/exir/_serialize/_program.py.
_HEAD = 40
_SEGMENT_SIZE_HEADER = 32


def _check_program(path: Path) -> None:
    """Refuse what is not a whole program before its pages are mapped, where a missing one kills."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            actual = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such model file; download or export it first") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelFileError(f"{path}: the model file cannot be read: {reason}") from None
    if head[4:6] != b"ET":
        raise ModelFileError(
            f"{path}: not an ExecuTorch program (.pte); download or export it again"
        )
    expected = _HEAD
    if head[8:12] == b"eh00":
        length, program, base, segments = (
            int.from_bytes(head[start:end], "little")
            for start, end in ((12, 16), (16, 24), (24, 32), (32, 40))
        )
        if length < _SEGMENT_SIZE_HEADER:
            segments = 0  # the runtime checks each segment where it reads it
        expected = max(expected, program, base + segments)
    if actual < expected:
        raise ModelFileError(
            f"{path}: the model file is truncated ({actual} of {expected} bytes); "
            "download or copy it again"
        )


# -- The native module -------------------------------------------------------------------------

_LIBRARIES = (
    "executorch",
    "executorch_threadpool",
    "executorch_kernels_optimized",
    "executorch_kernels_quantized",
    "executorch_backend_xnnpack",
)

_load_lock = threading.Lock()
_loaded: tuple[ModuleType | None] | None = None


def _native() -> ModuleType | None:
    """The native module, or None where it cannot be loaded, which is logged once."""
    global _loaded
    with _load_lock:
        if _loaded is None:
            try:
                _loaded = (_import_native(),)
            except ImportError as error:
                logger.warning(
                    "the native engine cannot be loaded (%s); using executorch.runtime, which is "
                    "slower and needs torch: reinstall searchlib to mend it",
                    _one_line(str(error)),
                )
                _loaded = (None,)
        return _loaded[0]


def _import_native() -> ModuleType:
    name = "searchlib.encoder._engine"
    try:
        native = importlib.import_module(name)
    except ModuleNotFoundError:
        raise
    except ImportError:
        # Its run path expects executorch beside searchlib in one site-packages. Elsewhere (a user
        # site, a checkout), a library that is already loaded is found by its name.
        _preload()
        native = importlib.import_module(name)
    installed = importlib.metadata.version("executorch").partition("+")[0]
    if installed != native.EXECUTORCH_VERSION:
        raise ImportError(
            f"it was built for executorch {native.EXECUTORCH_VERSION}, installed is {installed}"
        )
    return native


def _preload() -> None:
    spec = importlib.util.find_spec("executorch")
    suffix = "dylib" if sys.platform == "darwin" else "so"
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in _LIBRARIES:
            file = Path(folder, "lib", f"lib{library}.{suffix}")
            if file.is_file():
                try:
                    ctypes.CDLL(str(file))
                except OSError as error:
                    raise ImportError(f"{file}: {error}") from None


# -- The public Python binding, where the native module is missing -------------------------------

# executorch/schema/scalar_type.fbs
_SCALAR_TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}


def _binding() -> Any:
    try:
        binding = importlib.import_module("executorch.extension.pybindings.portable_lib")
        _preload()  # it brings no quantized kernels of its own
        return binding
    except ImportError as error:
        raise EngineError(
            f"the native engine is missing and executorch.runtime cannot take its place "
            f"({_one_line(str(error))}); reinstall searchlib, or install torch"
        ) from None


class _BindingEngine:
    """The same protocol over executorch.runtime."""

    # The binding does not lock, and XNNPACK keeps a pointer to the thread pool that a method was
    # loaded with: methods loaded before the pool was replaced are loaded again.
    _lock = threading.Lock()
    _generation = 0

    def __init__(self, path: Path) -> None:
        _binding()
        self._path = path
        with self._lock:
            self._load()
        meta = self._method.metadata
        self.inputs = tuple(map(_spec, map(meta.input_tensor_meta, range(meta.num_inputs()))))
        self.outputs = tuple(map(_spec, map(meta.output_tensor_meta, range(meta.num_outputs()))))

    @classmethod
    def set_threads(cls, count: int) -> None:
        with cls._lock:
            _binding()._unsafe_reset_threadpool(count)
            cls._generation += 1

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if reason := _why_refused(inputs, self.inputs):
            raise EngineError(f"{self._path}: the model did not run: {reason}", code=0x12)
        torch = importlib.import_module("torch")
        with self._lock:
            if self._loaded_in != self._generation:
                self._load()
            try:
                # Copied, for torch warns about arrays that cannot be written.
                tensors = [torch.from_numpy(array.copy()) for array in inputs]
                outputs = self._method.execute(tensors)
            except RuntimeError as error:
                raise self._refused("did not run", error) from None
            return [np.array(tensor.numpy()) for tensor in outputs]

    def _load(self) -> None:
        runtime = importlib.import_module("executorch.runtime").Runtime.get()
        try:
            self._program = runtime.load_program(self._path)
            self._method = self._program.load_method("forward")
        except (RuntimeError, KeyError) as error:
            raise self._refused("cannot be loaded", error) from None
        self._loaded_in = self._generation

    def _refused(self, what: str, error: Exception) -> EngineError:
        code = re.search(r"\b0x:?([0-9a-fA-F]+)", str(error))
        return EngineError(
            f"{self._path}: the model {what}: {_one_line(str(error))}",
            code=int(code[1], 16) if code else None,
        )


def _why_refused(arrays: Sequence[NDArray[Any]], specs: Sequence[TensorSpec]) -> str | None:
    """What the native module checks too; given an empty array the runtime ends the process."""
    if len(arrays) != len(specs):
        return f"the model takes {len(specs)} inputs, not {len(arrays)}"
    for i, (array, spec) in enumerate(zip(arrays, specs, strict=True)):
        if not isinstance(array, np.ndarray) or array.dtype != spec.dtype:
            return f"input {i} must be a numpy array of {spec.dtype}"
        if array.ndim != len(spec.shape):
            return f"input {i} must have {len(spec.shape)} dimensions, not {array.ndim}"
        if array.size == 0:
            return f"input {i} is empty"
        if not array.flags.c_contiguous:
            return f"input {i} must be C-contiguous"
    return None


def _spec(info: Any) -> TensorSpec:
    return TensorSpec(_SCALAR_TYPES.get(info.dtype(), str(info.dtype())), tuple(info.sizes()))
