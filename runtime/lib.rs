//! Running graphs: engines, KV cache, text generation, evaluation.
