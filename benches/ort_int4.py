"""Quantises an exported model with ONNX Runtime's own matmul_nbits_quantizer: block 32, symmetric,
accuracy level 4 (int8 activations inside the kernel). This is the rival of `benches/README.md`.

usage: ort_int4.py MODEL.onnx OUT.onnx
"""

import sys

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer


def main() -> None:
    source, target = sys.argv[1:]
    quantizer = MatMulNBitsQuantizer(
        onnx.load(source), block_size=32, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(target, use_external_data_format=True)


if __name__ == "__main__":
    main()
