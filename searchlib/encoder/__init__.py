"""Pixels or words to unit vectors: model cards, downloads, preprocessing, the ExecuTorch engine."""

from searchlib.encoder.card import ModelCard, Preprocessing, TextCard
from searchlib.encoder.card_file import (
    BUILT_IN,
    built_in_card,
    load_any_card,
    load_card,
    load_text_card,
)
from searchlib.encoder.contract import verify_model_file
from searchlib.encoder.encoder import ImageEncoder

__all__ = [
    "BUILT_IN",
    "ImageEncoder",
    "ModelCard",
    "Preprocessing",
    "TextCard",
    "built_in_card",
    "load_any_card",
    "load_card",
    "load_text_card",
    "verify_model_file",
]
