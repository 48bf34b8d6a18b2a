"""Exports tiny random-weight models with real exporters.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python export.py ../tiny                      # all of KEPT
    venv/bin/python export.py ../half half                 # all of KEPT_HALF
    venv/bin/python export.py out gemma3-dynamo18 olmo2-optimum

Each folder `<architecture>-<exporter>` gets `model.onnx` (`model.onnx.data`, where the exporter
writes one) and `expected.npz`: `ids` [1, 9], `logits`, then one decoding step on its cache,
`step_ids` [1, 1] and `step_logits`, all by ONNX Runtime.

The model builder needs transformers 5, optimum the one before:

    venv/bin/pip install --target newer "transformers>=5,<6"
    NEWER_TRANSFORMERS=$PWD/newer venv/bin/python export.py out qwen3-genai

Exporters: `optimum` (TorchScript), `dynamo18` and `dynamo23` (`torch.onnx.export(dynamo=True)` at
that opset), `dynamo18f16`, `dynamo23bf16` and their like (of a model in that type; expected are
PyTorch's logits of the model with its rounded weights in f32), `dynamo18eager` (the attention written out by the model itself instead of by
`scaled_dot_product_attention`), `genai` (the model builder of onnxruntime-genai), `genaif16` (the same in
f16 for the CPU, where it writes `MultiHeadAttention` and repeats the heads of keys and values).
"""

import inspect
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import onnx
import onnxruntime
import torch
from transformers import DynamicCache, PreTrainedTokenizerFast

from architectures import VOCAB, build
from kept import KEPT, KEPT_HALF

IDS = [[97, 5, 64, 23, 110, 42, 8, 71, 36]]
STEP_IDS = [[55]]
# Architectures that have no other form of attention than their own.
ONLY_EAGER = ["bloom", "mpt", "gptj"]


class WithFlatCache(torch.nn.Module):
    """Takes and returns keys and values as a flat list, as exported decoders do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, past):
        cache = DynamicCache.from_legacy_cache(tuple(zip(past[::2], past[1::2], strict=True)))
        has_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        positions = dict(position_ids=position_ids) if has_positions else {}
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            **positions,
        )
        present = [t for layer in out.past_key_values.to_legacy_cache() for t in layer]
        return out.logits, *present


def loop_over_all_experts(model):
    """Visits every expert, as transformers did before it skipped those without tokens: a loop
    whose length depends on data cannot be traced."""
    for kind in {type(module) for module in model.modules()}:
        if kind.forward.__module__ != kind.__module__:
            continue
        source = textwrap.dedent(inspect.getsource(kind.forward))
        line = "expert_hit = torch.greater(expert_mask.sum(dim=(-1, -2)), 0).nonzero()"
        if line in source:
            source = source.replace(line, "expert_hit = range(self.num_experts)")
            source = source.replace("expert_mask[expert_idx].squeeze(0)", "expert_mask[expert_idx]")
            scope = dict(vars(sys.modules[kind.__module__]))
            exec(source, scope)
            kind.forward = scope["forward"]


def half_type(exporter):
    """The type of 16 bits that an exporter's name ends with, if any."""
    for suffix, dtype in [("bf16", torch.bfloat16), ("f16", torch.float16)]:
        if exporter.endswith(suffix):
            return dtype
    return None


def cache_shape(model):
    """Number of layers, of key and value heads, and their size."""
    with torch.no_grad():
        cache = model(torch.tensor(IDS), use_cache=True).past_key_values.to_legacy_cache()
    _, n_heads, _, size = cache[0][0].shape
    return len(cache), n_heads, size


def export_dynamo(model, folder, opset):
    n_layers, n_heads, size = cache_shape(model)
    batch, length, past = 2, 3, 4
    names = [f"{i}.{part}" for i in range(n_layers) for part in ("key", "value")]
    example = (
        torch.randint(0, VOCAB, (batch, length)),
        torch.ones(batch, past + length, dtype=torch.int64),
        (torch.arange(length) + past).expand(batch, length).contiguous(),
        [torch.randn(batch, n_heads, past, size, dtype=model.dtype) for _ in names],
    )
    b, s = torch.export.Dim("batch"), torch.export.Dim("sequence_length")
    p, t = torch.export.Dim("past_sequence_length"), torch.export.Dim("total_sequence_length")
    shapes = ({0: b, 1: s}, {0: b, 1: t}, {0: b, 1: s}, [{0: b, 2: p}] * len(names))
    program = torch.onnx.export(
        WithFlatCache(model).eval(),
        example,
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=shapes,
        input_names=["input_ids", "attention_mask", "position_ids"]
        + [f"past_key_values.{name}" for name in names],
        output_names=["logits"] + [f"present.{name}" for name in names],
    )
    program.save(str(folder / "model.onnx"), external_data=False)
    drop_traces(folder / "model.onnx")


def drop_traces(path):
    """Takes the stack traces away that make up most of a tiny file."""
    model = onnx.load(path)
    graph = model.graph
    for item in [*graph.node, *graph.value_info, *graph.input, *graph.output]:
        kept = [p for p in item.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        del item.metadata_props[:]
        item.metadata_props.extend(kept)
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]
    onnx.save(model, path)


