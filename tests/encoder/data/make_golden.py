"""Makes golden.npy: what onnxruntime says of photographs, with the weights the encoder came from.

    python tests/encoder/data/make_golden.py tiny_vit_5m_224_in22k.onnx

Needs onnxruntime and scikit-image.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import skimage.data
from PIL import Image

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
MEAN = np.array((0.485, 0.456, 0.406), np.float32)[:, None, None]
STD = np.array((0.229, 0.224, 0.225), np.float32)[:, None, None]

pixels = [
    np.asarray(
        Image.fromarray(getattr(skimage.data, name)()).resize((224, 224), Image.Resampling.BICUBIC)
    )
    for name in PHOTOGRAPHS
]
planes = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(vectors,) = session.run(None, {"input": (planes - MEAN) / STD})
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
np.save(Path(__file__).with_name("golden.npy"), vectors)
