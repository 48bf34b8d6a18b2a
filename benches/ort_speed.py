"""Measures loading, prefill and decoding of a model in ONNX Runtime, as JSON.

The KV cache stays in OrtValues and goes from step to step through IO binding, without copies
through NumPy. The median over the repetitions counts.

usage: ort_speed.py MODEL.onnx [--prefill 512] [--decode 64] [--threads 2] [--repeat 3]
"""

import argparse
import json
import resource
import statistics
import time

import numpy as np
import onnxruntime as ort


def past_inputs(session):
    return [i for i in session.get_inputs() if i.type == "tensor(float)"]


def token_inputs(session, ids, n_past):
    total = n_past + ids.shape[1]
    known = {
        "input_ids": ids,
        "attention_mask": np.ones((1, total), np.int64),
        "position_ids": np.arange(n_past, total, dtype=np.int64)[None],
    }
    return {i.name: known[i.name] for i in session.get_inputs() if i.name in known}


def present_name(past):
    return past.replace("past_key_values", "present")


def step(session, ids, n_past, cache):
    """Runs `ids` on the cache; returns the logits and the new cache."""
    binding = session.io_binding()
    for name, value in token_inputs(session, ids, n_past).items():
        binding.bind_cpu_input(name, value)
    for name, value in cache.items():
        binding.bind_ortvalue_input(name, value)
    outputs = [o.name for o in session.get_outputs()]
    for name in outputs:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    values = dict(zip(outputs, binding.get_outputs()))
    return values["logits"], {name: values[present_name(name)] for name in cache}


def empty_cache(session, head_size):
    cache = {}
    for past in past_inputs(session):
        heads = past.shape[1]
        size = past.shape[3] if isinstance(past.shape[3], int) else head_size
        empty = np.zeros((1, heads, 0, size), np.float32)
        cache[past.name] = ort.OrtValue.ortvalue_from_numpy(empty)
    return cache


def measure(session, args):
    prompt = (np.arange(args.prefill, dtype=np.int64)[None] * 37) % 40000 + 100
    cache = empty_cache(session, args.head_size)
    start = time.perf_counter()
    logits, cache = step(session, prompt, 0, cache)
    prefill = time.perf_counter() - start
    token = logits.numpy()[:, -1:].argmax(-1).astype(np.int64)
    start = time.perf_counter()
    for i in range(args.decode):
        logits, cache = step(session, token, args.prefill + i, cache)
        token = logits.numpy()[:, -1:].argmax(-1).astype(np.int64)
    return prefill, time.perf_counter() - start


def peak_bytes():
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--head-size", type=int, default=64)
    args = parser.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    start = time.perf_counter()
    session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    loaded = peak_bytes()
    measure(session, args)
    runs = [measure(session, args) for _ in range(args.repeat)]
    prefill = statistics.median(run[0] for run in runs)
    decode = statistics.median(run[1] for run in runs)
    print(
        json.dumps(
            {
                "prefill_tokens_per_s": args.prefill / prefill,
                "decode_tokens_per_s": args.decode / decode,
                "load_s": load,
                "load_peak_rss_bytes": loaded,
                "peak_rss_bytes": peak_bytes(),
                "onnxruntime": ort.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
