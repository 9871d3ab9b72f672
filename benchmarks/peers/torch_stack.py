"""The same stack with torch in eager mode in the place of onnxruntime.

    torch_stack.py MODEL.onnx FOLDER INDEX

The model is this package's own torch module, filled from the ONNX file; it subtracts the mean and
divides by the deviation itself.
"""

import json
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image

from searchlib.export.tiny_vit_weights import read_weights


def main() -> None:
    weights, folder, target = sys.argv[1:]
    model = read_weights(Path(weights)).model
    start = time.perf_counter()
    vectors = []
    with torch.inference_mode():
        for path in sorted(Path(folder).iterdir()):
            with Image.open(path) as image:
                picture = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
            pixels = np.asarray(picture, np.float32) / 255
            batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
            vector = model(batch)[0].numpy()
            vectors.append(vector / np.linalg.norm(vector))
    embedded = time.perf_counter()
    matrix = np.stack(vectors).astype(np.float32)
    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix)
    faiss.write_index(index, target)
    print(json.dumps({"images": index.ntotal, "embedding_seconds": embedded - start}))


main()
