//! The fast form of `MatMulNBits`, for weights without zero points.

use planish_cpu::{PackedWeights, WeightLayout, WeightSpec};
use planish_ir::Tensor;

use super::Spec;
use crate::op::optional;
use crate::ops::support::held::Held;
use crate::ops::weight_only_matmul;
use crate::{Kernel, OpError, OpNode};

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let spec = Spec::read(op)?;
    let (Some(weight), Some(scales)) = (optional(constants, 1), optional(constants, 2)) else {
        return Ok(None);
    };
    let is_given = |i: usize| op.node.input(i).is_some() || optional(constants, i).is_some();
    if is_given(3) || is_given(4) {
        return Ok(None);
    }
    let centre = 1i16 << (spec.bits - 1);
    let centred = |code: u8| (i16::from(code) - centre) as i8;
    let codes: Vec<i8> = spec.codes(weight)?.into_iter().map(centred).collect();
    let (scales, blocks) = (spec.scales(scales)?, spec.n_blocks());
    let by_block: Vec<f32> =
        (0..blocks * spec.n).map(|i| scales[i % spec.n * blocks + i / spec.n]).collect();
    let packing = WeightSpec {
        k: spec.k,
        n: spec.n,
        layout: WeightLayout::Nk,
        scales: &by_block,
        group: Some(spec.block),
    };
    let packed = match spec.bits {
        4 => PackedWeights::pack_int4_bytes(&codes, packing),
        _ => PackedWeights::pack_int8(&codes, packing),
    };
    let packed = packed.map_err(|error| OpError::shape(error.to_string()))?;
    weight_only_matmul::kernel(packed, Held::new(constants, 5)?)
}
