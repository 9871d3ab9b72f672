"""What one would search with instead, each in a virtual environment of its own, with data of the
same size in its own format: rclip, and the way clip-retrieval searches.

rclip gets its model, OpenCLIP's ViT-B-32-256 in float32 as ONNX, from huggingface.co, unless that
lies in its data folder. Here it does, with random weights: it takes as long, and finds nothing.
clip-retrieval's requirements bring a CUDA build of torch and much else that a search does not
touch, so that only the package itself is installed and what its server module imports.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT, BenchmarkError, Run, installed, module_command, run, say

RCLIP = "rclip==3.3.0"
CLIP_RETRIEVAL = "clip-retrieval==2.45.0"
K = 10

_MODEL = "ViT-B-32-256-datacomp_s34b_b86k"
_DIMENSION = 512
_IMPORTED = (
    "numpy<2", "faiss-cpu<2", "pandas<3", "pyarrow<16", "flask<4", "flask_restful", "flask_cors<5",
    "fire<0.6", "fsspec", "h5py<4", "tqdm", "prometheus-client<1", "pillow", "onnxruntime",
    "setuptools<81",
)  # fmt: skip
_ROWS = 10_000
_FACTORY = "HNSW32"
"""What autofaiss 2.18, which clip-retrieval leaves the choice to, takes for 100,000 vectors and 4
GB."""


@dataclass(frozen=True, slots=True)
class Rclip:
    """rclip and a library of its own.

    Attributes:
        command: the program.
        data: its data folder: the model, and the database.
        photographs: the folder that its images are said to lie in.
    """

    command: Path
    data: Path
    photographs: Path

    def search(self, picture: Path) -> Run:
        """A query as a process; the folder is not looked through for new images."""
        done = run(
            [self.command, "--no-indexing", "--filepath-only", "--top", str(K), picture],
            folder=self.photographs,
            environment={"RCLIP_DATADIR": str(self.data)},
        )
        if len(done.stdout.splitlines()) != K:
            raise BenchmarkError(f"rclip gave {len(done.stdout.splitlines())} matches, not {K}")
        return done


@dataclass(frozen=True, slots=True)
class ClipRetrieval:
    """clip-retrieval's server module, and what it opens.

    Attributes:
        python: of the environment that it is installed in.
        folder: the index and the metadata.
        visual: the model as ONNX.
    """

    python: Path
    folder: Path
    visual: Path

    def search(self, picture: Path) -> Run:
        """A query as a process; it prints JSON."""
        program = ROOT / "benchmarks" / "peers" / "clip_retrieval_query.py"
        return run([self.python, program, self.folder, self.visual, picture])


def rclip(cache: Path, size: int, given: Path | None) -> Rclip:
    """rclip with `size` images; installed and written at the first call, and kept.

    Args:
        cache: where it is kept.
        size: of its library.
        given: a virtual environment with rclip in it; one is made if None.

    Raises:
        BenchmarkError: it cannot be installed, or its model not be made here.
    """
    environment = given or _environment(cache / "peer" / "rclip-3.3", [RCLIP])
    command = environment / "bin" / "rclip"
    if not command.exists():
        raise BenchmarkError(f"{environment}: there is no rclip in this environment")
    visual = _visual(cache)
    data = cache / "peer" / f"rclip-data-{size}"
    photographs = data / "photographs"
    if not data.exists():
        say(f"writing a library of {size:,} images for rclip")
        unfinished = _fresh(data)
        model = unfinished / _MODEL
        model.mkdir(parents=True)
        os.link(visual, model / "visual.onnx")
        # Only looked for: a query without words does not open them.
        (model / "textual.onnx").touch()
        (unfinished / "tokenizer").mkdir()
        (unfinished / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz").touch()
        (unfinished / "photographs").mkdir()
        _write_rclip(environment, unfinished / "db.sqlite3", photographs, size)
        unfinished.rename(data)
    return Rclip(command, data, photographs)


def clip_retrieval(cache: Path, size: int) -> ClipRetrieval:
    """clip-retrieval's server module with `size` images; kept as well.

    Raises:
        BenchmarkError: as `rclip`.
    """
    environment = _environment(
        cache / "peer" / "clip-retrieval-2.45", ["--no-deps", CLIP_RETRIEVAL], list(_IMPORTED)
    )
    visual = _visual(cache)
    folder = cache / "peer" / f"clip-retrieval-data-{size}"
    if not folder.exists():
        say(f"building an index of {size:,} images for clip-retrieval")
        unfinished = _fresh(folder)
        (unfinished / "metadata").mkdir(parents=True)
        _write_clip_retrieval(environment, unfinished, size)
        unfinished.rename(folder)
    return ClipRetrieval(environment / "bin" / "python", folder, visual)


def _environment(target: Path, *installs: list[str]) -> Path:
    # It cannot be moved, so that a file tells whether it was finished.
    finished = target / "finished"
    if not finished.exists():
        say(f"making {target}")
        shutil.rmtree(target, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(target)])
        for words in installs:
            _call([str(target / "bin" / "pip"), "install", "--quiet", *words])
        finished.touch()
    return target


def _call(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchmarkError(f"{' '.join(words)}: {last}")


def _fresh(target: Path) -> Path:
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    return unfinished


def _visual(cache: Path) -> Path:
    """The image tower of ViT-B-32-256 with random weights, as rclip's own script exports it."""
    path = cache / "peer" / "vit-b-32-256.onnx"
    if path.exists():
        return path
    missing = [name for name in ("torch", "transformers", "onnx") if not installed(name)]
    if missing:
        raise BenchmarkError(f"{missing[0]} is not installed; it makes the model")
    say("exporting a ViT-B-32-256 with random weights")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # As a process, because torch would stay in the memory of this one.
    _call([*module_command("search_peers"), str(partial)])
    partial.replace(path)
    return path


