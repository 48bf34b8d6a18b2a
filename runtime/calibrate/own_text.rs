//! Calibration text that the model writes itself (LLM-QAT, arXiv 2305.17888).

use planish_ir::Model;

use super::CalibrationError;
use crate::decoder::{Decoder, DecoderOptions};
use crate::engine::Engine;
use crate::generate::{Sampler, SamplingOptions, SplitMix64};
use crate::{LanguageModel, Logits};

/// Sequences that are written side by side.
const BATCH: usize = 16;

/// Writes `n_windows` windows of `length` tokens, one after the other in the result. Each starts
/// with a random token of the vocabulary, and goes on with tokens drawn by the model's own
/// probabilities. `progress` is called with the number of tokens written and the number in all.
///
/// # Errors
/// If the graph is no decoder, the engine can't run it, or its logits are not finite.
pub fn write_own_text(
    model: &Model,
    engine: &dyn Engine,
    n_windows: usize,
    length: usize,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<u32>, CalibrationError> {
    let batch = n_windows.clamp(1, BATCH);
    let options = DecoderOptions { batch, ..DecoderOptions::default() };
    let mut decoder = Decoder::new(model.clone(), engine, options)?;
    let sampling = SamplingOptions { temperature: 1.0, top_p: 1.0, seed };
    let failed = |error: &dyn std::fmt::Display| CalibrationError::Value {
        value: "logits".into(),
        problem: error.to_string(),
    };
    let mut sampler = Sampler::new(sampling).map_err(|error| failed(&error))?;
    let mut random = SplitMix64::new(seed.wrapping_add(1));
    let n_rounds = n_windows.div_ceil(batch);
    let total = n_rounds * batch * length;
    let mut text = Vec::new();
    for round in 0..n_rounds {
        decoder.reset();
        let vocab = decoder.vocab_size();
        let start = |_| ((random.next_f64() * vocab as f64) as u32).min(vocab as u32 - 1);
        let mut last: Vec<u32> = (0..batch).map(start).collect();
        let mut written: Vec<Vec<u32>> = last.iter().map(|id| vec![*id]).collect();
        for position in 1..length {
            let logits = decoder.forward(&last, Logits::Last).map_err(|error| failed(&error))?;
            for (sequence, id) in last.iter_mut().enumerate() {
                let row = &logits.data[sequence * vocab..(sequence + 1) * vocab];
                *id = sampler.sample(row).map_err(|error| failed(&error))?;
                written[sequence].push(*id);
            }
            progress(round * batch * length + position * batch, total);
        }
        text.extend(written.into_iter().flatten());
    }
    text.truncate(n_windows * length);
    Ok(text)
}
