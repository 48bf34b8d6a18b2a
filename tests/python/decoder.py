"""A decoder in ONNX Runtime that keeps its caches from run to run."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

# Of the tiny models, one of which does not declare it.
HEAD_SIZE = 16


def head_size(path):
    """The size of a head where the graph at `path` does not declare it."""
    config = Path(path).parent / "config.json"
    if not config.exists():
        return HEAD_SIZE
    config = json.loads(config.read_text())
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


class Decoder:
    def __init__(self, path, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 2
        options.log_severity_level = 3
        # Else products with dequantised weights round their activations to 8 bits.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.head_size = head_size(path)
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.reset()

    def reset(self, rows=1):
        """Empties the caches, for a batch of `rows` sequences."""
        self.n_past = 0
        self.caches = {}
        for past in self.session.get_inputs():
            if past.name.startswith("past_key_values"):
                _, heads, _, size = past.shape
                size = size if isinstance(size, int) else self.head_size
                dtype = np.float16 if past.type == "tensor(float16)" else np.float32
                self.caches[past.name] = np.zeros((rows, heads, 0, size), dtype)

    def run(self, ids, **given):
        """Runs `ids` [rows, n] on the caches; returns all inputs and all outputs by name.

        `given` are inputs in place of those for one sequence without padding.
        """
        total = self.n_past + ids.shape[1]
        known = {
            "input_ids": ids,
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(self.n_past, total, dtype=np.int64)[None],
            **self.caches,
            **given,
        }
        feeds = {info.name: known[info.name] for info in self.session.get_inputs()}
        results = dict(zip(self.outputs, self.session.run(self.outputs, feeds)))
        self.n_past = total
        for name in self.caches:
            self.caches[name] = results[name.replace("past_key_values", "present")]
        return feeds, results
