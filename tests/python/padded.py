"""Runs decoders in ONNX Runtime on two sequences, the second one padded on its left.

usage: padded.py OUT_DIR MODEL_DIR [MODEL_DIR ...]

Each MODEL_DIR holds model.onnx and expected.npz, whose `ids` are the first sequence; the second
has five of them after padding. OUT_DIR/NAME.prefill.npz and OUT_DIR/NAME.step.npz have all inputs
(`in/…`) and the logits of the prompt and of one token after it. Models that ONNX Runtime can't run
on a batch are printed: its RotaryEmbedding does not broadcast the tables of one sequence.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

N_SHORT = 5


def main(target, folders):
    for folder in map(Path, folders):
        try:
            run_padded(target, folder)
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            assert "RotaryEmbedding" in str(error), error
            print(folder.name)


def run_padded(target, folder):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(folder / "model.onnx"), options)
    names = [output.name for output in session.get_outputs()]
    row = np.load(folder / "expected.npz")["ids"][0]
    n_padding = len(row) - N_SHORT
    ids = np.stack([row, np.concatenate([np.ones(n_padding, np.int64), row[:N_SHORT]])])
    mask = np.ones_like(ids)
    mask[1, :n_padding] = 0
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    past = {}
    for info in session.get_inputs():
        if info.name.startswith("past"):
            _, heads, _, size = info.shape
            past[info.name] = np.zeros((2, heads, 0, size), np.float32)
    for run in ["prefill", "step"]:
        known = dict(input_ids=ids, attention_mask=mask, position_ids=positions, **past)
        feeds = {info.name: known[info.name] for info in session.get_inputs()}
        results = dict(zip(names, session.run(names, feeds)))
        arrays = {f"in/{name}": array for name, array in feeds.items()}
        arrays |= dict(logits=results["logits"], mask=mask[:, -ids.shape[1] :])
        np.savez(Path(target) / f"{folder.name}.{run}.npz", **arrays)
        past = {n: results[n.replace("past_key_values", "present")] for n in past}
        ids = row[-2:, None].copy()
        mask = np.concatenate([mask, np.ones((2, 1), np.int64)], axis=1)
        positions = positions[:, -1:] + 1


main(sys.argv[1], sys.argv[2:])
