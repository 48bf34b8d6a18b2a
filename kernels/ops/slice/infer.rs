//! Inference of `Slice` with symbolic bounds.

use planish_ir::Dim;

use super::bounds;
use crate::infer::unknown_dim;
use crate::ops::common::axes::{IntList, axes, list_fact};
use crate::ops::common::facts::{list_length, optional, required, with_dims};
use crate::{Fact, OpError, OpNode};

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = required(inputs, 0)?;
    let Some(shape) = &x.shape else { return Ok(vec![Fact::new(x.dtype, None)]) };
    let starts = dims(op, inputs, 1, "starts");
    let ends = dims(op, inputs, 2, "ends");
    let n = n_sliced(op, inputs, starts.as_ref().or(ends.as_ref()));
    let list = match (list_fact(op, inputs, 3, "axes"), n) {
        (IntList::Known(list), _) => list,
        (IntList::Absent, Some(n)) => (0..n as i64).collect(),
        _ => {
            let unknown = super::super::common::facts::unknown_shape(op, shape.len());
            return Ok(vec![Fact::new(x.dtype, Some(unknown))]);
        }
    };
    let steps = match list_fact(op, inputs, 4, "steps") {
        IntList::Known(steps) => steps.into_iter().map(Some).collect(),
        IntList::Absent => vec![Some(1); list.len()],
        IntList::Unknown => vec![None; list.len()],
    };
    let at = |dims: &Option<Vec<Dim>>, i: usize| dims.as_ref().and_then(|d| d.get(i).cloned());
    let mut sliced = shape.clone();
    for (i, axis) in axes(&list, shape.len())?.into_iter().enumerate() {
        let step = steps.get(i).copied().flatten();
        let length = match (at(&starts, i), at(&ends, i), step) {
            (Some(start), Some(end), Some(step)) => length(&start, &end, step, &shape[axis])?,
            _ => None,
        };
        sliced[axis] = length.unwrap_or_else(|| unknown_dim(op.node, axis));
    }
    let dims = elements(x, &starts, &ends, &steps);
    Ok(vec![with_dims(x.dtype, Some(sliced), dims)])
}

/// The bounds at input `index` or attribute `name`.
fn dims(op: &OpNode, inputs: &[Fact], index: usize, name: &str) -> Option<Vec<Dim>> {
    match optional(inputs, index) {
        Some(fact) => fact.dims.clone(),
        None => op.node.ints(name).map(|list| list.iter().map(|i| Dim::from(*i)).collect()),
    }
}

/// Number of axes that are sliced.
fn n_sliced(op: &OpNode, inputs: &[Fact], known: Option<&Vec<Dim>>) -> Option<usize> {
    let length = |i| optional(inputs, i).and_then(list_length);
    known
        .map(Vec::len)
        .or_else(|| length(1))
        .or_else(|| length(2))
        .or_else(|| op.node.ints("starts").map(<[i64]>::len))
}

/// Length of the slice `start..end` of an axis of size `size`, if it can be told.
///
/// A number is clamped to the axis exactly. A symbolic bound (`past + sequence`) that can't be
/// compared with the size is taken to lie inside the axis, as exporters compute it so.
fn length(start: &Dim, end: &Dim, step: i64, size: &Dim) -> Result<Option<Dim>, OpError> {
    if let (Some(start), Some(end), Some(size)) =
        (start.as_const(), end.as_const(), size.as_usize())
    {
        return Ok(Some(Dim::from(bounds(start, end, step, size)?.1)));
    }
    if step < 1 {
        let reversed = step == -1 && start.as_const() == Some(-1);
        let whole = reversed && end.as_const().is_some_and(|end| end <= -i64::from(i32::MAX));
        return Ok(whole.then(|| size.clone()));
    }
    // The last k of an axis: as many as there are.
    if let (Some(start @ i64::MIN..0), true) = (start.as_const(), is_whole(end, size)) {
        let kept = Dim::from(start.saturating_neg()).minimum(size);
        return Ok(strided(&kept, step));
    }
    // All but the first k.
    if let (Some(start @ 0..), true) = (start.as_const(), is_whole(end, size)) {
        let kept = size.sub(&Dim::from(start)).maximum(&Dim::from(0i64));
        return Ok(strided(&kept, step));
    }
    let span = clamp(end, size).sub(&clamp(start, size));
    let zero = Dim::from(0i64);
    let is_empty = zero.sub(&span).is_surely_non_negative();
    let span = if is_empty || !is_plain(&span) { span.maximum(&zero) } else { span };
    Ok(strided(&span, step))
}

/// Number of elements at every `step`-th place of `span`.
fn strided(span: &Dim, step: i64) -> Option<Dim> {
    if step == 1 {
        return Some(span.clone());
    }
    Some(span.add(&Dim::from(step - 1)).floor_div(&Dim::from(step)))
}

/// Whether a difference of bounds is made of symbols of the model alone, none of which stands
/// for a maximum or minimum. Then the slice is taken not to run backwards.
fn is_plain(span: &Dim) -> bool {
    span.symbols().iter().all(|symbol| !symbol.contains(['(', ' ']))
}

fn is_whole(end: &Dim, size: &Dim) -> bool {
    end == size
        || end.as_const().is_some_and(|end| end >= i64::from(i32::MAX))
        || end.sub(size).is_surely_non_negative()
}

/// A bound as an index between 0 and the size.
fn clamp(bound: &Dim, size: &Dim) -> Dim {
    let zero = Dim::from(0i64);
    match bound.as_const() {
        _ if is_whole(bound, size) => size.clone(),
        Some(bound) if bound < 0 => size.add(&Dim::from(bound)).maximum(&zero),
        Some(_) => bound.minimum(size),
        // −s with a symbol s: counted from the end.
        None if zero.sub(bound).is_surely_non_negative() => size.add(bound),
        None => bound.clone(),
    }
}

/// The elements of a list of sizes that the slice keeps.
fn elements(
    x: &Fact,
    starts: &Option<Vec<Dim>>,
    ends: &Option<Vec<Dim>>,
    steps: &[Option<i64>],
) -> Option<Vec<Dim>> {
    let dims = x.dims.as_ref().filter(|_| x.rank() == Some(1))?;
    let bound = |list: &Option<Vec<Dim>>| list.as_ref()?.first()?.as_const();
    let step = (*steps.first()?)?;
    let (first, n, step) = bounds(bound(starts)?, bound(ends)?, step, dims.len()).ok()?;
    let index = |i: usize| usize::try_from(first as i64 + i as i64 * step).ok();
    (0..n).map(|i| dims.get(index(i)?).cloned()).collect()
}
