//! Walking over the elements of tensors by flat index.

use crate::OpError;

/// Number of elements of a shape.
///
/// # Errors
/// If it is beyond what can be addressed.
pub(crate) fn count(shape: &[usize]) -> Result<usize, OpError> {
    shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .filter(|n| *n <= isize::MAX as usize / 16)
        .ok_or_else(|| OpError::shape(format!("the shape {shape:?} has too many elements")))
}

/// Row-major steps, in elements; all 0 if there are no elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    if shape.contains(&0) {
        return vec![0; shape.len()];
    }
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// Sizes before, at and after `axis`, each multiplied out.
///
/// # Errors
/// If a product is beyond what can be addressed (where another size is 0).
pub(crate) fn around(shape: &[usize], axis: usize) -> Result<(usize, usize, usize), OpError> {
    let sizes: Vec<usize> = shape.iter().map(|size| (*size).max(1)).collect();
    count(&sizes)?;
    Ok((count(&shape[..axis])?, shape[axis], count(&shape[axis + 1..])?))
}

/// The coordinates of all elements of a shape in row-major order.
pub(crate) struct Coordinates {
    shape: Vec<usize>,
    next: Option<Vec<usize>>,
}

/// See [`Coordinates`].
pub(crate) fn coordinates(shape: &[usize]) -> Coordinates {
    let next = (!shape.contains(&0)).then(|| vec![0; shape.len()]);
    Coordinates { shape: shape.to_vec(), next }
}

impl Iterator for Coordinates {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let current = self.next.take()?;
        let mut following = current.clone();
        for axis in (0..self.shape.len()).rev() {
            following[axis] += 1;
            if following[axis] < self.shape[axis] {
                self.next = Some(following);
                break;
            }
            following[axis] = 0;
        }
        Some(current)
    }
}

/// The flat index of `at` under `strides`.
pub(crate) fn flat(at: &[usize], strides: &[usize]) -> usize {
    at.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// An index into an axis of `size` elements, which may count from the end.
///
/// # Errors
/// If it is out of bounds.
pub(crate) fn wrap(index: i64, size: usize) -> Result<usize, OpError> {
    let shifted = if index < 0 { index + size as i64 } else { index };
    usize::try_from(shifted)
        .ok()
        .filter(|i| *i < size)
        .ok_or_else(|| OpError::shape(format!("index {index} is out of bounds for size {size}")))
}
