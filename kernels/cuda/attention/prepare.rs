//! Rotary embedding, the matrices on heads, and the write to the cache.

use super::cache::held;
use super::prepare_plan::{KINDS, Plan};
use super::{KvCache, Rows, int};
use crate::{Args, DevicePtr, Element, Function, Gpu, GpuError, Launch};

/// Angles of a rotary embedding, one row for each new position.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Cosines `[batch or 1, new, dim / 2]`.
    pub cos: DevicePtr,
    /// Sines.
    pub sin: DevicePtr,
    /// How both are stored: f32, or the cache's element.
    pub element: Element,
    /// Each sequence has angles of its own.
    pub per_sequence: bool,
    /// Channels that are rotated.
    pub dim: usize,
    /// Neighbours are pairs, and not the halves of the rotated channels.
    pub interleaved: bool,
}

/// Queries of the new positions.
#[derive(Debug, Clone, Copy)]
pub struct Queries {
    /// `[batch, new, heads · head_dim]`.
    pub rows: Rows,
    /// Query heads.
    pub heads: usize,
    /// Where they go, without gaps.
    pub out: DevicePtr,
}

/// What is to be prepared.
#[derive(Debug, Clone, Copy)]
pub struct Prepare {
    /// Queries, unless only the cache is to be written.
    pub queries: Option<Queries>,
    /// New keys `[batch, new, kv_heads · head_dim]`.
    pub keys: Rows,
    /// New values, likewise.
    pub values: Rows,
    /// Rotation of queries and keys.
    pub rotation: Option<Rotation>,
    /// Matrix `[head_dim, head_dim]` on the queries' heads after the rotation.
    pub query_matrix: Option<DevicePtr>,
    /// Matrix on the keys' heads after the rotation.
    pub key_matrix: Option<DevicePtr>,
    /// i32 on the device: positions already in the cache.
    pub past: DevicePtr,
    /// New positions.
    pub new: usize,
}

impl KvCache {
    /// Appends keys and values to the cache.
    ///
    /// # Errors
    /// If strides or alignment are such that rows can't be read in 16-byte steps.
    pub fn append(
        &self,
        gpu: &Gpu,
        keys: Rows,
        values: Rows,
        past: DevicePtr,
        new: usize,
    ) -> Result<(), GpuError> {
        let prepare = Prepare {
            queries: None,
            keys,
            values,
            rotation: None,
            query_matrix: None,
            key_matrix: None,
            past,
            new,
        };
        self.prepare(gpu, &prepare)
    }

    /// Rotates queries and keys, multiplies their heads by the matrices, and appends keys and
    /// values to the cache, in one launch. The caller sees to it that the cache has room; what has
    /// none is dropped.
    ///
    /// # Errors
    /// As [`KvCache::append`], and if more channels are to be rotated than a head has.
    pub fn prepare(&self, gpu: &Gpu, what: &Prepare) -> Result<(), GpuError> {
        self.prepare_by(gpu, what, gpu.properties().has_wgmma())
    }

    /// The same, with or without Hopper's own products.
    pub(super) fn prepare_by(
        &self,
        gpu: &Gpu,
        what: &Prepare,
        wgmma: bool,
    ) -> Result<(), GpuError> {
        if what.new == 0 {
            return Ok(());
        }
        self.check(what)?;
        let plan = Plan::new(gpu.properties(), &self.shape(), what, wgmma);
        let f = self.prepare_kernel(gpu, what, &plan)?;
        let launch = Launch::linear(plan.blocks, plan.kind.threads());
        let launch = launch.with_shared(plan.shared).overlapping();
        let args = self.prepare_args(what)?.i32(int(plan.q_share)?).i32(int(plan.kv_share)?);
        gpu.launch(f, launch, &args)
    }

    pub(super) fn check(&self, what: &Prepare) -> Result<(), GpuError> {
        let shape = self.shape();
        let width = shape.kv_heads * shape.head_dim;
        what.keys.check("keys", width)?;
        what.values.check("values", width)?;
        if let Some(queries) = what.queries {
            queries.rows.check("queries", queries.heads * shape.head_dim)?;
        }
        let Some(rotation) = what.rotation else { return Ok(()) };
        if rotation.dim > shape.head_dim || rotation.dim % 2 != 0 {
            return Err(GpuError::unsupported(format!(
                "{} of {} channels can't be rotated",
                rotation.dim, shape.head_dim
            )));
        }
        if !(rotation.cos.0 | rotation.sin.0).is_multiple_of(16) {
            return Err(GpuError::unsupported("angles must start at a multiple of 16 bytes"));
        }
        if ![Element::F32, shape.element].contains(&rotation.element) {
            return Err(GpuError::unsupported("angles must be f32 or of the engine's type"));
        }
        Ok(())
    }

    fn prepare_kernel(
        &self,
        gpu: &Gpu,
        what: &Prepare,
        plan: &Plan,
    ) -> Result<&Function, GpuError> {
        let angle = what.rotation.map_or(Element::F32, |r| r.element);
        let index = usize::from(angle == Element::F32) * KINDS + plan.kind as usize;
        let (source, entry, own) = plan.kind.kernel();
        held(&self.kernels.prepare[index], || {
            self.function(gpu, source, entry, &[("ANGLE", angle.define().1), own])
        })
    }

    fn prepare_args(&self, what: &Prepare) -> Result<Args, GpuError> {
        let shape = self.shape();
        let [keys, values] = &self.stores;
        let none = Rows { at: DevicePtr::NULL, stride: 0 };
        let queries = what.queries.map_or(none, |q| q.rows);
        let mut args = Args::new();
        for rows in [queries, what.keys, what.values] {
            args = rows.argument(args)?;
        }
        args = what.transform_args(args)?.ptr(what.past);
        let q_heads = what.queries.map_or(0, |q| q.heads);
        for size in [what.new, shape.batch, q_heads, shape.kv_heads, self.capacity()] {
            args = args.i32(int(size)?);
        }
        args = self.clip_args(args).optional(what.queries.map(|q| q.out));
        args = args.ptr(keys.rows.ptr()).ptr(values.rows.ptr());
        Ok(args.optional(keys.parameters()).optional(values.parameters()))
    }

    pub(super) fn clip_args(&self, args: Args) -> Args {
        let [keys, values] = self.shape().format.clips();
        args.f32(keys.min).f32(keys.max).f32(values.min).f32(values.max)
    }
}

impl Prepare {
    /// Rotation and matrices.
    pub(super) fn transform_args(&self, args: Args) -> Result<Args, GpuError> {
        let r = self.rotation;
        let step = r.map_or(0, |r| if r.per_sequence { self.new } else { 0 });
        let args = args.optional(r.map(|r| r.cos)).optional(r.map(|r| r.sin)).i32(int(step)?);
        let (dim, interleaved) = r.map_or((0, false), |r| (r.dim, r.interleaved));
        let args = args.i32(int(dim)?).i32(interleaved.into());
        Ok(args.optional(self.query_matrix).optional(self.key_matrix))
    }
}
