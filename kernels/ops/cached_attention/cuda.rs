//! The CUDA form of `CachedAttention`, and of `RotaryCachedAttention`, which prepares queries and
//! keys on the way to the cache.

use planish_cuda::attention::{
    Attend, CacheFormat, Clip, KvCache, KvShape, PadMask, Prepare, Rotation, Rows,
};
use planish_cuda::{DevicePtr, Element};
use planish_ir::{DataType, Tensor};

use super::spec::Spec;
use crate::ops::support::cuda_held::{HeldOnDevice, check_element, element_of};
use crate::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor, OpError, OpNode};

/// Positions that a new cache has room for at least.
const FIRST_CAPACITY: usize = 256;

struct Attention {
    spec: Spec,
    rotary: Option<Rotary>,
    /// Input of the padding mask.
    mask: usize,
}

/// Rotary embedding and the matrices after it.
struct Rotary {
    interleaved: bool,
    /// Channels that are rotated; 0 for all.
    dim: usize,
    /// Inputs 5 and 6, in the engine's type.
    matrices: [HeldOnDevice; 2],
}

/// `CachedAttention`.
pub(super) fn cuda(
    op: &OpNode,
    _: &CudaPrepare<'_>,
    _: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    Ok(Some(Box::new(Attention { spec: Spec::read(op)?, rotary: None, mask: 3 })))
}

/// `RotaryCachedAttention`.
pub(in crate::ops) fn rotary(
    op: &OpNode,
    prepare: &CudaPrepare<'_>,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError> {
    let matrix = |index| HeldOnDevice::new(prepare, constants, index, prepare.element);
    let rotary = Rotary {
        interleaved: op.node.int("interleaved", 0) != 0,
        dim: usize::try_from(op.node.int("rotary_embedding_dim", 0)).unwrap_or(0),
        matrices: [matrix(5)?, matrix(6)?],
    };
    Ok(Some(Box::new(Attention { spec: Spec::read(op)?, rotary: Some(rotary), mask: 7 })))
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    new: usize,
    head: usize,
}

impl CudaKernel for Attention {
    fn run(
        &self,
        context: &mut CudaContext,
        inputs: CudaInputs<'_>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let [q, k, v] = [inputs.device(0)?, inputs.device(1)?, inputs.device(2)?];
        let sizes = self.sizes(context.element, q, k, v)?;
        let total = context.n_past + sizes.new;
        let mask = inputs.optional(self.mask).map(|mask| pad_mask(mask, sizes.batch, total));
        let pad_mask = mask.transpose()?;
        let rotation = self.rotary.as_ref().map(|r| r.rotation(inputs, sizes)).transpose()?;
        let y = context.floats(q.shape().to_vec())?;
        let (past, gpu, recording) = (context.past, context.gpu.clone(), context.recording);
        let cache = self.cache(context, sizes, total)?;
        let matrices = self.matrices(inputs, sizes)?;
        let [queries, keys, values] = [q, k, v].map(|x| Rows { at: x.ptr(), stride: x.last() });
        let [query_matrix, key_matrix] = matrices;
        let new = sizes.new;
        let prepare =
            Prepare { queries: None, keys, values, rotation, query_matrix, key_matrix, past, new };
        let total_bound = if recording { cache.capacity() } else { total };
        let attend = Attend {
            queries,
            q_heads: self.spec.q_heads,
            past,
            new,
            total_bound,
            scale: self.spec.scale_for(sizes.head),
            softcap: self.spec.softcap,
            causal: self.spec.is_causal,
            window: self.spec.window,
            pad_mask,
            out: y.ptr(),
        };
        cache.step(&gpu, &prepare, &attend)?;
        *context.appended = new;
        Ok(vec![y])
    }

    fn owns_input(&self, index: usize) -> bool {
        self.rotary.as_ref().is_some_and(|r| r.matrices.iter().any(|m| m.owns(index)))
    }

    fn weight_bytes(&self) -> usize {
        self.rotary.iter().flat_map(|r| &r.matrices).map(HeldOnDevice::bytes).sum()
    }
}

