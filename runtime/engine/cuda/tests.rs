//! Tests of the CUDA engine.
