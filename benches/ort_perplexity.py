"""Perplexity of a model in ONNX Runtime, by the protocol of tests/data/README.md.

usage: ort_perplexity.py FOLDER TEXT [--windows N] [--context 2048] [--threads 2]

FOLDER has model.onnx and tokenizer.json; the tokenizers package is needed.
"""

import argparse

import numpy as np
import onnxruntime as ort
from ort_speed import empty_cache, token_inputs
from tokenizers import Tokenizer


def joined_rows(path):
    """The text with its rows joined as the protocol in tests/data/README.md says."""
    with open(path, encoding="utf-8") as file:
        *rows, rest = file.read().split("\n")
    kept = [row + "\n" if row.strip() else "" for row in rows]
    return "\n\n".join([*kept, rest])


def log_likelihood(logits, ids):
    """The sum over the tokens of their log-probabilities."""
    total = 0.0
    # In pieces: a vocabulary is wide.
    for start in range(0, len(ids), 128):
        rows = logits[start : start + 128].astype(np.float64)
        top = rows.max(-1, keepdims=True)
        norm = np.log(np.exp(rows - top).sum(-1)) + top[:, 0]
        total += (rows[np.arange(len(rows)), ids[start : start + 128]] - norm).sum()
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("text")
    parser.add_argument("--windows", type=int, default=0)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(f"{args.folder}/tokenizer.json")
    ids = tokenizer.encode(joined_rows(args.text), add_special_tokens=False).ids
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    model = f"{args.folder}/model.onnx"
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    windows = len(ids) // args.context
    windows = min(windows, args.windows or windows)
    total, n = 0.0, 0
    for window in range(windows):
        tokens = np.array([ids[window * args.context : (window + 1) * args.context]], np.int64)
        cache = {name: value.numpy() for name, value in empty_cache(session, 64).items()}
        feeds = {**token_inputs(session, tokens, 0), **cache}
        logits = session.run(["logits"], feeds)[0][0, :-1]
        total += log_likelihood(logits, tokens[0, 1:])
        n += args.context - 1
    print(f"{np.exp(-total / n):.4f} over {windows} windows of {args.context}")


if __name__ == "__main__":
    main()