def _export(path: Path) -> None:
    import torch
    from torch import nn
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    # Torch is not followed by the type checker.
    class Vectors(nn.Module):  # type: ignore[misc]
        def __init__(self, tower: nn.Module) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            vectors: torch.Tensor = self.tower(pixel_values=pixels).image_embeds
            return vectors

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        image_size=256, patch_size=32, projection_dim=_DIMENSION, hidden_act="gelu"
    )
    with torch.no_grad():
        torch.onnx.export(
            Vectors(CLIPVisionModelWithProjection(config).eval()),
            (torch.zeros(1, 3, 256, 256),),
            str(path),
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            opset_version=18,
            dynamo=False,
        )


def _vectors(first: int, count: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng([9, first]).standard_normal((count, _DIMENSION), np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def _path(folder: Path, number: int) -> str:
    return str(folder / f"{number // 1000:03}" / f"IMG_{number:08}.jpg")


def _write_rclip(environment: Path, database: Path, photographs: Path, size: int) -> None:
    # Its own code makes the tables; the rows are as its own `upsert_image` writes them.
    make = "import sys; from rclip.db import DB; DB(sys.argv[1]).close()"
    _call([str(environment / "bin" / "python"), "-c", make, str(database)])
    with sqlite3.connect(database) as connection:
        for first in range(0, size, _ROWS):
            vectors = _vectors(first, min(_ROWS, size - first))
            connection.executemany(
                "INSERT INTO images(filepath, modified_at, size, vector, hash) VALUES (?,?,?,?,?)",
                (
                    (
                        _path(photographs, number),
                        1.6e9,
                        3_000_000,
                        vector.tobytes(),
                        f"{number:064x}",
                    )
                    for number, vector in enumerate(vectors, first)
                ),
            )
    connection.close()


def _write_clip_retrieval(environment: Path, folder: Path, size: int) -> None:
    vectors = np.concatenate(
        [_vectors(first, min(_ROWS, size - first)) for first in range(0, size, _ROWS)]
    )
    np.save(folder / "vectors.npy", vectors)
    # With the versions of its own environment, which read them later.
    make = (
        "import sys, faiss, numpy, pandas\n"
        "folder, factory, size = sys.argv[1:]\n"
        "vectors = numpy.load(folder + '/vectors.npy')\n"
        "index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)\n"
        "index.add(vectors)\n"
        "faiss.write_index(index, folder + '/image.index')\n"
        "paths = [f'/photographs/{i // 1000:03}/IMG_{i:08}.jpg' for i in range(int(size))]\n"
        "table = pandas.DataFrame({'image_path': paths})\n"
        "table.to_parquet(folder + '/metadata/metadata_0.parquet')\n"
    )
    _call([str(environment / "bin" / "python"), "-c", make, str(folder), _FACTORY, str(size)])
    (folder / "vectors.npy").unlink()


if __name__ == "__main__":
    _export(Path(sys.argv[1]))
