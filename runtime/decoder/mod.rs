//! Decoders: graphs that turn token ids into logits, with a KV cache.
mod arrays;
mod beside;
mod caches;
mod capacity;
mod collect;
mod error;
mod feed;
mod feeds;
mod gather;
mod given;
mod greedy;
mod roles;
mod values;

#[cfg(test)]
mod tests;

use planish_ir::{Graph, Model, Tensor, ValueId};
use planish_passes::lower::{LowerOptions, lower, select_positions};
use planish_passes::{PassManager, PassReport, canonicalize};

pub use arrays::forward_arrays;
pub use caches::CachePair;
pub use collect::{collect_hessians, collect_stats};
pub use error::DecoderError;
pub(crate) use feeds::Feeds;
pub use roles::Roles;
pub use values::collect_values;

use crate::engine::{
    CompileOptions, Engine, EngineError, Executable, PlanSummary, Profile, Session,
};
use crate::evaluate::score_on_host;
use crate::model::{check_ids, check_targets, greedy};
use crate::{LanguageModel, Logits, LogitsOut, MemoryUse, ModelError};
use beside::Beside;
use feed::{Extent, Feed, FeedNames};
use gather::Rows;
use given::{Given, after_zeros, as_logits, columns, told};
use greedy::last_tokens;

/// In what form a graph is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Canonicalised and lowered: caches stay with the session and grow in place.
    #[default]
    Lowered,
    /// As it is, with caches as inputs and outputs.
    AsImported,
}

/// How to open a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderOptions {
    /// Sequences that run side by side; at least 1.
    pub batch: usize,
    /// In what form the graph is run.
    pub mode: Mode,
    /// Most positions of each sequence in one run of the graph; longer prompts are fed in pieces,
    /// so that the memory for activations is bounded.
    pub chunk: usize,
    /// Whether to measure the time of every operator.
    pub profile: bool,
    /// Whether the decoder is there to score tokens ([`LanguageModel::score`]): the graph does so
    /// itself where its engine would choose tokens itself, and then does not choose any.
    pub scores: bool,
}

/// Index of the logits among the outputs of the graph.
const LOGITS: usize = 0;
/// Those of the likeliest token and its logit, if it has them.
const CHOSEN: [usize; 2] = [1, 2];
/// That of the scores, if it has them.
const SCORES: usize = 1;

impl Default for DecoderOptions {
    fn default() -> Self {
        Self { batch: 1, mode: Mode::Lowered, chunk: 512, profile: false, scores: false }
    }
}

/// A causal language model whose graph runs on an engine.
pub struct Decoder {
    executable: Box<dyn Executable>,
    session: Box<dyn Session>,
    feeds: Vec<Feed>,
    /// Empty caches for the inputs that are carried.
    empty: Vec<Tensor>,
    /// Whether the graph can leave out logits.
    selects: bool,
    /// The graph's outputs after the logits.
    beside: Beside,
    options: DecoderOptions,
    vocab: usize,
    max_positions: Option<usize>,
    /// Whether the graph is fed differently with and without a past.
    switches: bool,
    /// Whether the graph takes one token at a time.
    takes_one: bool,
    /// Tokens of each sequence before, where the graph has no cache and computes all anew.
    history: Option<Vec<Vec<u32>>>,
    n_past: usize,
    reports: Vec<PassReport>,
}

impl Decoder {
    /// Prepares a model. The weights are held once; the rest of `model` is dropped.
    ///
    /// # Errors
    /// [`DecoderError`] if the graph is no decoder, or the engine can't run it.
    pub fn new(
        mut model: Model,
        engine: &dyn Engine,
        options: DecoderOptions,
    ) -> Result<Self, DecoderError> {
        if options.batch == 0 {
            return Err(DecoderError::EmptyBatch);
        }
        let mut manager = PassManager::new();
        if options.mode == Mode::Lowered {
            canonicalize::canonicalize(&mut model, &mut manager)?;
        }
        let roles = Roles::find(&model)?;
        let names = FeedNames::new(&model.graph, &roles);
        let logits = name_of(&model.graph, roles.logits);
        let caches = named_caches(&model.graph, &roles);
        let mut selects = false;
        if options.mode == Mode::Lowered {
            selects = select_positions(&mut model, roles.logits)? > 0;
            lower(&mut model, LowerOptions { cache: true, no_padding: true }, &mut manager)?;
        }
        // Lowering gives values other ids.
        let lowered = model.graph.find_value(&logits);
        let mut outputs = vec![logits];
        let mut beside = Beside::Nothing;
        if let Some(logits) = lowered {
            beside = Beside::wanted(engine, &options);
            outputs.extend(beside.add(&mut model, logits));
        }
        let is_left =
            |name: &str| model.graph.find_value(name).is_some_and(|v| model.graph.is_input(v));
        let carried: Vec<_> = caches.into_iter().filter(|(past, ..)| is_left(past)).collect();
        let compile_options = CompileOptions {
            outputs: Some(outputs),
            carried: carried
                .iter()
                .map(|(past, present, _)| (past.clone(), present.clone()))
                .collect(),
            profile: options.profile,
            ..CompileOptions::default()
        };
        let executable = engine.compile(&model, &compile_options)?;
        drop(model);
        let feeds = executable.inputs().iter().map(|input| Feed::of(input, &names));
        let history = roles.caches.is_empty().then(|| vec![Vec::new(); options.batch]);
        let mut decoder = Self {
            feeds: feeds.collect::<Result<_, _>>()?,
            session: executable.session(),
            executable,
            empty: carried.iter().filter_map(|(.., pair)| pair.empty(options.batch)).collect(),
            selects,
            beside,
            options,
            vocab: roles.vocab,
            max_positions: roles.max_positions,
            switches: roles.switch.is_some(),
            takes_one: roles.length == Some(1),
            history,
            n_past: 0,
            reports: manager.reports().to_vec(),
        };
        decoder.reset();
        Ok(decoder)
    }

