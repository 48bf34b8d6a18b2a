//! Normalisation of rows.

use super::number::{FLOATS, Number, count, launch_blocks, typed};
use super::walk::Fields;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static NORM: Source =
    Source { name: "norm.cu", text: include_str!("norm.cu"), archs: Archs::All, variants: FLOATS };

/// Stretches of 16 bytes that a thread keeps, as in norm.cu.
const HELD: usize = 4;

/// Rows to be normalised: y = (x + skip + skip_bias) normalised · weight + bias. All rows are of
/// `n` elements of one floating-point type; what is `None` is left out.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    /// `[rows, n]`.
    pub x: DevicePtr,
    /// `[rows, n]`, added to x.
    pub skip: Option<DevicePtr>,
    /// `[n]`, added to x.
    pub skip_bias: Option<DevicePtr>,
    /// `[n]`.
    pub weight: Option<DevicePtr>,
    /// `[n]`.
    pub bias: Option<DevicePtr>,
    /// `[rows, n]`.
    pub y: DevicePtr,
    /// `[rows, n]`: what was normalised.
    pub sum: Option<DevicePtr>,
    /// `[rows]`: the mean, which is 0 unless centered.
    pub mean: Option<DevicePtr>,
    /// `[rows]`: the inverse root of the mean square or the variance.
    pub inverse: Option<DevicePtr>,
    /// Elements of a row.
    pub n: usize,
    /// Rows.
    pub rows: usize,
    /// What is added to the mean square or the variance.
    pub epsilon: f32,
    /// Layer normalisation, else RMS normalisation.
    pub is_centered: bool,
}

impl Norm {
    /// RMS normalisation of x with a weight.
    pub fn rms(
        x: DevicePtr,
        weight: DevicePtr,
        y: DevicePtr,
        (rows, n): (usize, usize),
        epsilon: f32,
    ) -> Self {
        let none = None;
        let weight = Some(weight);
        Self {
            x,
            skip: none,
            skip_bias: none,
            weight,
            bias: none,
            y,
            sum: none,
            mean: none,
            inverse: none,
            n,
            rows,
            epsilon,
            is_centered: false,
        }
    }

    /// Runs it on elements of type `number`.
    ///
    /// # Errors
    /// If there are too many rows.
    pub fn run(&self, gpu: &Gpu, number: Number) -> Result<(), GpuError> {
        self.run_as(gpu, number, self.plan(number))
    }

    /// Runs the plain form, which takes every size.
    ///
    /// # Errors
    /// As [`Norm::run`].
    pub fn run_plain(&self, gpu: &Gpu, number: Number) -> Result<(), GpuError> {
        self.run_as(gpu, number, ("norm_scalar", 1, 256))
    }

    /// Kernel, rows of a block, and threads of a block.
    fn plan(&self, number: Number) -> (&'static str, usize, u32) {
        let per = 16 / number.bytes();
        let packs = self.n / per;
        if !self.n.is_multiple_of(per) || !self.is_aligned() {
            return ("norm_scalar", 1, 256);
        }
        match packs {
            0..=32 => ("norm_warp", 8, 256),
            // With many rows there are warps enough without a block for each.
            33..=128 if self.rows >= 1024 => ("norm_warp", 8, 256),
            _ if packs <= HELD * 256 => ("norm_block", 1, 256),
            _ if packs <= HELD * 1024 => ("norm_wide", 1, 1024),
            _ => ("norm_scalar", 1, 256),
        }
    }

    fn is_aligned(&self) -> bool {
        let rows = [Some(self.x), self.skip, self.skip_bias, self.weight, self.bias];
        let written = [Some(self.y), self.sum];
        rows.into_iter().chain(written).flatten().all(|p| p.0.is_multiple_of(16))
    }

    fn run_as(
        &self,
        gpu: &Gpu,
        number: Number,
        (entry, per_block, threads): (&str, usize, u32),
    ) -> Result<(), GpuError> {
        super::number::float_only("normalisation", number)?;
        if self.rows * self.n == 0 {
            return Ok(());
        }
        let fields = [Some(self.x), self.skip, self.skip_bias, self.weight, self.bias]
            .into_iter()
            .chain([Some(self.y), self.sum, self.mean, self.inverse])
            .fold(Fields::default(), Fields::ptr);
        let fields = fields.i32(count(self.n)?).i32(count(self.rows)?).f32(self.epsilon);
        let args = Args::new().bytes(&fields.i32(i32::from(self.is_centered)).bytes());
        let f = typed(gpu, &NORM, entry, number)?;
        launch_blocks(gpu, &f, self.rows.div_ceil(per_block), threads, &args)
    }
}
