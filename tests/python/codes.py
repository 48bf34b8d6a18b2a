"""Runs emitted models in ONNX Runtime with the codes of their activations in sight.

usage: codes.py FOLDER [FOLDER ...]

A FOLDER has `model.onnx` and `ids.npz` (`ids` [1, n], `step_ids` [1, m]). Beside them come

- `exposed.onnx`: the model with the result of every rounding as one more output;
- `forced.onnx`: the same, but what follows a rounding reads a new input, NAME/given, in place of
  its result NAME, so that a code that falls to the other side changes no other code;
- `prefill.in.npz` and `prefill.out.npz`: the arrays of a run of `exposed.onnx` on `ids` with empty
  caches, and `prefill.forced.npz`, the inputs of `forced.onnx` with the roundings of that run;
  `step.*.npz`: the same for `step_ids` on the caches of that run.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from decoder import Decoder


def roundings(model):
    """Names of the codes of activations, and of keys and values after rounding."""
    operators = [node for node in model.graph.node if node.domain == "planish"]
    ends = ("Quantize", "QuantizeDequantizeHeads")
    return [node.output[0] for node in operators if node.op_type.endswith(ends)]


def expose(model, names):
    infos = {info.name: info for info in model.graph.value_info}
    model.graph.output.extend(infos[name] for name in names)


def force(model, names):
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in names:
                node.input[index] = name + "/given"
    for name in names:
        info = next(output for output in model.graph.output if output.name == name)
        given = model.graph.input.add()
        given.CopyFrom(info)
        given.name = name + "/given"


def run(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    names = roundings(model)
    expose(model, names)
    onnx.save(model, folder / "exposed.onnx")
    decoder = Decoder(folder / "exposed.onnx")
    force(model, set(names))
    onnx.save(model, folder / "forced.onnx")
    ids = np.load(folder / "ids.npz")
    for run, tokens in [("prefill", "ids"), ("step", "step_ids")]:
        feeds, results = decoder.run(ids[tokens])
        np.savez(folder / f"{run}.in.npz", **feeds)
        np.savez(folder / f"{run}.out.npz", **results)
        given = {name + "/given": results[name] for name in names}
        np.savez(folder / f"{run}.forced.npz", **feeds, **given)


def main(folders):
    for folder in folders:
        run(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
