"""Measures which runtimes run what planish reads and writes; one JSON line a model and format.

usage: compatibility.py PLANISH TRACT FOLDER [FOLDER ...]

PLANISH and TRACT are programs: the binary, and the oracle's example `tract_logits`. FOLDER is a
model with expected.npz. A line has `model`, `format`, and for each consumer a `cell`: a largest
difference of logits relative to the largest, a count of tokens, or why there is none.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime_genai as og
from decoder import HEAD_SIZE, Decoder

FORMATS = {
    "as exported": None,
    "fused w4a4kv4": ["--format", "fused", "--bits", "w4a4kv4"],
    "fused w8a8kv8": ["--format", "fused", "--bits", "w8a8kv8", "--method", "rtn"],
    "matmulnbits w4a16": ["--format", "matmulnbits", "--bits", "w4a16"],
    "matmulnbits w4a8": ["--format", "matmulnbits", "--bits", "w4a8"],
    "qdq w4a16": ["--format", "qdq", "--bits", "w4a16"],
}
N_TOKENS = 16
TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16}


def difference(actual, expected):
    """The largest difference of logits, relative to the largest."""
    if actual.shape != expected.shape:
        return f"logits {actual.shape} instead of {expected.shape}"
    error = np.abs(actual.astype(np.float64) - expected).max() / np.abs(expected).max()
    return f"{error:.1e}"


def reason(error):
    """The last line of a message that says something, short enough for a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines or ["failed"])[-1].replace("|", "/")
    return "no: " + (text if len(text) <= 100 else text[:97] + "…")


def attempt(measure, *arguments):
    try:
        return measure(*arguments)
    except Exception as error:  # Whatever a runtime says is the result.
        return reason(error)


def run(command):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    return result.stdout


def prefill_feeds(model, ids):
    """Inputs of a prompt with empty caches, by the names and types that the graph gives."""
    graph = onnx.load(model, load_external_data=False).graph
    initializers = {tensor.name for tensor in graph.initializer}
    known = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
    }
    feeds = {}
    for value in graph.input:
        tensor = value.type.tensor_type
        if value.name in initializers:
            continue
        if value.name in known:
            feeds[value.name] = known[value.name].astype(TYPES[tensor.elem_type])
            continue
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        shape = (1, sizes[1], 0, sizes[3] or HEAD_SIZE)
        feeds[value.name] = np.zeros(shape, TYPES[tensor.elem_type])
    return feeds


def ours(planish, folder, ids, work):
    """The logits that planish's CPU engine computes."""
    np.savez(work / "in.npz", **prefill_feeds(folder / "model.onnx", ids))
    (work / "out.npz").unlink(missing_ok=True)
    arguments = ["--inputs", work / "in.npz", "--outputs", work / "out.npz", "--device", "cpu"]
    run([planish, "forward", folder, *arguments])
    return np.load(work / "out.npz")["logits"].astype(np.float32)


def in_onnxruntime(folder, ids, level):
    _, results = Decoder(folder / "model.onnx", level).run(ids)
    return results["logits"].astype(np.float32)


def in_genai(folder, ids):
    """How many tokens onnxruntime-genai chooses as onnxruntime does."""
    decoder, tokens, expected = Decoder(folder / "model.onnx"), ids, []
    for _ in range(N_TOKENS):
        _, results = decoder.run(tokens)
        tokens = np.array([[results["logits"][0, -1].argmax()]], np.int64)
        expected.append(int(tokens[0, 0]))
    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=ids.shape[1] + N_TOKENS, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(ids[0].tolist())
    while not generator.is_done():
        generator.generate_next_token()
    found = list(map(int, generator.get_sequence(0)[ids.shape[1] :]))
    # A text may end before that.
    same = sum(a == b for a, b in zip(found, expected))
    return f"{same} of {len(found)} tokens"


def in_tract(tract, folder, ids):
    tokens = ",".join(map(str, ids[0]))
    lines = run([tract, folder / "model.onnx", tokens]).split()
    return np.array(lines, np.float32)


def measure(planish, tract, source, name, options, work):
    """The cells of a model in one format."""
    expected = np.load(source / "expected.npz")
    ids, folder = expected["ids"], source
    cells = {}
    if options is not None:
        folder = work / name.replace(" ", "-")
        try:
            run([planish, "quantize", source, "-o", folder, *options])
        except RuntimeError as error:
            return {"planish": reason(error)}
    reference = attempt(ours, planish, folder, ids, work)
    if isinstance(reference, str):
        return {"planish": reference}
    cells["planish"] = difference(reference, expected["logits"])
    levels = ort.GraphOptimizationLevel
    for label, level in (("", levels.ORT_ENABLE_ALL), (" plain", levels.ORT_DISABLE_ALL)):
        logits = attempt(in_onnxruntime, folder, ids, level)
        is_text = isinstance(logits, str)
        cells["onnxruntime" + label] = logits if is_text else difference(logits, reference)
    if (folder / "genai_config.json").exists():
        cells["onnxruntime-genai"] = attempt(in_genai, folder, ids)
    if options is None or "qdq" in options:
        logits = attempt(in_tract, tract, folder, ids)
        cells["tract"] = logits if isinstance(logits, str) else difference(
            logits, reference.reshape(-1)
        )
    return cells


def main(planish, tract, *folders):
    for source in map(Path, folders):
        for name, options in FORMATS.items():
            with tempfile.TemporaryDirectory() as work:
                cells = measure(planish, tract, source, name, options, Path(work))
            print(json.dumps({"model": source.name, "format": name, "cells": cells}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
