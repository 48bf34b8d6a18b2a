"""Runs ONNX models in ONNX Runtime and leaves their outputs as raw bytes.

usage: run_model.py MODEL [MODEL ...]

Every input of a model must have a default (an initializer of the same name), which is what it
runs on. Output i of MODEL goes to the file MODEL.i.bin, in row-major order; a line on standard
output gives its element type and sizes, such as "float 2 3".
"""

import sys

import numpy as np
import onnxruntime as ort

NAMES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float16): "float16",
    np.dtype(np.float64): "double",
    np.dtype(np.int8): "int8",
    np.dtype(np.uint8): "uint8",
    np.dtype(np.int32): "int32",
    np.dtype(np.int64): "int64",
    np.dtype(np.bool_): "bool",
}


def main(paths):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Products with 4- and 8-bit weights are fused; without this they round activations to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    for path in paths:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for i, value in enumerate(session.run(None, {})):
            with open(f"{path}.{i}.bin", "wb") as file:
                file.write(np.ascontiguousarray(value).tobytes())
            print(NAMES[value.dtype], *value.shape)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
