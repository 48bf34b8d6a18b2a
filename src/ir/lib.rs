//! The graph that every part of planish works on.
