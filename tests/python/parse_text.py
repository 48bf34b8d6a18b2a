"""Reads models in ONNX's text syntax with ONNX's own parser and writes them as ONNX files.

usage: parse_text.py TEXT MODEL [TEXT MODEL ...]
"""

import sys

import onnx.parser


def main(paths):
    for text, model in zip(paths[::2], paths[1::2], strict=True):
        with open(text, encoding="utf-8") as file:
            parsed = onnx.parser.parse_model(file.read())
        onnx.save(parsed, model)


if __name__ == "__main__":
    main(sys.argv[1:])
