"""Speed of a Llama in fp16 in plain PyTorch: the rival of the CUDA engine.

usage: rival_llama.py [--layers 32] [--context 2048] [--repeats 20] [--compile [MODE]] [--only block,...]
       rival_llama.py --check

Prints medians as JSON: one block and the whole model over a prompt of `context` tokens (the
logits of the last position alone, as for generating text), and one decoding step at that
context, batch 1. The weights are random. What makes it fast: fused qkv and gate_up weights,
rotary tables, a static KV cache, scaled_dot_product_attention with grouped heads by the backend
that is fastest here, and every measured piece is one captured CUDA graph, so that launches from
Python cost nothing. A decoding step attends over exactly `context` keys without any mask, which
favours it: a server's static cache would need one. `--compile` measures the same once more with
blocks through torch.compile (MODE `max-autotune-no-cudagraphs` searches for minutes).

`--check` compares a decoding step with a longer prompt, in f32 on a small model on the CPU.
"""

import argparse
import dataclasses
import json
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the model; as they stand, those of Llama-3-8B."""

    hidden: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    head_size: int = 128
    intermediate: int = 14336
    vocabulary: int = 128256
    rope_theta: float = 500000.0
    epsilon: float = 1e-5


class Weights:
    """What one block reads; its cache is [1, kv_heads, positions, head_size]."""

    def __init__(self, shape, positions, make):
        n_qkv = (shape.heads + 2 * shape.kv_heads) * shape.head_size
        self.norm = make(shape.hidden, ones=True)
        self.qkv = make(n_qkv, shape.hidden)
        self.o = make(shape.hidden, shape.heads * shape.head_size)
        self.mlp_norm = make(shape.hidden, ones=True)
        self.gate_up = make(2 * shape.intermediate, shape.hidden)
        self.down = make(shape.hidden, shape.intermediate)
        cache = (1, shape.kv_heads, positions, shape.head_size)
        self.keys, self.values = make(*cache, zeros=True), make(*cache, zeros=True)

    def all(self):
        return (self.norm, self.qkv, self.o, self.mlp_norm, self.gate_up, self.down, self.keys,
                self.values)


def block(shape, x, weights, cos, sin, positions, is_prompt):
    """x [1, n, hidden] through one block; cos and sin are [n, 1, head_size] tables of these
    positions, sin with its first half negated; keys and values go to `positions` of the cache."""
    norm, qkv, o, mlp_norm, gate_up, down, keys, values = weights
    n = x.shape[1]
    y = F.linear(F.rms_norm(x, (shape.hidden,), norm, shape.epsilon), qkv)
    y = y.view(1, n, shape.heads + 2 * shape.kv_heads, shape.head_size)
    rotated, value = y.split([shape.heads + shape.kv_heads, shape.kv_heads], dim=2)
    swapped = rotated.roll(shape.head_size // 2, -1)
    rotated = torch.addcmul(rotated * cos, swapped, sin)
    query, key = rotated.split([shape.heads, shape.kv_heads], dim=2)
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    keys.index_copy_(2, positions, key)
    values.index_copy_(2, positions, value)
    if not is_prompt:
        key, value = keys, values
    y = F.scaled_dot_product_attention(query, key, value, is_causal=is_prompt, enable_gqa=True)
    x = x + F.linear(y.transpose(1, 2).reshape(1, n, -1), o)
    y = F.linear(F.rms_norm(x, (shape.hidden,), mlp_norm, shape.epsilon), gate_up)
    gate, up = y.chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, down)


class Llama:
    """A model with a static cache of `positions` positions."""

    def __init__(self, shape, positions, device, dtype):
        generator = torch.Generator(device).manual_seed(0)

        def make(*size, ones=False, zeros=False):
            tensor = torch.empty(size, device=device, dtype=dtype)
            if ones or zeros:
                return tensor.fill_(1.0 if ones else 0.0)
            return tensor.normal_(0.0, 0.02, generator=generator)

        self.shape = shape
        self.embedding = make(shape.vocabulary, shape.hidden)
        self.head = make(shape.vocabulary, shape.hidden)
        self.norm = make(shape.hidden, ones=True)
        self.layers = [Weights(shape, positions, make) for _ in range(shape.layers)]
        self.cos, self.sin = (t.to(dtype) for t in rotary_tables(shape, positions, device))
        self.block = block

    def blocks(self, x, positions, is_prompt, layers=None):
        cos, sin = self.cos[positions], self.sin[positions]
        for layer in layers or self.layers:
            x = self.block(self.shape, x, layer.all(), cos, sin, positions, is_prompt)
        return x

    def logits(self, ids, positions, is_prompt):
        """The logits of the last of the tokens `ids` [1, n] at `positions` [n]."""
        x = self.blocks(F.embedding(ids, self.embedding), positions, is_prompt)
        x = F.rms_norm(x[:, -1], (self.shape.hidden,), self.norm, self.shape.epsilon)
        return F.linear(x, self.head)


def rotary_tables(shape, positions, device):
    """cos and sin [positions, 1, head_size]; the first half of sin is negated, so that rotating
    is x · cos + (x with its halves swapped) · sin."""
    half = torch.arange(0, shape.head_size, 2, device=device, dtype=torch.float64)
    angles = torch.arange(positions, device=device, dtype=torch.float64)[:, None, None]
    angles = angles / shape.rope_theta ** (half / shape.head_size)
    sin = angles.sin()
    return torch.cat([angles.cos()] * 2, -1), torch.cat([-sin, sin], -1)


class Clock:
    """Times pieces of work as captured CUDA graphs."""

    def __init__(self, repeats):
        self.repeats = repeats

    def median_ms(self, work):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        for _ in range(3):
            graph.replay()
        times = [self.replay_ms(graph) for _ in range(self.repeats)]
        return statistics.median(times)

    def replay_ms(self, graph):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def fastest_backend(clock, shape, n_queries, n_keys):
    """The attention backend that is fastest for these sizes, and the time of each."""
    def make(heads, n):
        size = (1, n, heads, shape.head_size)
        return torch.randn(size, device="cuda", dtype=torch.float16).transpose(1, 2)

    query, key, value = make(shape.heads, n_queries), *(make(shape.kv_heads, n_keys),) * 2
    times = {}
    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
        def attend():
            F.scaled_dot_product_attention(
                query, key, value, is_causal=n_queries > 1, enable_gqa=True)
        try:
            with sdpa_kernel(getattr(SDPBackend, name)):
                times[name] = clock.median_ms(attend)
        except (RuntimeError, AttributeError):
            pass  # This backend does not take these sizes, or this PyTorch does not have it.
    if not times:
        return [SDPBackend.MATH], times
    return [getattr(SDPBackend, min(times, key=times.get)), SDPBackend.MATH], times


def measure(model, clock, context, only, backends):
    """Medians in milliseconds."""
    prompt = torch.arange(context, device="cuda")
    last = prompt[-1:]
    ids = torch.randint(model.shape.vocabulary, (1, context), device="cuda")
    x = torch.randn(1, context, model.shape.hidden, device="cuda", dtype=torch.float16)
    first = model.layers[:1]
    work = {
        "block_prefill": lambda: model.blocks(x, prompt, True, first),
        "prefill": lambda: model.logits(ids, prompt, True),
        "decode": lambda: model.logits(ids[:, :1], last, False).argmax(-1),
    }
    times = {}
    for name in only:
        is_prompt = name != "decode"
        with sdpa_kernel(backends[is_prompt]), torch.no_grad():
            times[f"{name}_ms"] = clock.median_ms(work[name])
    return times


def run(arguments):
    shape = Shape(layers=arguments.layers)
    clock = Clock(arguments.repeats)
    context = arguments.context
    with torch.no_grad():
        model = Llama(shape, context, "cuda", torch.float16)
        prompt_backend, prompt_times = fastest_backend(clock, shape, context, context)
        step_backend, step_times = fastest_backend(clock, shape, 1, context)
    backends = {True: prompt_backend, False: step_backend}
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "layers": shape.layers,
        "context": context,
        "attention_ms": {"prefill": prompt_times, "decode": step_times},
        "eager": measure(model, clock, context, arguments.only, backends),
    }
    if arguments.compile:
        model.block = torch.compile(block, dynamic=False, mode=arguments.compile)
        report["compiled"] = measure(model, clock, context, arguments.only, backends)
    report["peak_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(report, indent=1))


@torch.no_grad()
def check():
    """Whether prompt and decoding step agree."""
    shape = Shape(64, 2, 4, 2, 16, 128, 512)
    model = Llama(shape, 8, "cpu", torch.float32)
    ids = torch.randint(shape.vocabulary, (1, 8), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(8)
    expected = model.logits(ids, positions, True)
    for layer in model.layers:
        layer.keys.zero_()
        layer.values.zero_()
    model.logits(ids[:, :7], positions[:7], True)
    actual = model.logits(ids[:, 7:], positions[7:], False)
    difference = ((actual - expected).abs().max() / expected.abs().max()).item()
    print(json.dumps({"difference": difference}))
    return 0 if difference < 1e-5 else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    pieces = ["block_prefill", "prefill", "decode"]
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compile", nargs="?", const="default", metavar="MODE")
    parser.add_argument("--only", type=lambda text: text.split(","), default=pieces,
                        help="some of " + ",".join(pieces))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    if not set(arguments.only) <= set(pieces):
        parser.error(f"--only takes some of {','.join(pieces)}")
    run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