    /// What the compiled graph consists of.
    pub fn summary(&self) -> &PlanSummary {
        self.executable.summary()
    }

    /// What the passes did on the way.
    pub fn pass_reports(&self) -> &[PassReport] {
        &self.reports
    }

    /// Where the time went, if [`DecoderOptions::profile`] was set.
    pub fn profile(&self) -> Option<Profile> {
        self.session.profile()
    }

    /// Whether every run computes all positions anew, because the graph has no KV cache.
    pub fn recomputes(&self) -> bool {
        self.history.is_some()
    }

    /// Positions that the graph has table rows for, where it has tables.
    pub fn max_positions(&self) -> Option<usize> {
        self.max_positions
    }

    fn check(&self, ids: &[u32]) -> Result<(), ModelError> {
        check_ids(ids, self.options.batch, self.vocab)?;
        let needed = self.n_past + ids.len() / self.options.batch;
        match self.max_positions {
            Some(capacity) if needed > capacity => {
                Err(ModelError::ContextFull { needed, capacity })
            }
            _ => Ok(()),
        }
    }

    fn feed(&mut self, ids: &[u32], want: Logits) -> Result<LogitsOut, EngineError> {
        let mut rows = Rows::new(want, self.options.batch, self.length(ids), self.vocab);
        self.feed_pieces(Given::ids(ids), want, [LOGITS], |[logits], start, end| {
            rows.add(&logits, start, end)
        })?;
        Ok(rows.finish())
    }

    /// The score of each target, `[batch, n]` row-major.
    fn feed_for_scores(&mut self, given: Given<'_>) -> Result<Vec<Option<f64>>, EngineError> {
        let mut rows = Rows::new(Logits::All, self.options.batch, self.length(given.ids), 1);
        self.feed_pieces(given, Logits::All, [SCORES], |[scores], start, end| {
            rows.add(&as_logits(&scores), start, end)
        })?;
        Ok(told(rows.finish().data))
    }

    /// The likeliest token of each position of the last piece, and its logit.
    fn feed_for_token(&mut self, ids: &[u32]) -> Result<[Tensor; 2], EngineError> {
        let mut last = None;
        self.feed_pieces(Given::ids(ids), Logits::Last, CHOSEN, |values, _, _| {
            last = Some(values);
            Ok(())
        })?;
        last.ok_or_else(|| EngineError::NoOutput("likeliest token".into()))
    }

    /// Positions of each sequence.
    fn length(&self, ids: &[u32]) -> usize {
        ids.len() / self.options.batch
    }

    /// Feeds tokens piece by piece. Every piece whose logits are wanted gives its `outputs` to
    /// `take`, with its first and end position.
    fn feed_pieces<const N: usize>(
        &mut self,
        given: Given<'_>,
        want: Logits,
        outputs: [usize; N],
        mut take: impl FnMut([Tensor; N], usize, usize) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let (batch, length) = (self.options.batch, self.length(given.ids));
        if self.history.is_some() {
            let values = self.run_anew(given, length, want, &outputs)?;
            return values.try_into().map_or(Ok(()), |values| take(values, 0, length));
        }
        let chunk = match (self.switches, self.n_past) {
            _ if self.takes_one => 1,
            (false, _) => self.options.chunk.max(1),
            // A graph without a past takes the prompt as a whole, one with a past single tokens.
            (true, 0) => length,
            (true, _) => 1,
        };
        for start in (0..length).step_by(chunk) {
            let end = length.min(start + chunk);
            let is_wanted = want == Logits::All || end == length;
            let outputs = if is_wanted { &outputs[..] } else { &[] };
            let piece = columns(given.ids, batch, start, end);
            let targets = given.targets.map(|targets| columns(targets, batch, start, end));
            let piece = Given { ids: &piece, targets: targets.as_deref() };
            let values = self.run(piece, end - start, want, outputs)?;
            if let (true, Ok(values)) = (is_wanted, values.try_into()) {
                take(values, start, end)?;
            }
        }
        Ok(())
    }

