"""Runs models on a prompt and one step after it in ONNX Runtime.

usage: logits.py FOLDER [FOLDER ...]

FOLDER has model.onnx, and ids.npz with `ids` and `step_ids`. The logits of both runs go to
FOLDER/ort.npz as `prefill` and `step`; those without any optimisation as `plain_prefill` and
`plain_step`.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from decoder import Decoder

LEVELS = {
    "": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "plain_": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def main(folders):
    for folder in map(Path, folders):
        ids = np.load(folder / "ids.npz")
        found = {}
        for prefix, level in LEVELS.items():
            decoder = Decoder(folder / "model.onnx", level)
            for name, key in (("prefill", "ids"), ("step", "step_ids")):
                _, results = decoder.run(ids[key])
                found[prefix + name] = results["logits"]
        np.savez(folder / "ort.npz", **found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
