//! Small random decoders in canonical form, and running them.

mod decoder;
mod run;

pub(crate) use decoder::{Mlp, Norm, TinyDecoder};
pub(crate) use run::{evaluate, largest_difference, mean_difference, run};
