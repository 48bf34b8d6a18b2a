"""Continues prompts in ONNX Runtime, always with the likeliest token.

usage: greedy.py MODEL N_TOKENS IDS [IDS ...]

IDS are the tokens of a prompt, as 12,7,90. A line on standard output has the N_TOKENS tokens that
follow it, in the same form.
"""

import sys

import numpy as np
from decoder import Decoder


def main(model, n_tokens, *prompts):
    decoder = Decoder(model)
    for prompt in prompts:
        decoder.reset()
        ids = [int(token) for token in prompt.split(",")]
        found = []
        for _ in range(int(n_tokens)):
            _, results = decoder.run(np.array([ids], np.int64))
            ids = [int(results["logits"][0, -1].argmax())]
            found += ids
        print(",".join(map(str, found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
