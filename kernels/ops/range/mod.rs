//! `Range`: numbers from a start up to a limit at equal steps.

use planish_ir::{Dim, Tensor};

use super::common::facts::{common_dtype, required, with_dims};
use super::common::numbers::Numbers;
use crate::infer::unknown_dim;
use crate::memory::reserve;
use crate::op::required as input;
use crate::{Fact, OpDef, OpError, OpNode};

mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Range", infer, eval).with_cuda(cuda::cuda)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let [start, limit, delta] = [required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?];
    let dtype = common_dtype(&[start, limit, delta])?;
    let scalar = |fact: &Fact| fact.dims.as_ref()?.first().cloned();
    let step = scalar(delta).and_then(|d| d.as_const()).filter(|step| *step != 0);
    if let (Some(start), Some(limit), Some(delta)) = (scalar(start), scalar(limit), step) {
        let length = length(&start, &limit, delta);
        let elements = length
            .as_usize()
            .filter(|n| *n <= crate::fact::MAX_DIMS)
            .map(|n| (0..n as i64).map(|i| start.add(&Dim::from(i.wrapping_mul(delta)))).collect());
        return Ok(vec![with_dims(dtype, Some(vec![length]), elements)]);
    }
    let constants = [start, limit, delta].map(|fact| fact.constant.as_ref());
    let length = match constants {
        [Some(start), Some(limit), Some(delta)] => Dim::from(n_values(start, limit, delta)?),
        _ => unknown_dim(op.node, 0),
    };
    Ok(vec![Fact::new(dtype, Some(vec![length]))])
}

/// Number of elements; a symbolic difference is taken not to be negative.
fn length(start: &Dim, limit: &Dim, delta: i64) -> Dim {
    let span = if delta < 0 { start.sub(limit) } else { limit.sub(start) };
    let step = delta.saturating_abs();
    let length = span.add(&Dim::from(step - 1)).floor_div(&Dim::from(step));
    match length.as_const() {
        Some(n) => Dim::from(n.max(0)),
        None => length,
    }
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let [start, limit, delta] = [input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?];
    let values = values(start, limit, delta)?;
    let n = values.len();
    Ok(vec![values.write(start.dtype(), &[n])?])
}

fn values(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<Numbers, OpError> {
    let read = |tensor: &Tensor| Numbers::read(tensor);
    Ok(match (read(start)?, read(limit)?, read(delta)?) {
        (Numbers::Ints(start), Numbers::Ints(limit), Numbers::Ints(delta)) => {
            let [start, limit, delta] = scalars([&start, &limit, &delta])?;
            let n = length_of((limit - start) as f64, delta as f64)?;
            let mut values = reserve(n)?;
            values.extend((0..n as i128).map(|i| start + i * delta));
            Numbers::Ints(values)
        }
        (start, limit, delta) => {
            let lists = [start, limit, delta].map(Numbers::into_floats);
            let [start, limit, delta] = scalars([&lists[0], &lists[1], &lists[2]])?;
            let n = length_of(limit - start, delta)?;
            let mut values = reserve(n)?;
            values.extend((0..n).map(|i| start + i as f64 * delta));
            Numbers::Floats(values)
        }
    })
}

fn scalars<T: Copy, const N: usize>(lists: [&Vec<T>; N]) -> Result<[T; N], OpError> {
    if lists.iter().any(|list| list.len() != 1) {
        return Err(OpError::shape("start, limit and delta must be single numbers"));
    }
    Ok(lists.map(|list| list[0]))
}

/// Number of elements of a range whose bounds are known.
fn n_values(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize, OpError> {
    let [start, limit, delta] = [
        Numbers::read(start)?.into_floats(),
        Numbers::read(limit)?.into_floats(),
        Numbers::read(delta)?.into_floats(),
    ];
    let [start, limit, delta] = scalars([&start, &limit, &delta])?;
    length_of(limit - start, delta)
}

/// max(⌈span / delta⌉, 0).
fn length_of(span: f64, delta: f64) -> Result<usize, OpError> {
    let n = (span / delta).ceil();
    if delta == 0.0 || !n.is_finite() {
        return Err(OpError::unsupported("delta is 0, or a bound is no number"));
    }
    Ok(n.max(0.0) as usize)
}
