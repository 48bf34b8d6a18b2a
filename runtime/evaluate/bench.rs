//! How fast a model takes a prompt and generates tokens.
use std::time::{Duration, Instant};

use super::EvalError;
use crate::generate::SplitMix64;
use crate::{LanguageModel, Logits, MemoryUse};

/// What to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchOptions {
    /// Tokens of the prompt of each sequence.
    pub prefill: usize,
    /// Tokens to feed one by one after it.
    pub decode: usize,
    /// How often to measure; the median counts.
    pub repeats: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { prefill: 512, decode: 64, repeats: 3 }
    }
}

/// Measured speed; all sequences of a batch count.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// Tokens of the prompt per second, the median.
    pub prefill_tokens_per_s: f64,
    /// Tokens fed one by one per second, the median.
    pub decode_tokens_per_s: f64,
    /// Sequences side by side.
    pub batch: usize,
    /// Memory of the model at the end.
    pub memory: MemoryUse,
}

/// Times a model on random tokens, which are the same for every model with that vocabulary.
///
/// A first, untimed pass with a short prompt warms the engine up. Every measurement begins with an
/// empty cache.
///
/// # Errors
/// [`EvalError::NothingToTime`] and [`EvalError::Model`].
pub fn bench(model: &mut dyn LanguageModel, options: BenchOptions) -> Result<Speed, EvalError> {
    for (what, count) in [("prefill", options.prefill), ("decode", options.decode)] {
        if count == 0 {
            return Err(EvalError::NothingToTime(what));
        }
    }
    pass(model, options.prefill.min(32), 1, Wanted::Token)?;
    let times = (0..options.repeats.max(1))
        .map(|_| pass(model, options.prefill, options.decode, Wanted::Token))
        .collect::<Result<Vec<_>, _>>()?;
    let of = |index: usize| times.iter().map(|time| time[index]).collect();
    Ok(Speed {
        prefill_tokens_per_s: rate(model, options.prefill, of(0)),
        decode_tokens_per_s: rate(model, options.decode, of(1)),
        batch: model.batch(),
        memory: model.memory(),
    })
}

/// Tokens of the prompt per second, the median, if the logits of every position are wanted:
/// [`bench`] asks for the likeliest next token alone, as greedy generation does.
///
/// # Errors
/// As [`bench`].
pub fn bench_all_logits(
    model: &mut dyn LanguageModel,
    options: BenchOptions,
) -> Result<f64, EvalError> {
    if options.prefill == 0 {
        return Err(EvalError::NothingToTime("prefill"));
    }
    pass(model, options.prefill.min(32), 0, Wanted::AllLogits)?;
    let times = (0..options.repeats.max(1))
        .map(|_| Ok(pass(model, options.prefill, 0, Wanted::AllLogits)?[0]))
        .collect::<Result<_, EvalError>>()?;
    Ok(rate(model, options.prefill, times))
}

/// Tokens per second where each sequence got `tokens` in the median of `times`.
fn rate(model: &dyn LanguageModel, tokens: usize, times: Vec<Duration>) -> f64 {
    (tokens * model.batch()) as f64 / median(times).as_secs_f64().max(1e-9)
}

/// What the prompt is fed for.
#[derive(Clone, Copy)]
enum Wanted {
    /// The likeliest next token.
    Token,
    /// The logits of all positions.
    AllLogits,
}

/// Feeds a prompt of `prefill` tokens, then `decode` single ones; returns the times of both.
fn pass(
    model: &mut dyn LanguageModel,
    prefill: usize,
    decode: usize,
    want: Wanted,
) -> Result<[Duration; 2], EvalError> {
    let (vocab, batch) = (model.vocab_size() as u64, model.batch());
    let mut random = SplitMix64::new(0);
    let mut ids = |n: usize| (0..n * batch).map(|_| random.below(vocab) as u32).collect::<Vec<_>>();
    model.reset();
    let prompt = ids(prefill);
    let start = Instant::now();
    match want {
        Wanted::Token => drop(model.forward_greedy(&prompt)?),
        Wanted::AllLogits => drop(model.forward(&prompt, Logits::All)?),
    }
    let prefilled = start.elapsed();
    let start = Instant::now();
    for _ in 0..decode {
        model.forward_greedy(&ids(1))?;
    }
    Ok([prefilled, start.elapsed()])
}

/// The middle one, the lower of two.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::fake::Bigram;

    #[test]
    fn prompts_and_single_tokens_are_fed_as_often_as_asked() {
        let mut model = Bigram::new(10, |_, _| 0.0);
        let options = BenchOptions { prefill: 40, decode: 2, repeats: 2 };
        let speed = bench(&mut model, options).unwrap();
        assert_eq!(model.calls, [32, 1, 40, 1, 1, 40, 1, 1]);
        assert!(speed.prefill_tokens_per_s > 0.0 && speed.decode_tokens_per_s > 0.0);
        assert_eq!((speed.batch, speed.memory.cache), (1, 42));
    }

    #[test]
    fn prompts_alone_are_fed_for_all_logits() {
        let mut model = Bigram::new(10, |_, _| 0.0);
        let options = BenchOptions { prefill: 40, decode: 2, repeats: 2 };
        assert!(bench_all_logits(&mut model, options).unwrap() > 0.0);
        assert_eq!(model.calls, [32, 40, 40]);
    }

    #[test]
    fn nothing_cannot_be_timed() {
        let mut model = Bigram::new(10, |_, _| 0.0);
        let options = BenchOptions { prefill: 0, ..BenchOptions::default() };
        assert!(bench_all_logits(&mut model, options).is_err());
        let options = BenchOptions { decode: 0, ..BenchOptions::default() };
        let error = bench(&mut model, options).unwrap_err().to_string();
        assert_eq!(error, "the number of tokens to decode is 0, but at least 1 is needed");
    }

    #[test]
    fn the_median_is_the_middle() {
        let times = |list: &[u64]| median(list.iter().copied().map(Duration::from_secs).collect());
        assert_eq!(times(&[3, 1, 2]).as_secs(), 2);
        assert_eq!(times(&[2, 1]).as_secs(), 1);
    }
}
