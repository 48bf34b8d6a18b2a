//! Rotary position embedding.

use super::gather::Indices;
use super::number::{FLOATS, Number, count, float_only, launch, typed};
use super::scores::Heads;
use super::walk::Fields;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static ROTARY: Source = Source {
    name: "rotary.cu",
    text: include_str!("rotary.cu"),
    archs: Archs::All,
    variants: FLOATS,
};

/// Which rows of the caches tokens are rotated by.
#[derive(Debug, Clone, Copy)]
pub enum Positions {
    /// Row `batch · step + position in the sequence`.
    InOrder {
        /// Rows from one sequence to the next.
        step: usize,
    },
    /// Those listed, `[batch or 1, sequence]`; `step` is 0 for 1.
    Listed {
        /// The list.
        rows: Indices,
        /// Positions from one sequence to the next.
        step: usize,
    },
    /// One number, the row of the first token.
    From(Indices),
}

/// A rotation of the heads of x.
#[derive(Debug, Clone, Copy)]
pub struct Rotary {
    /// Heads, where they lie as `heads` says.
    pub x: DevicePtr,
    /// As x.
    pub y: DevicePtr,
    /// Where heads lie, in x and y.
    pub heads: Heads,
    /// Cosines `[n_rows, half]`.
    pub cosines: DevicePtr,
    /// Sines `[n_rows, half]`.
    pub sines: DevicePtr,
    /// Rows of both.
    pub n_rows: usize,
    /// Pairs that are rotated.
    pub half: usize,
    /// Which rows.
    pub positions: Positions,
    /// Pairs are neighbours, not halves.
    pub is_interleaved: bool,
}

impl Rotary {
    /// Runs it on elements of type `number`.
    ///
    /// # Errors
    /// If more channels are to be rotated than a head has.
    pub fn run(&self, gpu: &Gpu, number: Number) -> Result<(), GpuError> {
        float_only("rotary embedding", number)?;
        let heads = self.heads;
        if 2 * self.half > heads.size {
            return Err(GpuError::unsupported("more channels are to be rotated than a head has"));
        }
        let n = heads.batch * heads.heads * heads.rows * (heads.size - self.half);
        if n == 0 {
            return Ok(());
        }
        let (indices, row_step, position_step) = match self.positions {
            Positions::InOrder { step } => (None, step, 0),
            Positions::Listed { rows, step } => (Some(rows), 0, step),
            Positions::From(first) => (Some(first), 0, 0),
        };
        let is_first = matches!(self.positions, Positions::From(_));
        let is_wide = indices.is_none_or(|indices| indices.is_wide);
        let pointers = [Some(self.x), Some(self.cosines), Some(self.sines)];
        let pointers = pointers.into_iter().chain([indices.map(|i| i.at), Some(self.y)]);
        let fields = pointers.fold(Fields::default(), Fields::ptr);
        let fields = heads.steps().into_iter().fold(fields, Fields::i64);
        let sizes = [heads.batch, heads.heads, heads.rows, heads.size, self.half, self.n_rows];
        let mut fields = fields;
        for size in sizes.into_iter().chain([row_step, position_step]) {
            fields = fields.i32(count(size)?);
        }
        let flags = [is_wide, is_first, self.is_interleaved];
        let fields = flags.into_iter().fold(fields, |fields, flag| fields.i32(i32::from(flag)));
        let per = 16 / number.bytes();
        let is_aligned = [self.x, self.y, self.cosines, self.sines]
            .iter()
            .all(|pointer| pointer.0.is_multiple_of(16));
        let in_stretches = is_aligned
            && !self.is_interleaved
            && heads.size.is_multiple_of(per)
            && self.half.is_multiple_of(per);
        let (entry, n) = if in_stretches { ("rotate_vector", n / per) } else { ("rotate", n) };
        let f = typed(gpu, &ROTARY, entry, number)?;
        launch(gpu, &f, n, &Args::new().bytes(&fields.bytes()).i32(count(n)?))
    }
}
