//! The fast form of `CachedAttention`.

use planish_cpu::{AttentionSpec, Isa, KvCache, KvSpec, ThreadPool, attention};
use planish_ir::{DataType, Tensor};

use super::spec::Spec;
use crate::kernel::required;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct CachedAttention {
    spec: Spec,
}

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(CachedAttention { spec: Spec::read(op)? })))
}

/// Sizes of one call.
struct Sizes {
    batch: usize,
    /// Elements of the queries of one sequence.
    q_step: usize,
    /// Elements of the keys of one sequence.
    kv_step: usize,
    head: usize,
}

impl Kernel for CachedAttention {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let [q, k, v] = [required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?];
        let sizes = self.sizes(q, k, v)?;
        let (q_data, k_data, v_data) =
            (q.as_slice::<f32>()?, k.as_slice::<f32>()?, v.as_slice::<f32>()?);
        let mask = inputs.get(3).copied().flatten().map(bools).transpose()?;
        let pool = context.pool;
        let mut buffer = context.f32s(q.n_elements())?;
        let caches = self.caches(context.caches, sizes.batch, sizes.head)?;
        for (b, cache) in caches.iter_mut().enumerate() {
            let new = b * sizes.kv_step..(b + 1) * sizes.kv_step;
            let past = cache.len();
            // A mask that does not fit must be found before the cache changes.
            let total = past + sizes.kv_step / (self.spec.kv_heads * sizes.head);
            let seen = mask.map(|mask| row(mask, b, sizes.batch, total)).transpose()?;
            cache.append(pool, Isa::best(), &k_data[new.clone()], &v_data[new]);
            let at = b * sizes.q_step..(b + 1) * sizes.q_step;
            let out = &mut buffer.as_mut::<f32>()[at.clone()];
            self.attend(pool, &q_data[at], cache, past, seen, out);
        }
        Ok(vec![context.f32_tensor(buffer, q.shape().to_vec())?])
    }
}

impl CachedAttention {
    fn sizes(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Sizes, OpError> {
        let bad = || {
            let shapes = format!("{:?}, {:?}, {:?}", q.shape(), k.shape(), v.shape());
            OpError::shape(format!("queries, keys and values {shapes} do not go together"))
        };
        let (&[batch, seq, width], &[kb, ks, kv_width]) = (q.shape(), k.shape()) else {
            return Err(bad());
        };
        let head = width / self.spec.q_heads.max(1);
        let fits = (kb, ks) == (batch, seq)
            && k.shape() == v.shape()
            && head > 0
            && head * self.spec.q_heads == width
            && head * self.spec.kv_heads == kv_width;
        fits.then_some(Sizes { batch, q_step: seq * width, kv_step: seq * kv_width, head })
            .ok_or_else(bad)
    }

    /// The caches of the layer's sequences, made where they are missing.
    fn caches<'a>(
        &self,
        all: &'a mut Vec<Vec<KvCache>>,
        batch: usize,
        head: usize,
    ) -> Result<&'a mut [KvCache], OpError> {
        let wanted: KvSpec = self.spec.cache(head);
        if all.len() <= self.spec.layer {
            all.resize_with(self.spec.layer + 1, Vec::new);
        }
        let layer = &mut all[self.spec.layer];
        while layer.len() < batch {
            layer.push(KvCache::new(wanted));
        }
        if layer[..batch].iter().any(|cache| cache.spec() != wanted) {
            return Err(OpError::unsupported("the session's cache has another shape or format"));
        }
        Ok(&mut layer[..batch])
    }

    fn attend(
        &self,
        pool: &ThreadPool,
        q: &[f32],
        cache: &KvCache,
        past: usize,
        pad_mask: Option<&[bool]>,
        out: &mut [f32],
    ) {
        let head_dim = cache.spec().head_dim;
        let spec = AttentionSpec {
            n_heads: self.spec.q_heads,
            n_kv_heads: self.spec.kv_heads,
            head_dim,
            scale: self.spec.scale_for(head_dim),
            softcap: Some(self.spec.softcap).filter(|cap| *cap > 0.0),
            causal: self.spec.is_causal,
            window: Some(self.spec.window).filter(|window| *window > 0),
            pad_mask,
        };
        attention(pool, Isa::best(), q, cache, past, spec, out);
    }
}

/// The elements of a bool tensor.
fn bools(mask: &Tensor) -> Result<&[bool], OpError> {
    let bad = || OpError::unsupported("the padding mask must be bool");
    if mask.dtype() != DataType::Bool {
        return Err(bad());
    }
    bytemuck::checked::try_cast_slice(mask.bytes()).map_err(|_| bad())
}

/// The part of the mask for sequence `b`.
fn row(mask: &[bool], b: usize, batch: usize, total: usize) -> Result<&[bool], OpError> {
    if mask.len() != batch * total {
        return Err(OpError::shape(format!(
            "a padding mask of {} elements for {batch} sequences of {total}",
            mask.len()
        )));
    }
    Ok(&mask[b * total..(b + 1) * total])
}
