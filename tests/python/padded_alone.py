"""Runs emitted models in ONNX Runtime on a batch of two sequences, the first padded on the left.

usage: padded_alone.py FOLDER [FOLDER ...]

A FOLDER has `model.onnx` and `ids.npz` (`ids` [1, n]). For each one a line: the largest
difference of a logit from that of the sequence alone, relative to the largest.
"""

import sys
from pathlib import Path

import numpy as np
from decoder import Decoder

N_PADDED = 3


def difference(decoder, ids):
    """The first sequence has the tokens `ids` without the last ones, the second all of them."""
    n = len(ids)
    short = ids[: n - N_PADDED]
    padded = np.concatenate([np.zeros(N_PADDED, np.int64), short])
    mask = np.ones((2, n), np.int64)
    mask[0, :N_PADDED] = 0
    positions = np.arange(n)
    positions = np.stack([np.maximum(positions - N_PADDED, 0), positions])
    given = dict(attention_mask=mask, position_ids=positions)
    decoder.reset(rows=2)
    _, both = decoder.run(np.stack([padded, ids]), **given)
    worst = 0.0
    for row, tokens, first in [(0, short, N_PADDED), (1, ids, 0)]:
        decoder.reset()
        _, alone = decoder.run(tokens[None])
        expected = alone["logits"][0]
        error = np.abs(both["logits"][row, first:] - expected).max()
        worst = max(worst, error / np.abs(expected).max())
    return worst


for path in sys.argv[1:]:
    folder = Path(path)
    ids = np.load(folder / "ids.npz")["ids"][0]
    print(difference(Decoder(folder / "model.onnx"), ids))
