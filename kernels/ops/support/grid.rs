//! Which scale counts for which element, in ONNX's quantisation operators.

use super::facts;
use crate::ops::common::index;
use crate::{OpError, OpNode};

/// Scales of one tensor.
pub(in crate::ops) struct Grid {
    shape: Vec<usize>,
    steps: Vec<usize>,
    /// Divisor of the coordinate along each axis; 0 where it does not matter.
    block: Vec<usize>,
    scale_steps: Vec<usize>,
}

impl Grid {
    /// From the attributes `axis` (1) and `block_size` (0) and the shape of the scales.
    pub fn new(op: &OpNode, shape: &[usize], scale: &[usize]) -> Result<Self, OpError> {
        let bad = || OpError::shape(format!("scales {scale:?} for {shape:?}"));
        let rank = shape.len();
        let (mut block, mut scale_steps) = (vec![0; rank], vec![0; rank]);
        let size = usize::try_from(op.node.int("block_size", 0)).map_err(|_| bad())?;
        if size > 0 {
            let axis = facts::axis(op.node.int("axis", 1), rank, false)?;
            let expected = |i: usize| if i == axis { shape[i].div_ceil(size) } else { shape[i] };
            if scale.len() != rank || (0..rank).any(|i| scale[i] != expected(i)) {
                return Err(bad());
            }
            block.fill(1);
            block[axis] = size;
            scale_steps = index::strides(scale);
        } else if scale.iter().product::<usize>() != 1 || scale.len() == 1 && rank > 1 {
            // A list of one scale for an axis of one element, or for the whole tensor.
            let axis = facts::axis(op.node.int("axis", 1), rank, false)?;
            if scale.len() != 1 || (scale[0] != shape[axis] && scale[0] != 1) {
                return Err(bad());
            }
            (block[axis], scale_steps[axis]) = (1, usize::from(scale[0] != 1));
        }
        Ok(Self { shape: shape.to_vec(), steps: index::strides(shape), block, scale_steps })
    }

    /// The index of the scale for element `i`.
    pub fn scale_of(&self, i: usize) -> usize {
        let axes = self.shape.iter().zip(&self.steps).zip(self.block.iter().zip(&self.scale_steps));
        axes.filter(|(_, (block, _))| **block > 0)
            .map(|((size, step), (block, scale_step))| i / step % size / block * scale_step)
            .sum()
    }
}
