"""Measures which runtimes run what planish reads and writes; one JSON line a model and format.

usage: compatibility.py PLANISH TRACT FOLDER [FOLDER ...]
       compatibility.py --cuda FILE PLANISH FOLDER [FOLDER ...]

PLANISH and TRACT are programs: the binary, and the oracle's example `tract_logits`. FOLDER is a
model with expected.npz. A line has `model`, `format`, and for each consumer a `cell`: a largest
difference of logits relative to the largest, a count of tokens, or why there is none. Lines go to
stdout, the time that each took to stderr.

With --cuda, our engine for CUDA is measured alone, on a machine that needs no more than numpy, and
lines go to FILE as they come, after one with the `card` and the `date`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path

import numpy as np

FORMATS = {
    "as exported": None,
    "fused w4a4kv4": ["--format", "fused", "--bits", "w4a4kv4"],
    "fused w8a8kv8": ["--format", "fused", "--bits", "w8a8kv8", "--method", "rtn"],
    "matmulnbits w4a16": ["--format", "matmulnbits", "--bits", "w4a16"],
    "matmulnbits w4a8": ["--format", "matmulnbits", "--bits", "w4a8"],
    "qdq w4a16": ["--format", "qdq", "--bits", "w4a16"],
}
N_TOKENS = 16
# Processes that share a GPU, and the longest that one may take.
N_ON_CUDA = 12
TIME_LIMIT_S = 300


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
    # Whose folders are where says nothing.
    text = re.sub(r"[^\s\"']*/(?=model\.onnx)", "", text[:1000])
    return "no: " + (text if len(text) <= 100 else text[:97] + "…")


def attempt(measure, *arguments):
    try:
        return measure(*arguments)
    except Exception as error:  # Whatever a runtime says is the result.
        return reason(error)


def run(command):
    words = list(map(str, command))
    result = subprocess.run(words, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    return result.stdout


def quantized(planish, source, name, options, work):
    """The folder with a model in a format, made if need be."""
    if options is None:
        return source
    folder = work / name.replace(" ", "-")
    run([planish, "quantize", source, "-o", folder, "--device", "cpu", *options])
    return folder


def ours(planish, folder, ids, work, device):
    """The logits that planish computes of token ids alone."""
    np.savez(work / "in.npz", input_ids=ids)
    arguments = ["--inputs", work / "in.npz", "--outputs", work / "out.npz", "--device", device]
    run([planish, "forward", folder, *arguments])
    return np.load(work / "out.npz")["logits"].astype(np.float32)


def in_onnxruntime(folder, ids, level):
    import onnxruntime as ort
    from decoder import Decoder

    level = getattr(ort.GraphOptimizationLevel, level)
    _, results = Decoder(folder / "model.onnx", level).run(ids)
    return results["logits"].astype(np.float32)


def in_genai(folder, ids):
    """How many tokens onnxruntime-genai chooses as onnxruntime does."""
    import onnxruntime_genai as og
    from decoder import Decoder

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
    ids = expected["ids"]
    try:
        folder = quantized(planish, source, name, options, work)
        reference = ours(planish, folder, ids, work, "cpu")
    except Exception as error:
        return {"planish": reason(error)}
    cells = {"planish": difference(reference, expected["logits"])}
    for key, level in (("onnxruntime", "ORT_ENABLE_ALL"), ("onnxruntime plain", "ORT_DISABLE_ALL")):
        logits = attempt(in_onnxruntime, folder, ids, level)
        cells[key] = logits if isinstance(logits, str) else difference(logits, reference)
    if (folder / "genai_config.json").exists():
        cells["onnxruntime-genai"] = attempt(in_genai, folder, ids)
    if options is None or "qdq" in options:
        logits = attempt(in_tract, tract, folder, ids)
        is_text = isinstance(logits, str)
        cells["tract"] = logits if is_text else difference(logits, reference.reshape(-1))
    return cells


def on_cuda(planish, source, name, options, work):
    """The cell of our engine for CUDA."""
    expected = np.load(source / "expected.npz")
    folder = quantized(planish, source, name, options, work)
    return difference(ours(planish, folder, expected["ids"], work, "cuda"), expected["logits"])


def row(measure_cells, source, name):
    """Measures a model in one format; returns the line, and says on stderr how long it took."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        cells = measure_cells(source, name, FORMATS[name], Path(work))
    print(f"{source.name}, {name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    return json.dumps({"model": source.name, "format": name, "cells": cells})


def card():
    """The name of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return run(query).splitlines()[0].strip()


def main_on_cuda(file, planish, *folders):
    def cells(*arguments):
        return {"planish cuda": attempt(on_cuda, planish, *arguments)}

    with open(file, "w") as lines, ThreadPoolExecutor(N_ON_CUDA) as pool:
        print(json.dumps({"card": card(), "date": str(date.today())}), file=lines, flush=True)
        # Format by format, so that a run that is cut short has whole formats.
        tasks = [(Path(folder), name) for name in FORMATS for folder in folders]
        rows = [pool.submit(row, cells, source, name) for source, name in tasks]
        for done in as_completed(rows):
            print(done.result(), file=lines, flush=True)
    return 0


def main(planish, tract, *folders):
    def cells(*arguments):
        return measure(planish, tract, *arguments)

    tasks = [(Path(folder), name) for folder in folders for name in FORMATS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for line in pool.map(lambda task: row(cells, *task), tasks):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    is_cuda = sys.argv[1] == "--cuda"
    sys.exit(main_on_cuda(*sys.argv[2:]) if is_cuda else main(*sys.argv[1:]))
