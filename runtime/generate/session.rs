//! One generation: prompt in, pieces of text out.
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::{Sampler, SamplingError, SamplingOptions};
use crate::text::{TextError, TextTokenizer};
use crate::{LanguageModel, Logits, ModelError};

/// How to generate, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended its text.
    EndOfText,
    /// `max_new_tokens` were generated.
    MaxNewTokens,
    /// The model's context is full.
    ContextFull,
    /// The callback asked to stop.
    Callback,
}

/// What was generated, and how fast.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The tokens that were generated, the one that ended the text included.
    pub ids: Vec<u32>,
    /// Why generation ended.
    pub stop: StopReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were fed back one by one.
    pub decoded_tokens: usize,
    /// Time to feed the prompt.
    pub prefill: Duration,
    /// Time to feed the generated tokens, and to choose them.
    pub decode: Duration,
}

impl Generation {
    /// Tokens of the prompt per second.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill)
    }

    /// Tokens fed back per second.
    pub fn decode_tokens_per_s(&self) -> f64 {
        rate(self.decoded_tokens, self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if tokens == 0 { 0.0 } else { tokens as f64 / time.as_secs_f64().max(1e-9) }
}

/// Why generation failed.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// The prompt has no tokens.
    #[error("the prompt is empty: it has no tokens to begin with")]
    EmptyPrompt,
    /// The model failed or refused its input.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The generated tokens cannot be decoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// No token can be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// Feeds `prompt` to the model, after what is in its cache, and generates from there.
///
/// Every piece of text goes to `on_text` as soon as it is certain; the callback may end the
/// generation. The token that ends a text is not fed to the model. The model's batch must be 1.
///
/// # Errors
/// [`GenerateError`]. A context that fills up while generating is no error.
pub fn generate(
    model: &mut dyn LanguageModel,
    tokenizer: &TextTokenizer,
    prompt: &[u32],
    options: GenerateOptions,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, GenerateError> {
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    let mut chooser = Chooser::new(options.sampling)?;
    let start = Instant::now();
    let mut next = chooser.feed(model, prompt)?;
    let prefill = start.elapsed();

    let start = Instant::now();
    let mut stream = tokenizer.stream();
    let mut ids = Vec::new();
    let stop = loop {
        if ids.len() == options.max_new_tokens {
            break StopReason::MaxNewTokens;
        }
        let id = next;
        ids.push(id);
        if tokenizer.eos_ids().contains(&id) {
            break StopReason::EndOfText;
        }
        if send(&stream.push(id)?, on_text).is_break() {
            break StopReason::Callback;
        }
        if ids.len() < options.max_new_tokens {
            match chooser.feed(model, &[id]) {
                Ok(token) => next = token,
                Err(GenerateError::Model(ModelError::ContextFull { .. })) => {
                    break StopReason::ContextFull;
                }
                Err(error) => return Err(error),
            }
        }
    };
    let decode = start.elapsed();
    if stop != StopReason::Callback {
        // Nothing follows, so it does not matter whether the callback wants more.
        let _ = send(&stream.finish()?, on_text);
    }
    let decoded_tokens = ids.len().saturating_sub(1);
    Ok(Generation { ids, stop, prompt_tokens: prompt.len(), decoded_tokens, prefill, decode })
}

/// Feeds tokens and chooses the next one: the likeliest where the model is, others from its logits.
struct Chooser {
    sampler: Sampler,
    is_greedy: bool,
}

impl Chooser {
    fn new(options: SamplingOptions) -> Result<Self, SamplingError> {
        Ok(Self { sampler: Sampler::new(options)?, is_greedy: options.temperature == 0.0 })
    }

    fn feed(&mut self, model: &mut dyn LanguageModel, ids: &[u32]) -> Result<u32, GenerateError> {
        if self.is_greedy {
            let tokens = model.forward_greedy(ids)?;
            return tokens.last().copied().ok_or(GenerateError::Model(ModelError::NotFinite));
        }
        let logits = model.forward(ids, Logits::Last)?;
        Ok(self.sampler.sample(logits.last_row().unwrap_or_default())?)
    }
}

fn send(piece: &str, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    if piece.is_empty() { ControlFlow::Continue(()) } else { on_text(piece) }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Bigram;
    use super::*;
    use crate::text::tokenizer::tests::smollm2;

    /// Runs a model that says `script`, token after token, from the prompt "Say".
    fn run(
        script: &[u32],
        capacity: usize,
        max_new_tokens: usize,
        pieces_wanted: usize,
    ) -> (Result<Generation, GenerateError>, String) {
        let tokenizer = smollm2();
        let prompt = tokenizer.encode("Say", false).unwrap();
        let chain: Vec<u32> = prompt.iter().chain(script).copied().collect();
        let mut model = Bigram::chain(49152, &chain).with_capacity(capacity);
        let options = GenerateOptions { max_new_tokens, sampling: SamplingOptions::default() };
        let (mut text, mut pieces) = (String::new(), 0);
        let result = generate(&mut model, &tokenizer, &prompt, options, &mut |piece| {
            text.push_str(piece);
            pieces += 1;
            if pieces == pieces_wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (result, text)
    }

    fn words(text: &str) -> Vec<u32> {
        smollm2().encode(text, false).unwrap()
    }

    #[test]
    fn the_models_text_comes_out_up_to_its_end() {
        let script = [words(" hello there 🙂"), vec![2]].concat();
        let (generation, text) = run(&script, 100, 50, 0);
        let generation = generation.unwrap();
        assert_eq!(text, " hello there 🙂");
        assert_eq!((generation.stop, &generation.ids), (StopReason::EndOfText, &script));
        assert_eq!(generation.decoded_tokens, script.len() - 1);
        assert!(generation.decode_tokens_per_s() > 0.0 && generation.prefill_tokens_per_s() > 0.0);
    }

    #[test]
    fn max_new_tokens_is_kept() {
        let (generation, text) = run(&words(" one two three four"), 100, 2, 0);
        let generation = generation.unwrap();
        assert_eq!(text, " one two");
        assert_eq!((generation.stop, generation.decoded_tokens), (StopReason::MaxNewTokens, 1));
        let (generation, text) = run(&words(" one"), 100, 0, 0);
        let generation = generation.unwrap();
        assert_eq!((text.as_str(), generation.ids.len()), ("", 0));
        assert_eq!(generation.decode_tokens_per_s(), 0.0);
    }

    #[test]
    fn an_unfinished_character_is_shown_at_the_end() {
        let smile = words("🙂");
        let (_, text) = run(&smile, 100, smile.len() - 1, 0);
        assert!(text.ends_with('\u{FFFD}'), "{text:?}");
    }

    #[test]
    fn the_callback_may_stop() {
        let (generation, text) = run(&words(" one two three"), 100, 50, 1);
        assert_eq!((generation.unwrap().stop, text.as_str()), (StopReason::Callback, " one"));
    }

    #[test]
    fn a_full_context_ends_the_text() {
        let (generation, text) = run(&words(" one two three"), 2, 50, 0);
        assert_eq!(
            (generation.unwrap().stop, text.as_str()),
            (StopReason::ContextFull, " one two")
        );
    }

    #[test]
    fn a_prompt_that_does_not_fit_and_an_empty_one_are_errors() {
        let (result, _) = run(&[], 0, 1, 0);
        assert_eq!(result.unwrap_err().to_string(), "the model takes 0 tokens, but 1 are needed");
        let mut model = Bigram::chain(49152, &[0]);
        let options = GenerateOptions { max_new_tokens: 1, sampling: SamplingOptions::default() };
        let never = &mut |_: &str| panic!("there is nothing to say");
        let result = generate(&mut model, &smollm2(), &[], options, never);
        assert!(matches!(result, Err(GenerateError::EmptyPrompt)));
    }
}
