//! Making the inputs of a run.

use planish_ir::{DataType, Tensor};
use planish_passes::lower::{LOGITS_FROM, PAST_LENGTH, TARGETS};

use super::DecoderError;
use super::given::Given;
use crate::engine::IoInfo;

/// Names of the inputs that a decoder makes itself.
#[derive(Debug, Clone)]
pub(super) struct FeedNames {
    pub tokens: String,
    pub mask: Option<String>,
    pub positions: Option<String>,
    pub switch: Option<String>,
}

/// What an input is fed with.
#[derive(Debug, Clone)]
enum Source {
    Tokens,
    /// Ones, up to the end of the run.
    Mask,
    /// `[sequence]` or `[batch or 1, sequence]`.
    Positions {
        rank: usize,
        one_row: bool,
    },
    PastLength,
    LogitsFrom,
    /// Tokens to score, one for each position that has logits.
    Targets,
    /// Whether there is a past, in the shape of the input.
    HasPast(Vec<usize>),
    Fixed(Tensor),
}

/// One input of a compiled graph.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    source: Source,
    dtype: DataType,
}

/// Size of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub batch: usize,
    /// Positions in the cache.
    pub past: usize,
    /// Positions of the run.
    pub length: usize,
    /// See [`LOGITS_FROM`].
    pub logits_from: i64,
}

impl Extent {
    /// Positions of each sequence that have logits.
    fn n_logits(self) -> usize {
        let from_end = usize::try_from(self.logits_from.unsigned_abs()).unwrap_or(usize::MAX);
        let n = if self.logits_from < 0 { from_end } else { self.length.saturating_sub(from_end) };
        n.min(self.length)
    }
}

impl Feed {
    /// Finds out how to feed `input`.
    ///
    /// # Errors
    /// If it has no role, or a type that its role can't have.
    pub fn of(input: &IoInfo, names: &FeedNames) -> Result<Self, DecoderError> {
        let is = |name: &Option<String>| name.as_ref() == Some(&input.name);
        let (what, source) = match input.name.as_str() {
            PAST_LENGTH => ("a length", Source::PastLength),
            LOGITS_FROM => ("a position", Source::LogitsFrom),
            TARGETS => ("token ids", Source::Targets),
            name if name == names.tokens => ("token ids", Source::Tokens),
            _ if is(&names.mask) => ("an attention mask", Source::Mask),
            _ if is(&names.positions) => ("positions", positions(input)),
            _ if is(&names.switch) => {
                let rank = input.shape.as_ref().map_or(0, Vec::len);
                ("a switch", Source::HasPast(vec![1; rank]))
            }
            _ => match &input.default {
                Some(tensor) => ("a default", Source::Fixed(tensor.clone())),
                None => ("an input that nobody reads", Source::Fixed(blank(input)?)),
            },
        };
        let feed = Self { source, dtype: input.dtype.unwrap_or(DataType::I64) };
        let (name, dtype) = (input.name.clone(), feed.dtype.to_string());
        feed.can_be_made().then_some(feed).ok_or(DecoderError::InputType { name, dtype, what })
    }

    fn can_be_made(&self) -> bool {
        let is_fixed = matches!(self.source, Source::Fixed(_));
        let holds_numbers =
            matches!(self.dtype, DataType::I64 | DataType::I32 | DataType::Bool | DataType::F32);
        is_fixed || holds_numbers
    }

    /// The tensor for a run on tokens `[batch, length]`.
    pub fn make(&self, given: Given<'_>, extent: Extent) -> Tensor {
        let Extent { batch, past, length, logits_from } = extent;
        let total = past + length;
        match &self.source {
            Source::Tokens => self.ids(given.ids, [batch, length]),
            Source::Targets => match given.targets {
                Some(targets) => self.ids(targets, [batch, length]),
                // Nobody reads the scores.
                None => self.ids(&vec![0; batch * extent.n_logits()], [batch, extent.n_logits()]),
            },
            Source::Mask => self.tensor(&[batch, total], std::iter::repeat_n(1, batch * total)),
            Source::Positions { rank, one_row } => {
                let rows = if *one_row { 1 } else { batch };
                let shape: &[usize] = if *rank == 1 { &[length] } else { &[rows, length] };
                let n_rows = if *rank == 1 { 1 } else { rows };
                self.tensor(shape, (0..n_rows).flat_map(|_| past as i64..total as i64))
            }
            Source::HasPast(shape) => self.tensor(shape, std::iter::once(i64::from(past > 0))),
            Source::PastLength => self.tensor(&[1], std::iter::once(past as i64)),
            Source::LogitsFrom => self.tensor(&[1], std::iter::once(logits_from)),
            Source::Fixed(tensor) => tensor.clone(),
        }
    }

    fn ids(&self, ids: &[u32], shape: [usize; 2]) -> Tensor {
        self.tensor(&shape, ids.iter().map(|id| i64::from(*id)))
    }

    fn tensor(&self, shape: &[usize], values: impl Iterator<Item = i64>) -> Tensor {
        match self.dtype {
            DataType::I32 => Tensor::from_vec(shape, values.map(|v| v as i32).collect()),
            DataType::F32 => Tensor::from_vec(shape, values.map(|v| v as f32).collect()),
            DataType::Bool => {
                Tensor::from_bools(shape, &values.map(|v| v != 0).collect::<Vec<_>>())
            }
            _ => Tensor::from_vec(shape, values.collect()),
        }
    }
}

fn positions(input: &IoInfo) -> Source {
    let shape = input.shape.as_deref();
    let rank = shape.map_or(2, <[_]>::len);
    let one_row = shape.and_then(|s| s.first()).is_some_and(|d| d.as_const() == Some(1));
    Source::Positions { rank, one_row: one_row && rank == 2 }
}

/// Zeros for an input that does not matter.
fn blank(input: &IoInfo) -> Result<Tensor, DecoderError> {
    let sizes = input.shape.iter().flatten().map(|d| d.as_usize().unwrap_or(1));
    let (shape, dtype) = (sizes.collect::<Vec<_>>(), input.dtype.unwrap_or(DataType::F32));
    let n_bytes =
        shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).and_then(|n| dtype.n_bytes(n));
    let bytes = vec![0u8; n_bytes.unwrap_or(0)];
    Tensor::new(dtype, shape, bytes.into())
        .map_err(|_| DecoderError::UnknownInput(input.name.clone()))
}
