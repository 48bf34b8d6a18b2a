//! Attention, the plain way, with every kind of mask.

use super::number::{FLOATS, Number, count, float_only, grid, typed};
use super::walk::Fields;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Launch, Source};

pub(super) static SCORES: Source = Source {
    name: "scores.cu",
    text: include_str!("scores.cu"),
    archs: Archs::All,
    variants: FLOATS,
};

/// Channels of a value head that the kernel takes.
const MAX_CHANNELS: usize = 1024;

/// Heads in a dense tensor: `[batch, heads, rows, size]`, or `[batch, rows, heads · size]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens of a sequence.
    pub rows: usize,
    /// Channels of a head.
    pub size: usize,
    /// The first of the two layouts.
    pub head_major: bool,
}

impl Heads {
    /// Steps from sequence to sequence, head to head, token to token, in elements.
    pub fn steps(self) -> [i64; 3] {
        let Self { heads, rows, size, head_major, .. } = self;
        let (head, row) = if head_major { (rows * size, size) } else { (size, heads * size) };
        [(heads * rows * size) as i64, head as i64, row as i64]
    }

    /// Elements of the tensor.
    pub fn n(self) -> usize {
        self.batch * self.heads * self.rows * self.size
    }
}

/// A mask for scores `[batch, heads, queries, keys]`.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    /// Bools, or floats that are added.
    pub at: DevicePtr,
    /// Which.
    pub is_bool: bool,
    /// Steps along the four axes, in elements; 0 where it repeats.
    pub steps: [i64; 4],
    /// Keys that it knows; those beyond are hidden.
    pub columns: usize,
}

/// Scaled dot-product attention, as ONNX's `Attention`.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    /// Queries.
    pub q: (DevicePtr, Heads),
    /// Keys, past ones included.
    pub k: (DevicePtr, Heads),
    /// Values.
    pub v: (DevicePtr, Heads),
    /// The result: as many tokens as queries, heads of the size of values.
    pub y: (DevicePtr, Heads),
    /// Where scores `[batch, heads, queries, keys]` go, and at which stage they are taken
    /// (`qk_matmul_output_mode`).
    pub stage: Option<(DevicePtr, i32)>,
    /// What hides keys.
    pub mask: Option<Mask>,
    /// Keys of each sequence that count, i64 `[batch]`.
    pub lengths: Option<DevicePtr>,
    /// Keys before those of the queries.
    pub n_past: usize,
    /// Keys after a query are hidden.
    pub is_causal: bool,
    /// Keys further than this before and after a query are hidden; negative for none.
    pub windows: [i32; 2],
    /// Factor on products.
    pub scale: f32,
    /// Scores become `softcap · tanh(score / softcap)`; 0 for none.
    pub softcap: f32,
}

impl Scores {
    /// Runs it on elements of type `number`.
    ///
    /// # Errors
    /// Shapes that do not go together.
    pub fn run(&self, gpu: &Gpu, number: Number) -> Result<(), GpuError> {
        float_only("attention", number)?;
        let (q, k, v, y) = (self.q.1, self.k.1, self.v.1, self.y.1);
        let fits = (q.batch, q.size) == (k.batch, k.size)
            && (k.batch, k.heads, k.rows) == (v.batch, v.heads, v.rows)
            && (y.batch, y.heads, y.rows, y.size) == (q.batch, q.heads, q.rows, v.size)
            && k.heads > 0
            && q.heads.is_multiple_of(k.heads);
        if !fits || v.size > MAX_CHANNELS {
            return Err(GpuError::unsupported(format!(
                "attention of queries {q:?}, keys {k:?} and values {v:?}"
            )));
        }
        if y.n() == 0 && self.stage.is_none() {
            return Ok(());
        }
        let f = typed(gpu, &SCORES, "attend", number)?;
        let blocks = [count(q.rows)? as u32, grid(q.heads)?, grid(q.batch)?];
        let launch = Launch { grid: blocks, block: [128, 1, 1], shared: 0, overlap: true };
        // Compilers read the query four numbers at a time.
        let shared = 4 * q.size.next_multiple_of(4);
        gpu.launch(&f, launch.with_shared(shared), &Args::new().bytes(&self.structure()?))
    }

    /// Turns products of queries and keys, scaled and in f32, into weights of type `number`, both
    /// `[batch, heads, queries, keys]`. Only heads, masks, cap and stage count; q, k, v and y are not
    /// read.
    ///
    /// # Errors
    /// As [`Scores::run`].
    pub fn weigh(
        &self,
        gpu: &Gpu,
        number: Number,
        products: DevicePtr,
        weights: DevicePtr,
    ) -> Result<(), GpuError> {
        float_only("attention", number)?;
        let (q, k) = (self.q.1, self.k.1);
        if q.batch * q.heads * q.rows * k.rows == 0 {
            return Ok(());
        }
        let f = typed(gpu, &SCORES, "weigh", number)?;
        let blocks = [count(q.rows)? as u32, grid(q.heads)?, grid(q.batch)?];
        let launch = Launch { grid: blocks, block: [256, 1, 1], shared: 0, overlap: true };
        let args = Args::new().bytes(&self.structure()?).ptr(products).ptr(weights);
        gpu.launch(&f, launch, &args)
    }

    fn structure(&self) -> Result<Vec<u8>, GpuError> {
        let (q, k, v) = (self.q.1, self.k.1, self.v.1);
        let pointers = [Some(self.q.0), Some(self.k.0), Some(self.v.0), Some(self.y.0)];
        let others = [self.stage.map(|(at, _)| at), self.mask.map(|mask| mask.at), self.lengths];
        let fields = pointers.into_iter().chain(others).fold(Fields::default(), Fields::ptr);
        let steps = [q, k, v, self.y.1].map(Heads::steps).concat();
        let mask_steps = self.mask.map_or([0; 4], |mask| mask.steps);
        let mut fields = steps.into_iter().chain(mask_steps).fold(fields, Fields::i64);
        let columns = self.mask.map_or(k.rows, |mask| mask.columns);
        let sizes = [q.batch, q.heads, k.heads, q.rows, k.rows, q.size, v.size, columns];
        for size in sizes.into_iter().chain([self.n_past]) {
            fields = fields.i32(count(size)?);
        }
        let [left, right] = self.windows;
        let is_bool = self.mask.is_some_and(|mask| mask.is_bool);
        let stage = self.stage.map_or(0, |(_, stage)| stage);
        let fields = fields.i32(i32::from(self.is_causal)).i32(left).i32(right);
        let fields = fields.i32(i32::from(is_bool)).i32(stage);
        Ok(fields.f32(self.scale).f32(self.softcap).bytes())
    }
}
