"""Writes ONNX's own operator test cases in a form that needs no protobuf to read.

usage: onnx_backend_cases.py OUT_DIR OP_TYPE...

OUT_DIR/cases.json is a list of cases: operator, opset, attributes, inputs, outputs, tolerances.
OUT_DIR/cases.bin holds the tensors' bytes, little-endian, 4-bit elements packed two to a byte.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

warnings.filterwarnings("ignore")


class Writer:
    def __init__(self):
        self.blob = bytearray()

    def tensor(self, value):
        """A numpy array, or a TensorProto, as a reference into the blob."""
        if value is None:
            return None
        if isinstance(value, TensorProto):
            proto = value
        else:
            proto = numpy_helper.from_array(np.asarray(value))
        if proto.data_type == TensorProto.STRING:
            strings = [s.decode() for s in proto.string_data]
            return {"dtype": proto.data_type, "shape": list(proto.dims), "strings": strings}
        if not proto.HasField("raw_data"):
            array = numpy_helper.to_array(proto)
            proto = numpy_helper.from_array(array)
        offset = len(self.blob)
        self.blob += proto.raw_data
        size = len(proto.raw_data)
        # Aligned, so that the reader need not copy.
        self.blob += b"\0" * (-len(self.blob) % 16)
        shape = list(proto.dims)
        return {"dtype": proto.data_type, "shape": shape, "offset": offset, "size": size}

    def attribute(self, attribute):
        kinds = {
            AttributeProto.FLOAT: ("f", lambda a: a.f),
            AttributeProto.INT: ("i", lambda a: a.i),
            AttributeProto.STRING: ("s", lambda a: a.s.decode()),
            AttributeProto.TENSOR: ("t", lambda a: self.tensor(a.t)),
            AttributeProto.FLOATS: ("fs", lambda a: list(a.floats)),
            AttributeProto.INTS: ("is", lambda a: list(a.ints)),
            AttributeProto.STRINGS: ("ss", lambda a: [s.decode() for s in a.strings]),
        }
        kind, read = kinds[attribute.type]
        return {kind: read(attribute)}


def is_plain(values):
    return all(isinstance(v, (np.ndarray, np.generic, TensorProto)) for v in values)


def case(writer, name, node, opset, inputs, outputs, rtol, atol):
    """One case; `inputs` and `outputs` lack the absent optional ones."""
    present = iter(inputs)
    results = iter(outputs)
    return {
        "name": name,
        "op": node.op_type,
        "domain": node.domain,
        "opset": opset,
        "attributes": {a.name: writer.attribute(a) for a in node.attribute},
        "inputs": [writer.tensor(next(present)) if i else None for i in node.input],
        "outputs": [writer.tensor(next(results)) if o else None for o in node.output],
        "rtol": rtol,
        "atol": atol,
    }


def backend_cases(writer, ops):
    from onnx.backend.test.case.node import collect_testcases

    for test in collect_testcases(None):
        nodes = test.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in ops or test.model.graph.initializer:
            continue
        node = nodes[0]
        # Branches and bodies of loops: a case holds one node.
        if any(a.type == AttributeProto.GRAPH for a in node.attribute):
            continue
        opset = next((o.version for o in test.model.opset_import if o.domain == node.domain), 1)
        for inputs, outputs in test.data_sets:
            if is_plain(inputs) and is_plain(outputs):
                yield case(writer, test.name, node, opset, inputs, outputs, test.rtol, test.atol)


def main():
    out, ops = Path(sys.argv[1]), set(sys.argv[2:])
    writer = Writer()
    cases = list(backend_cases(writer, ops))
    cases += list(random_cases(writer, ops))
    (out / "cases.json").write_text(json.dumps(cases))
    (out / "cases.bin").write_bytes(writer.blob)


def random_cases(writer, ops):
    """Cases over shapes that ONNX's own leave out, with ONNX Runtime's results."""
    import onnxruntime

    from random_onnx_cases import generate

    for index, (op, attributes, inputs) in enumerate(generate(np.random.default_rng(1))):
        if op not in ops:
            continue
        inputs = [v if v is None else np.asarray(v) for v in inputs]
        names = [f"x{i}" if v is not None else "" for i, v in enumerate(inputs)]
        n_outputs = attributes.pop("_outputs", 1)
        results = [f"y{i}" for i in range(n_outputs)]
        node = helper.make_node(op, names, results, **attributes)
        feeds = {name: value for name, value in zip(names, inputs) if name}
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in feeds.items()
        ]
        declared = [onnx.ValueInfoProto(name=name) for name in results]
        graph = helper.make_graph([node], "g", infos, declared)
        opsets = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        outputs = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
        present = [v for v in inputs if v is not None]
        yield case(writer, f"random_{index}_{op}", node, 18, present, outputs, 1e-5, 1e-6)


if __name__ == "__main__":
    main()
