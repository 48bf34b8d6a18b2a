//! One folder per operator: schema, shape inference, reference evaluation, fast kernels.
