//! Measuring models: perplexity, distance to a reference, speed, memory.
mod bench;
mod compare;
mod error;
mod perplexity;
mod rows;
mod rss;
mod score;
mod windows;

pub use bench::{BenchOptions, Speed, bench, bench_all_logits};
pub use compare::{Comparison, compare};
pub use error::EvalError;
pub use perplexity::{Perplexity, perplexity};
pub use rows::{join_rows, tokenize};
pub use rss::peak_rss_bytes;
pub(crate) use score::score_on_host;
pub use windows::{EvalOptions, Progress};
