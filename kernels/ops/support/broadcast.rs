//! ONNX's multidirectional broadcasting.

use planish_ir::Dim;

use crate::OpError;

/// The shape that `a` and `b` broadcast to.
pub(in crate::ops) fn shapes(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let rank = a.len().max(b.len());
    (0..rank)
        .map(|i| match (from_right(a, rank - 1 - i), from_right(b, rank - 1 - i)) {
            (Some(1) | None, Some(d)) | (Some(d), Some(1) | None) => Ok(*d),
            (Some(x), Some(y)) if x == y => Ok(*x),
            _ => Err(OpError::shape(format!("{a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

/// As [`shapes`], for sizes that may be symbols. Of two different symbols the larger one counts,
/// because the other can only be 1.
pub(in crate::ops) fn dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, OpError> {
    let rank = a.len().max(b.len());
    (0..rank)
        .map(|i| match (from_right(a, rank - 1 - i), from_right(b, rank - 1 - i)) {
            (Some(x), Some(y)) => one_dim(x, y)
                .ok_or_else(|| OpError::shape(format!("{a:?} and {b:?} do not broadcast"))),
            (x, y) => Ok(x.or(y).cloned().unwrap_or_else(|| Dim::from(1i64))),
        })
        .collect()
}

fn one_dim(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.as_const(), b.as_const()) {
        _ if a == b => Some(a.clone()),
        (Some(1), _) => Some(b.clone()),
        (_, Some(1)) => Some(a.clone()),
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some(a.clone()),
        (None, Some(_)) => Some(b.clone()),
        (None, None) => Some(a.maximum(b)),
    }
}

fn from_right<T>(shape: &[T], index: usize) -> Option<&T> {
    shape.len().checked_sub(index + 1).and_then(|i| shape.get(i))
}

/// Steps in elements along each axis of `target` for a row-major array of shape `shape` that
/// broadcasts to it: 0 where it is repeated.
pub(in crate::ops) fn strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; target.len()];
    let mut step = 1;
    for (axis, size) in shape.iter().enumerate().rev() {
        if *size != 1 {
            strides[axis + target.len() - shape.len()] = step;
        }
        step *= size;
    }
    strides
}

/// The position of element `flat` of an array of shape `target` in an array with `strides`.
pub(in crate::ops) fn offset(mut flat: usize, target: &[usize], strides: &[usize]) -> usize {
    let mut position = 0;
    for (size, stride) in target.iter().zip(strides).rev() {
        position += flat % size * stride;
        flat /= size;
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_one_are_repeated() {
        assert_eq!(shapes(&[2, 1, 3], &[4, 1]).unwrap(), [2, 4, 3]);
        assert!(shapes(&[2], &[3]).is_err());
        let strides = strides(&[4, 1], &[2, 4, 3]);
        assert_eq!(strides, [0, 1, 0]);
        assert_eq!(offset(12 + 2 * 3 + 1, &[2, 4, 3], &strides), 2);
    }

    #[test]
    fn symbols_broadcast() {
        let (a, one) = (Dim::symbol("a"), Dim::from(1i64));
        let out = dims(&[one.clone(), a.clone()], &[a.clone(), a.clone()]).unwrap();
        assert_eq!(out, [a.clone(), a.clone()]);
        assert!(dims(&[Dim::from(2i64)], &[Dim::from(3i64)]).is_err());
    }
}
