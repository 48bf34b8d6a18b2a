"""Continues prompts in onnxruntime-genai, always with the likeliest token.

usage: genai.py FOLDER N_TOKENS IDS [IDS ...]

IDS are the tokens of a prompt, as 12,7,90. A line on standard output has the N_TOKENS tokens that
follow it (fewer where the text ends), in the same form.
"""

import sys

import onnxruntime_genai as og


def main(folder, n_tokens, *prompts):
    model = og.Model(folder)
    for prompt in prompts:
        ids = [int(token) for token in prompt.split(",")]
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + int(n_tokens), do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        print(",".join(str(token) for token in generator.get_sequence(0)[len(ids) :]))


if __name__ == "__main__":
    main(*sys.argv[1:])
