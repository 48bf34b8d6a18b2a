"""Runs models through ONNX Runtime and writes inputs and outputs as `onnx_backend_cases.py` does.

usage: onnx_model_cases.py OUT_DIR MODEL...
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from onnx_backend_cases import Writer

BATCH, PAST, SEQUENCE = 2, 3, 4


def size(name):
    """The size that a symbolic dimension gets."""
    sizes = {"batch": BATCH, "batch_size": BATCH, "sequence_length": SEQUENCE}
    total = ["total_sequence_length", "past_sequence_length + sequence_length"]
    return {**sizes, "past_sequence_length": PAST, **dict.fromkeys(total, PAST + SEQUENCE)}[name]


def feed(info, rng):
    shape = [d if isinstance(d, int) else size(d) for d in info.shape]
    if info.name == "input_ids":
        return rng.integers(0, 100, shape)
    if info.name == "position_ids":
        return np.tile(np.arange(PAST, PAST + SEQUENCE), (BATCH, 1))
    if info.name == "attention_mask":
        mask = np.ones(shape, np.int64)
        mask[1, 0] = 0
        return mask
    return rng.standard_normal(shape).astype(np.float32)


def main():
    out = Path(sys.argv[1])
    writer = Writer()
    cases = []
    for model in sys.argv[2:]:
        session = onnxruntime.InferenceSession(model)
        rng = np.random.default_rng(0)
        feeds = {info.name: feed(info, rng) for info in session.get_inputs()}
        outputs = session.run(None, feeds)
        names = [info.name for info in session.get_outputs()]
        cases.append({
            "name": model,
            "inputs": {name: writer.tensor(value) for name, value in feeds.items()},
            "outputs": {name: writer.tensor(value) for name, value in zip(names, outputs)},
        })
    (out / "cases.json").write_text(json.dumps(cases))
    (out / "cases.bin").write_bytes(writer.blob)


if __name__ == "__main__":
    main()
