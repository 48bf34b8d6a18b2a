"""Checks that pairs of ONNX models compute the same outputs, bit for bit.

usage: same_logits.py [--head-size N] ORIGINAL COPY [ORIGINAL COPY ...]

N is the last size of the caches (16) where the files do not give it.

Each pair runs in ONNX Runtime on the same inputs, once with all optimisations and once with
none. Exits with 1 and a line for every output that differs.
"""

import sys

import numpy as np
import onnxruntime as ort

SIZES = {"batch": 1, "past": 3, "sequence": 4}


def size_of(name, dim):
    """The size for one dimension of the input `name`, the same for equal symbols."""
    if isinstance(dim, int):
        return dim
    text = str(dim or "").lower()
    if "total" in text or "+" in text:
        return SIZES["past"] + SIZES["sequence"]
    for key in ("batch", "past", "seq"):
        if key in text:
            return SIZES["sequence" if key == "seq" else key]
    raise SystemExit(f"no size for dimension {dim!r} of input {name}")


def make_input(info, head_dim, rng):
    """Deterministic data that suits the input."""
    is_head_dim = [len(info.shape) == 4 and i == 3 for i in range(len(info.shape))]
    sizes = zip(info.shape, is_head_dim)
    shape = [head_dim if is_head else size_of(info.name, d) for d, is_head in sizes]
    if info.name == "attention_mask":
        return np.ones(shape, np.int64)
    if info.name == "position_ids":
        return np.broadcast_to(np.arange(shape[1]) + SIZES["past"], shape).astype(np.int64)
    if "int64" in info.type:
        return rng.integers(0, 50, shape).astype(np.int64)
    if info.type == "tensor(float)":
        return rng.standard_normal(shape).astype(np.float32)
    if info.type == "tensor(float16)":
        return rng.standard_normal(shape).astype(np.float16)
    raise SystemExit(f"no data for input {info.name} of type {info.type}")


def run(path, level, head_size):
    """The outputs of the model at `path`, by name."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    head_dim = given_head_dim(session) or head_size
    feeds = {i.name: make_input(i, head_dim, rng) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def given_head_dim(session):
    """The last size of a cache, if the file gives it."""
    sizes = [i.shape[-1] for i in session.get_inputs() if len(i.shape) == 4]
    numbers = [s for s in sizes if isinstance(s, int)]
    return numbers[0] if numbers else None


def main(head_size, paths):
    levels = ort.GraphOptimizationLevel
    n_wrong = 0
    for original, copy in zip(paths[::2], paths[1::2], strict=True):
        for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
            expected, actual = (run(path, level, head_size) for path in (original, copy))
            if list(expected) != list(actual):
                print(f"{original}: outputs {list(actual)} instead of {list(expected)}")
                n_wrong += 1
                continue
            for name, value in expected.items():
                if value.dtype != actual[name].dtype or value.tobytes() != actual[name].tobytes():
                    print(f"{original}: {name} differs at {level}")
                    n_wrong += 1
    return 1 if n_wrong else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    size = 16
    if arguments[0] == "--head-size":
        size, arguments = int(arguments[1]), arguments[2:]
    sys.exit(main(size, arguments))