    /// Runs the graph on all tokens so far and the `length` new ones of each sequence.
    fn run_anew(
        &mut self,
        given: Given<'_>,
        length: usize,
        want: Logits,
        outputs: &[usize],
    ) -> Result<Vec<Tensor>, EngineError> {
        let n_past = self.n_past;
        let sequences = self.history.iter_mut().flatten().zip(given.ids.chunks(length.max(1)));
        for (sequence, new) in sequences {
            sequence.truncate(n_past);
            sequence.extend_from_slice(new);
        }
        let all: Vec<u32> = self.history.iter().flatten().flatten().copied().collect();
        let targets = given.targets.map(|targets| after_zeros(targets, length, n_past));
        let given = Given { ids: &all, targets: targets.as_deref() };
        self.n_past = 0;
        let values = self.run(given, n_past + length, want, outputs);
        self.n_past = n_past + length;
        values
    }

    /// Runs the graph once, `length` positions of each sequence.
    fn run(
        &mut self,
        given: Given<'_>,
        length: usize,
        want: Logits,
        outputs: &[usize],
    ) -> Result<Vec<Tensor>, EngineError> {
        let logits_from = if want == Logits::Last && self.selects { -1 } else { 0 };
        let extent = Extent { batch: self.options.batch, past: self.n_past, length, logits_from };
        let inputs: Vec<Tensor> = self.feeds.iter().map(|feed| feed.make(given, extent)).collect();
        let values = self.session.run_for(&inputs, outputs)?;
        self.n_past += length;
        Ok(values)
    }

    /// Feeds `ids` by `feed`; after an error the cache is as it was before.
    fn whole<R>(
        &mut self,
        ids: &[u32],
        feed: impl FnOnce(&mut Self, &[u32]) -> Result<R, EngineError>,
    ) -> Result<R, ModelError> {
        self.check(ids)?;
        let n_past = self.n_past;
        match feed(self, ids) {
            Ok(result) => {
                self.session.mark();
                Ok(result)
            }
            Err(error) => {
                self.session.rollback();
                self.n_past = n_past;
                Err(ModelError::engine(error))
            }
        }
    }
}

impl LanguageModel for Decoder {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn batch(&self) -> usize {
        self.options.batch
    }

    fn n_past(&self) -> usize {
        self.n_past
    }

    fn reset(&mut self) {
        self.n_past = 0;
        self.session.reset(&self.empty);
        self.session.mark();
    }

    fn forward(&mut self, ids: &[u32], want: Logits) -> Result<LogitsOut, ModelError> {
        self.whole(ids, |decoder, ids| decoder.feed(ids, want))
    }

    fn forward_greedy(&mut self, ids: &[u32]) -> Result<Vec<u32>, ModelError> {
        if self.beside != Beside::Likeliest {
            return greedy(&self.forward(ids, Logits::Last)?);
        }
        let [tokens, logits] = self.whole(ids, Self::feed_for_token)?;
        last_tokens(&tokens, &logits, self.options.batch)
    }

    fn score(
        &mut self,
        ids: &[u32],
        targets: &[u32],
        workers: usize,
    ) -> Result<Vec<Option<f64>>, ModelError> {
        if self.beside != Beside::Scores {
            return score_on_host(self, ids, targets, workers);
        }
        check_targets(ids, targets)?;
        self.whole(ids, |decoder, ids| {
            decoder.feed_for_scores(Given { ids, targets: Some(targets) })
        })
    }

    fn scores_without_logits(&self) -> bool {
        self.beside == Beside::Scores
    }

    fn memory(&self) -> MemoryUse {
        let weights = self.executable.summary().weight_bytes;
        MemoryUse { weights, cache: self.session.cache_bytes() }
    }
}

impl FeedNames {
    fn new(graph: &Graph, roles: &Roles) -> Self {
        Self {
            tokens: name_of(graph, roles.tokens),
            mask: roles.mask.map(|v| name_of(graph, v)),
            positions: roles.positions.map(|v| name_of(graph, v)),
            switch: roles.switch.map(|v| name_of(graph, v)),
        }
    }
}

/// Caches with the names of their inputs and outputs, which lowering keeps or removes.
fn named_caches(graph: &Graph, roles: &Roles) -> Vec<(String, String, CachePair)> {
    let named =
        |pair: &CachePair| (name_of(graph, pair.past), name_of(graph, pair.present), pair.clone());
    roles.caches.iter().map(named).collect()
}

fn name_of(graph: &Graph, value: ValueId) -> String {
    graph.value(value).name.clone()
}
