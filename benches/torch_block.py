"""Times forward and backward of a plain Llama block in PyTorch, for `cargo bench --bench block`.

usage: torch_block.py BATCH LENGTH THREADS REPEATS

Prints lines of a name and the median seconds of a step.
"""

import sys
import time

import torch
import torch.nn.functional as F

HIDDEN, HEADS, KV_HEADS, SIZE, INNER = 576, 9, 3, 64, 1536
SHAPES = {
    "q": (HIDDEN, HEADS * SIZE),
    "k": (HIDDEN, KV_HEADS * SIZE),
    "v": (HIDDEN, KV_HEADS * SIZE),
    "o": (HEADS * SIZE, HIDDEN),
    "gate": (HIDDEN, INNER),
    "up": (HIDDEN, INNER),
    "down": (INNER, HIDDEN),
}


def norm(x, weight):
    return F.rms_norm(x, (HIDDEN,), weight, 1e-5)


def rotated(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def block(x, w, cos, sin):
    h = norm(x, w["norm_1"])
    batch, length, _ = x.shape

    def heads(name, n):
        return (h @ w[name]).view(batch, length, n, SIZE).transpose(1, 2)

    q, k = rotated(heads("q", HEADS), cos, sin), rotated(heads("k", KV_HEADS), cos, sin)
    v = heads("v", KV_HEADS)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    x = x + y.transpose(1, 2).reshape(batch, length, -1) @ w["o"]
    h = norm(x, w["norm_2"])
    return x + (F.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"]


def median(step, repeats):
    times = []
    for i in range(repeats + 3):
        start = time.perf_counter()
        step()
        if i >= 3:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main():
    batch, length, threads, repeats = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for name, dtype in [("f32", None), ("bf16 autocast", torch.bfloat16)]:
        x = torch.randn(batch, length, HIDDEN, requires_grad=True)
        w = {key: torch.randn(shape) * 0.03 for key, shape in SHAPES.items()}
        w |= {key: torch.ones(HIDDEN) for key in ["norm_1", "norm_2"]}
        for weight in w.values():
            weight.requires_grad_()
        angles = torch.rand(length, SIZE // 2)
        cos, sin, gradient = angles.cos(), angles.sin(), torch.randn(batch, length, HIDDEN)

        def step():
            for value in [x, *w.values()]:
                value.grad = None
            with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                y = block(x, w, cos, sin)
            y.float().backward(gradient)

        print(f"PyTorch {torch.__version__}, {name} {median(step, repeats)}", flush=True)


main()
