"""The straightforward stack: Pillow, onnxruntime in float32, FAISS.

    onnx_stack.py MODEL.onnx FOLDER INDEX

Every file of the folder is opened, decoded in full, resized, normalised and embedded by itself, one
after the other; then the vectors go into an IndexFlatIP, which is written to a file.
"""

import json
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import onnxruntime
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def main() -> None:
    model, folder, target = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    start = time.perf_counter()
    vectors = []
    for path in sorted(Path(folder).iterdir()):
        with Image.open(path) as image:
            picture = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / STD
        batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
        vector = session.run(None, {"input": batch})[0][0]
        vectors.append(vector / np.linalg.norm(vector))
    embedded = time.perf_counter()
    matrix = np.stack(vectors).astype(np.float32)
    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix)
    faiss.write_index(index, target)
    print(json.dumps({"images": index.ntotal, "embedding_seconds": embedded - start}))


main()
