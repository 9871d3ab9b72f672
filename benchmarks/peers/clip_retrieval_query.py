"""A query as clip-retrieval's server answers it, with its own classes: FAISS, and metadata.

    clip_retrieval_query.py FOLDER VISUAL.onnx IMAGE

FOLDER has what `clip-retrieval index` writes: image.index, and metadata/*.parquet. The picture is
embedded by onnxruntime, because the package's torch would take seconds more to start. Prints JSON:
the paths, and the milliseconds of opening, of the vector, and of the search with the metadata.
"""

import json
import os
import sys
import sysconfig
import time
import types
from types import SimpleNamespace

# The package's own __init__ imports what computes embeddings of whole data sets, and torch.
package = types.ModuleType("clip_retrieval")
package.__path__ = [f"{sysconfig.get_path('purelib')}/clip_retrieval"]
sys.modules["clip_retrieval"] = package

# After the lines above, without which the package would want torch; it may not be installed here.
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from clip_retrieval import clip_back  # type: ignore[import-not-found]  # noqa: E402
from PIL import Image  # noqa: E402

COLUMNS = ["image_path"]
SIDE = 256
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def main() -> None:
    folder, visual, picture = sys.argv[1:]
    begin = time.perf_counter()
    session = onnxruntime.InferenceSession(visual, providers=["CPUExecutionProvider"])
    index = clip_back.load_index(folder + "/image.index", False)
    metadata, _ = clip_back.load_metadata_provider(folder, False, False, index, COLUMNS, False)
    opened = time.perf_counter()
    vector = session.run(None, {"input": pixels(picture)})[0].astype(np.float32)
    vector /= np.linalg.norm(vector)
    embedded = time.perf_counter()
    resource = SimpleNamespace(
        image_index=index,
        text_index=None,
        metadata_is_ordered_by_ivf=False,
        safety_model=None,
        violence_detector=None,
    )
    service = clip_back.KnnService(clip_resources={"images": resource})
    for _ in range(2):  # the second is what a running server takes
        start = time.perf_counter()
        distances, ids = service.knn_search(
            vector,
            modality="image",
            num_result_ids=10,
            clip_resource=resource,
            deduplicate=False,
            use_safety_model=False,
            use_violence_detector=False,
        )
        found = service.map_to_metadata(ids, distances, 10, metadata, COLUMNS)
        searched = time.perf_counter()
    print(
        json.dumps(
            {
                "paths": [each["image_path"] for each in found],
                "open_ms": 1000 * (opened - begin),
                "encode_ms": 1000 * (embedded - opened),
                "search_ms": 1000 * (searched - start),
            }
        )
    )
    # As a server that is stopped; what onnxruntime takes to end is no part of a query.
    sys.stdout.flush()
    os._exit(0)


def pixels(path: str) -> np.ndarray:
    """What open_clip does: the shorter side to SIDE, the middle, and the usual scale."""
    with Image.open(path) as image:
        whole = image.convert("RGB")
    scale = SIDE / min(whole.size)
    whole = whole.resize([int(side * scale) for side in whole.size], Image.Resampling.BICUBIC)
    left, top = ((side - SIDE) // 2 for side in whole.size)
    middle = whole.crop((left, top, left + SIDE, top + SIDE))
    scaled = (np.asarray(middle, np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


main()
