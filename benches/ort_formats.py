"""Compares models in ONNX Runtime: loading, memory, prefill and decoding, as a Markdown table.

Each model runs in a process of its own, all of them once a round; the median of the rounds counts.
The last column is the speed of decoding over that of the first model.

usage: ort_formats.py NAME=MODEL.onnx [NAME=MODEL.onnx ...] [--rounds 3] [--threads 2]
       [--prefill 512] [--decode 64]

For instance, ONNX Runtime's own int4 beside what planish writes of the same export:

  python benches/ort_int4.py genai/model.onnx rival/model.onnx
  planish quantize genai -o ours --format matmulnbits --bits w4a8 --group-size 32
  python benches/ort_formats.py int4=rival/model.onnx ours=ours/model.onnx
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SPEED = Path(__file__).with_name("ort_speed.py")
COLUMNS = {
    "load, s": ("load_s", 1.0, 2),
    "peak of loading, MB": ("load_peak_rss_bytes", 1e6, 0),
    "peak, MB": ("peak_rss_bytes", 1e6, 0),
    "prefill, tokens/s": ("prefill_tokens_per_s", 1.0, 1),
    "decoding, tokens/s": ("decode_tokens_per_s", 1.0, 1),
}


def size(model):
    """Bytes of the model's files."""
    data = Path(f"{model}.data")
    return Path(model).stat().st_size + (data.stat().st_size if data.exists() else 0)


def measure(model, args):
    sizes = ["--prefill", args.prefill, "--decode", args.decode, "--threads", args.threads]
    command = [sys.executable, SPEED, model, "--repeat", 1, *sizes]
    result = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    args = parser.parse_args()
    models = dict(model.split("=", 1) for model in args.models)
    print(f"load of the machine before: {os.getloadavg()[0]:.2f}", file=sys.stderr)
    found = {name: [] for name in models}
    for _ in range(args.rounds):
        for name, model in models.items():
            found[name].append(measure(model, args))
    print("| model | files, MB |", " | ".join(COLUMNS), "| ratio |")
    print("| --- |" + " ---: |" * (len(COLUMNS) + 2))
    first = None
    for name, runs in found.items():
        median = {key: statistics.median(run[key] for run in runs) for key, _, _ in COLUMNS.values()}
        cells = [f"{median[key] / unit:.{digits}f}" for key, unit, digits in COLUMNS.values()]
        first = first or median["decode_tokens_per_s"]
        ratio = median["decode_tokens_per_s"] / first
        print(f"| {name} | {size(models[name]) / 1e6:.1f} |", " | ".join(cells), f"| {ratio:.2f} |")


if __name__ == "__main__":
    main()
