//! Where the elements of broadcast and strided operands lie.

use crate::{DevicePtr, GpuError};

/// As in walk.cuh.
const MAX_AXES: usize = 6;

/// How `K` operands are walked over together: axes from the innermost on, neighbours that all
/// operands walk alike merged.
#[derive(Debug, Clone, PartialEq)]
pub struct Walk<const K: usize> {
    axes: Vec<(usize, [i64; K])>,
}

impl<const K: usize> Walk<K> {
    /// Of axes with their sizes and each operand's steps, outermost first.
    ///
    /// # Errors
    /// If there are more axes than kernels take that can't be merged.
    pub fn new(axes: &[(usize, [i64; K])]) -> Result<Self, GpuError> {
        let mut merged: Vec<(usize, [i64; K])> = Vec::new();
        for (size, steps) in axes.iter().rev().filter(|(size, _)| *size != 1) {
            match merged.last_mut() {
                Some((n, inner)) if (0..K).all(|k| steps[k] == inner[k] * *n as i64) => {
                    *n *= size;
                }
                _ => merged.push((*size, *steps)),
            }
        }
        if merged.len() > MAX_AXES {
            return Err(GpuError::unsupported(format!(
                "{} axes that can't be merged are too many for a kernel",
                merged.len()
            )));
        }
        Ok(Self { axes: merged })
    }

    /// Of dense operands that are broadcast to `target`.
    ///
    /// # Errors
    /// As [`Walk::new`], and if they do not broadcast.
    pub fn broadcast(shapes: [&[usize]; K], target: &[usize]) -> Result<Self, GpuError> {
        let mut axes: Vec<(usize, [i64; K])> = target.iter().map(|n| (*n, [0; K])).collect();
        for (k, shape) in shapes.iter().enumerate() {
            let mut step = 1i64;
            for (i, size) in shape.iter().rev().enumerate() {
                let axis = target.len().checked_sub(i + 1);
                let axis = axis.filter(|axis| *size == 1 || target[*axis] == *size);
                let Some(axis) = axis else {
                    let message = format!("{shape:?} does not broadcast to {target:?}");
                    return Err(GpuError::unsupported(message));
                };
                if *size != 1 {
                    axes[axis].1[k] = step;
                }
                step *= *size as i64;
            }
        }
        Self::new(&axes)
    }

    /// Number of positions.
    pub fn n(&self) -> usize {
        self.axes.iter().map(|(size, _)| size).product()
    }

    /// Merged axes, the innermost first.
    pub fn axes(&self) -> &[(usize, [i64; K])] {
        &self.axes
    }

    /// The walk over stretches of `per` elements, with steps still in elements; `None` where the
    /// innermost axis does not consist of such, or an operand moves along it by other steps than
    /// 0 and 1. `operands` are the operands' pointers and element sizes, for their alignment.
    pub fn stretched(&self, per: usize, operands: [(DevicePtr, usize); K]) -> Option<Self> {
        let (size, steps) = self.axes.first()?;
        let is_aligned = |k: usize| match steps[k] {
            0 => true,
            1 => {
                let (pointer, bytes) = operands[k];
                let moves_by = |(_, steps): &(usize, [i64; K])| steps[k] % per as i64 == 0;
                pointer.0.is_multiple_of((per * bytes) as u64)
                    && self.axes[1..].iter().all(moves_by)
            }
            _ => false,
        };
        if !size.is_multiple_of(per) || !(0..K).all(is_aligned) {
            return None;
        }
        let mut axes = self.axes.clone();
        axes[0] = (size / per, steps.map(|step| step * per as i64));
        Some(Self { axes })
    }

    /// The same walk over elements `factor` times as wide; `None` unless all operands hold them.
    pub fn widened(&self, factor: usize, operands: [(DevicePtr, usize); K]) -> Option<Self> {
        let (_, steps) = self.axes.first()?;
        if steps.iter().any(|step| *step != 1) {
            return None;
        }
        let mut walk = self.stretched(factor, operands)?;
        let steps = walk.axes.iter_mut().flat_map(|(_, steps)| steps);
        steps.for_each(|step| *step /= factor as i64);
        Some(walk)
    }

    /// As the structure of walk.cuh.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 * MAX_AXES * K + 4 * MAX_AXES + 8);
        let of = |axis: usize| self.axes.get(axis).copied().unwrap_or((1, [0; K]));
        for k in 0..K {
            (0..MAX_AXES).for_each(|axis| bytes.extend(of(axis).1[k].to_ne_bytes()));
        }
        (0..MAX_AXES).for_each(|axis| bytes.extend((of(axis).0 as u32).to_ne_bytes()));
        bytes.extend((self.axes.len() as u32).to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes
    }
}

/// Up to [`MAX_AXES`] numbers as an array of a structure, the rest filled up.
pub(super) fn array(values: &[i64], rest: i64) -> Result<[i64; MAX_AXES], GpuError> {
    if values.len() > MAX_AXES {
        let n = values.len();
        return Err(GpuError::unsupported(format!("{n} axes are too many for a kernel")));
    }
    Ok(std::array::from_fn(|i| values.get(i).copied().unwrap_or(rest)))
}

/// A structure for a kernel, put together field by field. Pointers and 64-bit numbers come first,
/// so that nothing needs to be padded in between.
#[derive(Default)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    pub fn ptr(self, pointer: Option<DevicePtr>) -> Self {
        self.put(&pointer.unwrap_or(DevicePtr::NULL).0.to_ne_bytes())
    }

    pub fn i64(self, value: i64) -> Self {
        self.put(&value.to_ne_bytes())
    }

    pub fn i32(self, value: i32) -> Self {
        self.put(&value.to_ne_bytes())
    }

    pub fn f32(self, value: f32) -> Self {
        self.put(&value.to_ne_bytes())
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes, filled up to whole 64-bit words.
    pub fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_move_alike_are_merged() {
        let walk = Walk::broadcast([&[2, 3, 4], &[4]], &[2, 3, 4]).unwrap();
        assert_eq!(walk.axes(), [(4, [1, 1]), (6, [4, 0])]);
        let scalar = Walk::broadcast([&[2, 3], &[]], &[2, 3]).unwrap();
        assert_eq!((scalar.axes(), scalar.n()), (&[(6, [1, 0])][..], 6));
        assert!(Walk::broadcast([&[2], &[3]], &[3]).is_err());
        assert!(Walk::broadcast([&[1, 1, 2], &[2]], &[2]).is_err());
    }

    #[test]
    fn stretches_must_fit_the_innermost_axis_and_the_alignment() {
        let walk = Walk::broadcast([&[3, 8], &[3, 1]], &[3, 8]).unwrap();
        let at = |a, b| [(DevicePtr(a), 2), (DevicePtr(b), 2)];
        let by_four = walk.stretched(4, at(16, 2)).unwrap();
        assert_eq!(by_four.axes(), [(2, [4, 0]), (3, [8, 1])]);
        assert_eq!(walk.stretched(4, at(4, 2)), None);
        assert_eq!(walk.stretched(3, at(16, 2)), None);
        assert_eq!(walk.to_bytes().len(), 2 * 48 + 24 + 8);
    }
}