def export_optimum(model, folder):
    from optimum.exporters.onnx import onnx_export_from_model

    with tempfile.TemporaryDirectory() as temporary:
        onnx_export_from_model(
            model, temporary, opset=18, task="text-generation-with-past", do_validation=False
        )
        shutil.copy(pathlib.Path(temporary) / "model.onnx", folder)


def export_genai(model, folder, precision):
    with tempfile.TemporaryDirectory() as temporary:
        original, out = pathlib.Path(temporary) / "original", pathlib.Path(temporary) / "out"
        model.save_pretrained(original)
        vocab = {f"w{i}": i for i in range(VOCAB)}
        tokenizer = dict(
            version="1.0",
            added_tokens=[],
            pre_tokenizer=dict(type="WhitespaceSplit"),
            model=dict(type="WordLevel", vocab=vocab, unk_token="w0"),
        )
        (original / "tokenizer.json").write_text(json.dumps(tokenizer))
        fast = PreTrainedTokenizerFast(tokenizer_file=str(original / "tokenizer.json"))
        fast.save_pretrained(original)
        builder = ["-m", "onnxruntime_genai.models.builder", "-p", precision, "-e", "cpu"]
        paths = ["-i", original, "-o", out, "-c", pathlib.Path(temporary) / "cache"]
        newer = dict(PYTHONPATH=os.environ.get("NEWER_TRANSFORMERS", ""))
        command = [sys.executable, *builder, *map(str, paths)]
        subprocess.run(command, check=True, env=os.environ | newer)
        for file in ["model.onnx", "model.onnx.data", "genai_config.json"]:
            shutil.copy(out / file, folder)


def run(session, ids, past):
    """Logits and cache of `ids` behind `past`."""
    ids = np.array(ids, dtype=np.int64)
    n_past = next(iter(past.values())).shape[2] if past else 0
    feeds = dict(input_ids=ids, attention_mask=np.ones((1, n_past + ids.shape[1]), np.int64))
    feeds["position_ids"] = n_past + np.arange(ids.shape[1], dtype=np.int64)[None]
    inputs = session.get_inputs()
    n_kv = None
    for item in inputs:
        if item.name.startswith("past"):
            empty = [1 if isinstance(d, str) else d for d in item.shape]
            empty[2] = 0
            empty[3] = past_size(session, item) if isinstance(item.shape[3], str) else empty[3]
            feeds[item.name] = past.get(item.name, np.zeros(empty, np.float32))
    outputs = session.run(None, {i.name: feeds[i.name] for i in inputs})
    named = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True))
    logits = named.pop("logits")
    return logits, {name.replace("present", "past_key_values"): v for name, v in named.items()}


def past_size(session, item):
    """The size of a head that the file leaves open: the model builder writes it elsewhere."""
    path = pathlib.Path(session._model_path).with_name("genai_config.json")
    return json.loads(path.read_text())["model"]["decoder"]["head_size"]


def expected(model, folder):
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    logits, cache = run(session, IDS, {})
    step_logits, _ = run(session, STEP_IDS, cache)
    with torch.no_grad():
        whole = model(torch.tensor([IDS[0] + STEP_IDS[0]])).logits.numpy()
    ours = np.concatenate([logits, step_logits], axis=1)
    error = np.abs(ours - whole).max() / np.abs(whole).max()
    arrays = dict(ids=IDS, logits=logits, step_ids=STEP_IDS, step_logits=step_logits)
    np.savez_compressed(folder / "expected.npz", **{k: np.asarray(v) for k, v in arrays.items()})
    return error


def expected_of_half(model, folder):
    """As `expected`, of the model in f32; ONNX Runtime has no bfloat16 on the CPU."""
    with torch.no_grad():
        in_half = model(torch.tensor([IDS[0] + STEP_IDS[0]])).logits.float().numpy()
        logits = model.float()(torch.tensor([IDS[0] + STEP_IDS[0]])).logits.numpy()
    n = len(IDS[0])
    arrays = dict(ids=IDS, logits=logits[:, :n], step_ids=STEP_IDS, step_logits=logits[:, n:])
    np.savez_compressed(folder / "expected.npz", **{k: np.asarray(v) for k, v in arrays.items()})
    return np.abs(in_half - logits).max() / np.abs(logits).max()


def export(name, target):
    architecture, exporter = name.rsplit("-", 1)
    is_eager = exporter.endswith("eager") or architecture in ONLY_EAGER
    model = build(architecture, "eager" if is_eager else "sdpa", exporter.startswith("genai"))
    loop_over_all_experts(model)
    dtype = half_type(exporter)
    model = model.to(dtype) if dtype else model
    folder = target / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        if exporter == "optimum":
            export_optimum(model, folder)
        elif exporter.startswith("genai"):
            export_genai(model, folder, "fp16" if dtype else "fp32")
        else:
            export_dynamo(model, folder, int(exporter.removeprefix("dynamo")[:2]))
        error = expected_of_half(model, folder) if dtype else expected(model, folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {size / 1000:.0f} kB, differs from PyTorch by {error:.1e} of the largest logit")


def main():
    torch.set_num_threads(1)
    target = pathlib.Path(sys.argv[1])
    names = KEPT_HALF if sys.argv[2:] == ["half"] else sys.argv[2:] or KEPT
    for name in names:
        export(name, target)


if __name__ == "__main__":
    main()
