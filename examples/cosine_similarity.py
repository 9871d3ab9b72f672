"""Two photographs, one number: the cosine of their vectors.

    python examples/cosine_similarity.py [ONE TWO] [--model clip]

1 is the same picture; what counts as alike differs from model to model. Without photographs of
your own, a pair of skimage.data is compared: the same motorcycle, seen by a left and a right eye.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib import ImageEmbeddings, SearchlibError


def main() -> int:
    parser = argparse.ArgumentParser(description="How alike are two photographs?")
    parser.add_argument("photographs", nargs="*", metavar="ONE TWO", help="paths or URLs")
    parser.add_argument("--model", default="tiny-vit-5m", help="a name, a card or a .pte file")
    options = parser.parse_args()
    if len(options.photographs) not in (0, 2):
        parser.error("name two photographs, or none")
    try:
        model = ImageEmbeddings(options.model)
        one, two = (model.forward(image) for image in options.photographs or a_pair())
    except SearchlibError as error:
        print(error, file=sys.stderr)
        return 2
    # The vectors have length 1: their inner product is the cosine.
    print(f"{float(one @ two):.3f}")
    return 0


def a_pair() -> list[NDArray[np.uint8]]:
    from skimage import data

    photographs: Any = data
    left, right, _ = photographs.stereo_motorcycle()
    return [left, right]


if __name__ == "__main__":
    sys.exit(main())
