//! Ordering the elements of a tensor.

use std::cmp::Ordering;

use crate::ops::common::numbers::Numbers;

/// How element `i` compares with element `j`; NaN is above all numbers.
pub(super) fn compare(values: &Numbers, i: usize, j: usize) -> Ordering {
    match values {
        Numbers::Ints(values) => values[i].cmp(&values[j]),
        Numbers::Floats(values) => {
            let (a, b) = (values[i], values[j]);
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
    }
}
