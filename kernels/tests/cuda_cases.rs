//! Every operator that runs on CUDA, against its reference evaluation.
