"""Files of vectors as other programs write them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import searchlib
from searchlib import ImageEncoder
from searchlib.encoder import built_in_card
from searchlib.images import load

MODEL: dict = {}


@pytest.fixture(scope="session")
def photo_vectors(original_photos: Path, encoder: ImageEncoder) -> dict[str, np.ndarray]:
    """The vector of each photograph by its file's name, float32, as a phone would have it."""
    return {
        path.name: encoder.embed(load(path, min_side=encoder.min_side).pixels)
        for path in sorted(original_photos.iterdir())
    }


@pytest.fixture
def unable_encoder(tmp_path: Path) -> ImageEncoder:
    """The built-in encoder's card, on a model file that does not exist: it can embed nothing."""
    return ImageEncoder(dataclasses.replace(built_in_card(), path=tmp_path / "none.pte"))


@pytest.fixture
def write_jsonl(encoder: ImageEncoder) -> Callable[..., Path]:
    """Writes JSON lines as an app would; with the encoder's identity unless header is None."""

    def write(path: Path, rows: list[dict], header: dict | None = MODEL) -> Path:
        lines = [json.dumps(row) for row in rows]
        if header is not None:
            full = {"searchlib": "vectors", "version": 1, "identity": encoder.identity, **header}
            lines.insert(0, json.dumps(full))
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def phone_file(photos: Path, photo_vectors, write_jsonl) -> Path:
    """JSON lines beside the photographs, with relative paths and exact vectors."""
    rows = [{"path": name, "vector": v.tolist()} for name, v in photo_vectors.items()]
    return write_jsonl(photos / "phone.jsonl", rows)


@pytest.fixture
def open_unable(library_folder: Path, unable_encoder: ImageEncoder):
    """Opens the test's library so that any embedding would fail."""
    return lambda: searchlib.open_library(library_folder, encoder=unable_encoder)
