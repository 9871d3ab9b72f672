"""A query through the public Python API of ExecuTorch, and FAISS.

    executorch_query.py MODEL.pte INDEX PATHS.json IMAGE

Loads the same model and the same vectors as searchlib, decodes and embeds the picture, and prints
the paths of the ten nearest.
"""

import json
import sys
from pathlib import Path

import faiss
import numpy as np
import torch
from executorch.runtime import Runtime
from PIL import Image


def main() -> None:
    model, vectors, paths, query = sys.argv[1:]
    method = Runtime.get().load_program(Path(model)).load_method("forward")
    with Image.open(query) as image:
        picture = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, np.float32) / 255
    batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    vector = method.execute([batch])[0].numpy()
    vector = vector / np.linalg.norm(vector)
    index = faiss.read_index(vectors)
    _, rows = index.search(vector, 10)
    names = json.loads(Path(paths).read_text(encoding="utf-8"))
    print(json.dumps([names[row] for row in rows[0]]))


main()
