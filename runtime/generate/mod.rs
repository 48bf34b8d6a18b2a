//! Text generation: feeding the prompt, sampling, stopping, statistics.
#[cfg(test)]
pub(crate) mod fake;
mod random;
mod sampler;
mod session;

pub use random::SplitMix64;
pub use sampler::{Sampler, SamplingError, SamplingOptions};
pub use session::{GenerateError, GenerateOptions, Generation, StopReason, generate};
