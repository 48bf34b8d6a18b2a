//! Passes over the graph: canonicalize, quantize, fuse.
