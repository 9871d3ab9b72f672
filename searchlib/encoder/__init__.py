"""Pixels to unit vectors: model cards, preprocessing, the ExecuTorch engine, the encoder."""

from searchlib.encoder.card import (
    BUILT_IN,
    ModelCard,
    Preprocessing,
    built_in_card,
    load_card,
)
from searchlib.encoder.encoder import ImageEncoder, verify_model_file

__all__ = [
    "BUILT_IN",
    "ImageEncoder",
    "ModelCard",
    "Preprocessing",
    "built_in_card",
    "load_card",
    "verify_model_file",
]
