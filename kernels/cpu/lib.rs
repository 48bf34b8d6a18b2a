//! CPU primitives on plain slices, with run-time choice of instruction set.
