//! What each reduction does with one element, and at the end.

use planish_ir::DataType;

use crate::OpError;

/// A reduction: the start, a step, and what makes the result of the last state and the number of
/// elements reduced.
pub(super) struct Fold<T> {
    start: T,
    step: fn(T, T) -> T,
    finish: fn(T, usize) -> T,
}

impl<T: Copy> Fold<T> {
    /// Reduces elements, each with the index of its accumulator, to `n` results of `count`
    /// elements each.
    pub(super) fn run(
        &self,
        elements: impl Iterator<Item = (usize, T)>,
        n: usize,
        count: usize,
    ) -> Vec<T> {
        let mut states = vec![self.start; n];
        for (target, element) in elements {
            states[target] = (self.step)(states[target], element);
        }
        states.into_iter().map(|state| (self.finish)(state, count)).collect()
    }
}

fn unsupported(op_type: &str) -> OpError {
    OpError::unsupported(format!("{op_type} does not take such elements"))
}

/// The reduction of floating-point elements; of no elements, the maximum is −∞.
pub(super) fn floats(op_type: &str) -> Result<Fold<f64>, OpError> {
    let (start, step): (f64, fn(f64, f64) -> f64) = match op_type {
        "ReduceMean" | "ReduceSum" => (0.0, |sum, x| sum + x),
        "ReduceProd" => (1.0, |product, x| product * x),
        "ReduceSumSquare" | "ReduceL2" => (0.0, |sum, x| sum + x * x),
        "ReduceL1" => (0.0, |sum, x| sum + x.abs()),
        "ReduceMax" => (f64::NEG_INFINITY, |max, x| if x.is_nan() || x > max { x } else { max }),
        "ReduceMin" => (f64::INFINITY, |min, x| if x.is_nan() || x < min { x } else { min }),
        _ => return Err(unsupported(op_type)),
    };
    let finish: fn(f64, usize) -> f64 = match op_type {
        "ReduceMean" => |sum, n| sum / n as f64,
        "ReduceL2" => |sum, _| sum.sqrt(),
        _ => |state, _| state,
    };
    Ok(Fold { start, step, finish })
}

/// The reduction of integers, wrapping; of no elements, the maximum is the type's least value.
pub(super) fn ints(op_type: &str, dtype: DataType) -> Result<Fold<i128>, OpError> {
    let (low, high) = range(dtype);
    let (start, step): (i128, fn(i128, i128) -> i128) = match op_type {
        "ReduceMean" | "ReduceSum" => (0, |sum, x| sum.wrapping_add(x)),
        "ReduceProd" => (1, |product, x| product.wrapping_mul(x)),
        "ReduceSumSquare" | "ReduceL2" => (0, |sum, x| sum.wrapping_add(x.wrapping_mul(x))),
        "ReduceL1" => (0, |sum, x| sum.wrapping_add(x.abs())),
        "ReduceMax" => (low, i128::max),
        "ReduceMin" => (high, i128::min),
        _ => return Err(unsupported(op_type)),
    };
    let finish: fn(i128, usize) -> i128 = match op_type {
        "ReduceMean" => |sum, n| sum.checked_div(n as i128).unwrap_or(0),
        "ReduceL2" => |sum, _| (sum as f64).sqrt() as i128,
        _ => |state, _| state,
    };
    Ok(Fold { start, step, finish })
}

fn range(dtype: DataType) -> (i128, i128) {
    let bits = dtype.bits() as u32;
    match dtype {
        DataType::Bool => (0, 1),
        DataType::U8 | DataType::U16 | DataType::U32 | DataType::U64 | DataType::U4 => {
            (0, (1i128 << bits) - 1)
        }
        _ => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
    }
}
