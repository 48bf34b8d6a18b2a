//! Gradients of norms and activations.

use super::number::{FLOATS, Number, count, float_only, grid, launch, launch_blocks, typed};
use super::walk::Fields;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Launch, Source};

pub(super) static GRADS: Source = Source {
    name: "grads.cu",
    text: include_str!("grads.cu"),
    archs: Archs::All,
    variants: FLOATS,
};

/// Rows that one block sums up, for the gradients of scale and bias…
const ROWS_OF_A_SPLIT: usize = 256;
/// …unless that were more stretches than this.
const MAX_SPLITS: usize = 64;

/// Gradients of RMS or layer normalisation of rows, without and with a mean.
#[derive(Debug, Clone, Copy)]
pub struct NormGrad {
    /// Gradient of the result, `[rows, n]`.
    pub dy: DevicePtr,
    /// What was normalised, `[rows, n]`.
    pub x: DevicePtr,
    /// `[n]`.
    pub scale: DevicePtr,
    /// `[rows, n]`.
    pub dx: DevicePtr,
    /// `[n]`.
    pub dscale: Option<DevicePtr>,
    /// `[n]`.
    pub dbias: Option<DevicePtr>,
    /// Elements of a row.
    pub n: usize,
    /// Rows.
    pub rows: usize,
    /// As of the norm.
    pub epsilon: f32,
    /// Of layer normalisation.
    pub is_centered: bool,
}

impl NormGrad {
    /// Runs it on elements of type `number`.
    ///
    /// # Errors
    /// If there are too many rows, or no memory.
    pub fn run(&self, gpu: &Gpu, number: Number) -> Result<(), GpuError> {
        float_only("the gradient of a norm", number)?;
        let (n, rows) = (self.n, self.rows);
        let splits = rows.div_ceil(ROWS_OF_A_SPLIT).clamp(1, MAX_SPLITS);
        let scratch = gpu.alloc(4 * (2 * rows + 2 * splits * n).max(1))?;
        let at = |floats: usize| Some(scratch.ptr().offset(4 * floats));
        let fields = [Some(self.dy), Some(self.x), Some(self.scale), Some(self.dx)]
            .into_iter()
            .chain([self.dscale, self.dbias])
            .chain([at(0), at(rows), at(2 * rows)])
            .fold(Fields::default(), Fields::ptr);
        let fields = fields.i32(count(n)?).i32(count(rows)?).i32(count(splits)?).f32(self.epsilon);
        let args = Args::new().bytes(&fields.i32(i32::from(self.is_centered)).bytes());
        if n * rows > 0 {
            let f = typed(gpu, &GRADS, "norm_grad_rows", number)?;
            launch_blocks(gpu, &f, rows, 256, &args)?;
        }
        if n == 0 || (self.dscale.is_none() && self.dbias.is_none()) {
            return Ok(());
        }
        let blocks = [count(n.div_ceil(32))? as u32, grid(splits)?, 1];
        let f = typed(gpu, &GRADS, "norm_grad_columns", number)?;
        let sums = Launch { grid: blocks, block: [1024, 1, 1], shared: 0, overlap: true };
        gpu.launch(&f, sums, &args)?;
        launch(gpu, &typed(gpu, &GRADS, "norm_grad_add", number)?, n, &args)
    }
}

/// An activation, in the order of the codes in grads.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slope {
    /// x · sigmoid(α · x).
    Swish,
    /// x · Φ(x).
    Gelu,
    /// Its form by tanh.
    GeluTanh,
}

/// `dx = dy · slope(x)` of `n` dense elements.
///
/// # Errors
/// If there are too many elements.
pub fn activation_grad(
    gpu: &Gpu,
    (slope, alpha): (Slope, f32),
    number: Number,
    [dy, x, dx]: [DevicePtr; 3],
    n: usize,
) -> Result<(), GpuError> {
    let entries = ["activation_grad_scalar", "activation_grad_vector"];
    let args = Args::new().i32(slope as i32).f32(alpha);
    elementwise(gpu, entries, number, args, &[dy, x, dx], n)
}

/// Gradients of SwiGLU, of `n` dense elements: dY, gate and up give dgate and dup.
///
/// # Errors
/// If there are too many elements.
pub fn swiglu_grad(
    gpu: &Gpu,
    number: Number,
    inputs: [DevicePtr; 3],
    outputs: [DevicePtr; 2],
    n: usize,
) -> Result<(), GpuError> {
    let entries = ["swiglu_grad_scalar", "swiglu_grad_vector"];
    elementwise(gpu, entries, number, Args::new(), &[&inputs[..], &outputs[..]].concat(), n)
}

fn elementwise(
    gpu: &Gpu,
    [scalar, vector]: [&str; 2],
    number: Number,
    args: Args,
    pointers: &[DevicePtr],
    n: usize,
) -> Result<(), GpuError> {
    float_only("a gradient", number)?;
    let per = 16 / number.bytes();
    let is_whole = n.is_multiple_of(per) && pointers.iter().all(|p| p.0.is_multiple_of(16));
    let (entry, n) = if is_whole { (vector, n / per) } else { (scalar, n) };
    if n == 0 {
        return Ok(());
    }
    let args = pointers.iter().fold(args, |args, pointer| args.ptr(*pointer)).i32(count(n)?);
    launch(gpu, &typed(gpu, &GRADS, entry, number)?, n, &args)
}

/// The gradient of softmax over rows of `n` elements: with probabilities p it turns dp, their
/// gradients, into those of the scores before they were scaled and, where `capped` (scores after it,
/// and the cap) is given, capped.
///
/// # Errors
/// If there are too many rows.
pub fn softmax_grad(
    gpu: &Gpu,
    number: Number,
    (p, dp): (DevicePtr, DevicePtr),
    capped: Option<(DevicePtr, f32)>,
    scale: f32,
    (rows, n): (usize, usize),
) -> Result<(), GpuError> {
    float_only("the gradient of softmax", number)?;
    if rows * n == 0 {
        return Ok(());
    }
    let cap = capped.map_or(1.0, |(_, cap)| cap);
    let args = Args::new().ptr(p).ptr(dp).optional(capped.map(|(at, _)| at)).i32(count(n)?);
    let f = typed(gpu, &GRADS, "softmax_grad", number)?;
    launch_blocks(gpu, &f, rows, 256, &args.f32(scale).f32(cap))
}
