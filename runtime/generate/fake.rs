//! A tiny deterministic model for tests.
use crate::model::check_ids;
use crate::{LanguageModel, Logits, LogitsOut, MemoryUse, ModelError};

/// Logits of the next token that depend on the last token only.
pub(crate) struct Bigram {
    vocab: usize,
    capacity: usize,
    n_past: usize,
    logit: Box<dyn Fn(u32, u32) -> f32>,
    /// Length of every call of `forward`.
    pub calls: Vec<usize>,
}

impl Bigram {
    /// A model with the logit `logit(last, next)`.
    pub fn new(vocab: usize, logit: impl Fn(u32, u32) -> f32 + 'static) -> Self {
        let logit = Box::new(logit);
        Self { vocab, capacity: usize::MAX, n_past: 0, logit, calls: Vec::new() }
    }

    /// A model that is sure of the next token of `chain`, by the first place of the last one.
    pub fn chain(vocab: usize, chain: &[u32]) -> Self {
        let chain = chain.to_vec();
        Self::new(vocab, move |last, next| {
            let place = chain.iter().position(|&id| id == last);
            let expected = place.and_then(|place| chain.get(place + 1));
            if expected == Some(&next) { 10.0 } else { 0.0 }
        })
    }

    /// The same model with room for `capacity` tokens.
    pub fn with_capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }
}

impl LanguageModel for Bigram {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn n_past(&self) -> usize {
        self.n_past
    }

    fn reset(&mut self) {
        self.n_past = 0;
    }

    fn forward(&mut self, ids: &[u32], want: Logits) -> Result<LogitsOut, ModelError> {
        check_ids(ids, 1, self.vocab)?;
        let needed = self.n_past + ids.len();
        if needed > self.capacity {
            return Err(ModelError::ContextFull { needed, capacity: self.capacity });
        }
        self.n_past = needed;
        self.calls.push(ids.len());
        let from = if want == Logits::Last { &ids[ids.len() - 1..] } else { ids };
        let (vocab, logit) = (self.vocab as u32, &self.logit);
        let row = |&last: &u32| (0..vocab).map(move |next| logit(last, next));
        let data = from.iter().flat_map(row).collect();
        Ok(LogitsOut { rows: from.len(), vocab: self.vocab, data })
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { weights: 7, cache: self.n_past as u64 }
    }
}