impl Attention {
    fn sizes(
        &self,
        element: Element,
        q: &GpuTensor,
        k: &GpuTensor,
        v: &GpuTensor,
    ) -> Result<Sizes, OpError> {
        let bad = || {
            let shapes = format!("{:?}, {:?}, {:?}", q.shape(), k.shape(), v.shape());
            OpError::shape(format!("queries, keys and values {shapes} do not go together"))
        };
        [q, k, v].into_iter().try_for_each(|x| check_element(x, element))?;
        let (&[batch, new, width], &[kb, ks, kv_width]) = (q.shape(), k.shape()) else {
            return Err(bad());
        };
        let head = width / self.spec.q_heads.max(1);
        let fits = (kb, ks) == (batch, new)
            && k.shape() == v.shape()
            && head > 0
            && head * self.spec.q_heads == width
            && head * self.spec.kv_heads == kv_width;
        fits.then_some(Sizes { batch, new, head }).ok_or_else(bad)
    }

    /// The layer's cache, made if it is missing, with room for `total` positions.
    fn cache<'a>(
        &self,
        context: &'a mut CudaContext,
        sizes: Sizes,
        total: usize,
    ) -> Result<&'a KvCache, OpError> {
        let shape = KvShape {
            batch: sizes.batch,
            kv_heads: self.spec.kv_heads,
            head_dim: sizes.head,
            element: context.element,
            format: self.format(),
        };
        let layer = self.spec.layer;
        if context.caches.len() <= layer {
            context.caches.resize_with(layer + 1, || None);
        }
        let cache = &mut context.caches[layer];
        // An empty session may serve another number of sequences.
        if cache.as_ref().is_some_and(|c| c.shape() != shape && context.n_past == 0) {
            *cache = None;
        }
        let capacity = total.next_power_of_two().max(FIRST_CAPACITY);
        let cache = match cache {
            Some(cache) => cache,
            None => cache.insert(KvCache::new(context.gpu, shape, capacity)?),
        };
        if cache.shape() != shape {
            return Err(OpError::unsupported("the session's cache has another shape or format"));
        }
        if cache.capacity() < total {
            cache.grow(context.gpu, capacity)?;
        }
        Ok(cache)
    }

    fn format(&self) -> CacheFormat {
        let clip = |clip: planish_cpu::Clip| Clip { min: clip.min, max: clip.max };
        let (keys, values) = (clip(self.spec.key_clip), clip(self.spec.value_clip));
        match self.spec.kv_bits {
            4 => CacheFormat::Int4 { keys, values },
            8 => CacheFormat::Int8 { keys, values },
            _ => CacheFormat::Element,
        }
    }

    fn matrices(
        &self,
        inputs: CudaInputs<'_>,
        sizes: Sizes,
    ) -> Result<[Option<DevicePtr>; 2], OpError> {
        let Some(rotary) = &self.rotary else { return Ok([None; 2]) };
        let read = |matrix: &HeldOnDevice| match matrix.optional(inputs) {
            Some(p) if *p.shape() == [sizes.head, sizes.head] => Ok(Some(p.ptr())),
            Some(p) => Err(OpError::shape(format!("{:?} for heads of {}", p.shape(), sizes.head))),
            None => Ok(None),
        };
        Ok([read(&rotary.matrices[0])?, read(&rotary.matrices[1])?])
    }
}

impl Rotary {
    fn rotation(&self, inputs: CudaInputs<'_>, sizes: Sizes) -> Result<Rotation, OpError> {
        let (cos, sin) = (inputs.device(3)?, inputs.device(4)?);
        let dim = if self.dim == 0 { sizes.head } else { self.dim };
        let fits = match *cos.shape() {
            [b, s, half] => (b == 1 || b == sizes.batch) && s == sizes.new && half == dim / 2,
            _ => false,
        };
        if !fits || sin.shape() != cos.shape() || sin.dtype() != cos.dtype() {
            return Err(OpError::shape(format!(
                "angles {:?} for {} sequences of {} positions",
                cos.shape(),
                sizes.batch,
                sizes.new
            )));
        }
        Ok(Rotation {
            element: element_of(cos)?,
            per_sequence: cos.shape()[0] > 1,
            dim,
            interleaved: self.interleaved,
            cos: cos.ptr(),
            sin: sin.ptr(),
        })
    }
}

fn pad_mask(mask: &GpuTensor, batch: usize, total: usize) -> Result<PadMask, OpError> {
    if mask.dtype() != DataType::Bool || mask.n_elements() != batch * total {
        return Err(OpError::shape(format!(
            "a padding mask {} {:?} for {batch} sequences of {total}",
            mask.dtype(),
            mask.shape()
        )));
    }
    Ok(PadMask { at: mask.ptr(), stride: 0 })
}
