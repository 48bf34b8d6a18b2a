//! Multidirectional broadcasting.

use planish_ir::Dim;

use crate::OpError;

/// The shape that `a` and `b` broadcast to.
///
/// # Errors
/// If two sizes differ and neither is 1.
pub(crate) fn shapes(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    zip(a, b, &1, |x, y| match (*x, *y) {
        (x, y) if x == y || y == 1 => Some(x),
        (1, y) => Some(y),
        _ => None,
    })
    .ok_or_else(|| mismatch(&a, &b))
}

/// The symbolic shape that `a` and `b` broadcast to.
///
/// A symbol against a number above 1 gives the number. Two symbols that differ can only be equal
/// at run time (or one of them 1, which exporters do not leave open): the first is taken.
///
/// # Errors
/// If two numbers differ and neither is 1.
pub(crate) fn dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, OpError> {
    zip(a, b, &Dim::from(1i64), dim).ok_or_else(|| mismatch(&a, &b))
}

fn dim(x: &Dim, y: &Dim) -> Option<Dim> {
    match (x.as_const(), y.as_const()) {
        _ if x == y => Some(x.clone()),
        (Some(1), _) => Some(y.clone()),
        (_, Some(1)) => Some(x.clone()),
        (Some(_), Some(_)) => None,
        (None, Some(_)) => Some(y.clone()),
        (Some(_), None) | (None, None) => Some(x.clone()),
    }
}

/// Pairs sizes from the last axis on, with `one` where the shorter shape has none.
fn zip<T: Clone>(a: &[T], b: &[T], one: &T, join: impl Fn(&T, &T) -> Option<T>) -> Option<Vec<T>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[T], i: usize| -> T {
        (i + shape.len()).checked_sub(rank).map_or(one, |i| &shape[i]).clone()
    };
    (0..rank).map(|i| join(&at(a, i), &at(b, i))).collect()
}

fn mismatch(a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug) -> OpError {
    OpError::shape(format!("the shapes {a:?} and {b:?} do not broadcast"))
}

/// Elements to step along each axis of `target` in a row-major tensor of shape `shape` that is
/// broadcast to it: 0 where it repeats. Of a tensor without elements they mean nothing.
pub(crate) fn strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; target.len()];
    let mut step = 1usize;
    for (axis, size) in shape.iter().enumerate().rev() {
        let Some(at) = (axis + target.len()).checked_sub(shape.len()) else { break };
        if *size != 1 {
            strides[at] = step;
        }
        step = step.wrapping_mul(*size);
    }
    strides
}
