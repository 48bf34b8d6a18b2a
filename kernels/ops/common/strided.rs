//! Copying elements at regular steps: transposition, slicing, expansion.

use bytemuck::{AnyBitPattern, NoUninit, Pod};
use planish_ir::{DataType, Tensor};

use super::index::count;
use super::parallel::for_each_part;
use crate::{CpuContext, OpError};

/// Side of the square blocks in which a matrix is transposed.
const BLOCK: usize = 16;

/// A view of a tensor's elements: where it begins, and for each axis its size and step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// Flat index of the first element.
    pub(crate) offset: usize,
    /// Sizes and steps, outermost first.
    pub(crate) axes: Vec<(usize, isize)>,
}

impl View {
    /// Sizes of the axes.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|(size, _)| *size).collect()
    }

    /// The view with axes of size 1 dropped and neighbours merged where one step covers both.
    fn merged(&self) -> Vec<(usize, isize)> {
        let mut merged: Vec<(usize, isize)> = Vec::new();
        for (size, step) in self.axes.iter().copied().filter(|(size, _)| *size != 1) {
            match merged.last_mut() {
                Some((outer, outer_step)) if *outer_step == step * size as isize => {
                    (*outer, *outer_step) = (*outer * size, step);
                }
                _ => merged.push((size, step)),
            }
        }
        merged
    }

    /// Whether all elements lie in a tensor of `n`.
    fn is_inside(&self, n: usize) -> bool {
        let (mut low, mut high) = (self.offset as i128, self.offset as i128);
        for (size, step) in &self.axes {
            let reach = (*size as i128 - 1) * *step as i128;
            low += reach.min(0);
            high += reach.max(0);
        }
        low >= 0 && high < n as i128
    }
}

/// Copies the elements that `view` sees in `source` into a dense tensor. `None` for element
/// types that are not whole bytes.
///
/// # Errors
/// If the view reaches beyond the source.
pub(crate) fn copy(
    context: &CpuContext,
    source: &Tensor,
    view: &View,
) -> Result<Option<Tensor>, OpError> {
    let shape = view.shape();
    let n = count(&shape)?;
    if n > 0 && !view.is_inside(source.n_elements()) {
        return Err(OpError::shape("the view reaches beyond its tensor"));
    }
    let dtype = source.dtype();
    let tensor = match dtype.bits() {
        8 => copy_as::<u8>(context, source, view, n, shape)?,
        16 => copy_as::<u16>(context, source, view, n, shape)?,
        32 => copy_as::<u32>(context, source, view, n, shape)?,
        64 if dtype != DataType::C64 => copy_as::<u64>(context, source, view, n, shape)?,
        _ => return Ok(None),
    };
    Ok(Some(tensor))
}

fn copy_as<T: Pod + Send + Sync>(
    context: &CpuContext,
    source: &Tensor,
    view: &View,
    n: usize,
    shape: Vec<usize>,
) -> Result<Tensor, OpError> {
    let elements = elements::<T>(source);
    let mut buffer = context.buffers.take_for::<T>(n)?;
    if n > 0 {
        let axes = view.merged();
        let out = buffer.as_mut::<T>();
        copy_axes(context, &elements, view.offset, &axes, out);
    }
    Ok(buffer.into_tensor(source.dtype(), shape)?)
}

/// The elements of a tensor as plain bits of the same width; copies only if they are unaligned.
pub(crate) fn elements<T: NoUninit + AnyBitPattern>(tensor: &Tensor) -> std::borrow::Cow<'_, [T]> {
    bytemuck::try_cast_slice(tensor.bytes())
        .map_or_else(|_| bytemuck::pod_collect_to_vec(tensor.bytes()).into(), Into::into)
}

fn copy_axes<T: Pod + Send + Sync>(
    context: &CpuContext,
    source: &[T],
    offset: usize,
    axes: &[(usize, isize)],
    out: &mut [T],
) {
    let offset = offset as isize;
    match axes {
        [] => out[0] = source[offset as usize],
        [(_, 1)] => {
            for_each_part(context, out, 1, |start, part| {
                let from = offset as usize + start;
                part.copy_from_slice(&source[from..from + part.len()]);
            });
        }
        [outer @ .., (rows, 1), (columns, step)] if *step > 1 => {
            let matrix = Matrix { rows: *rows, columns: *columns, step: *step as usize };
            for_each_part(context, out, *columns, |start, part| {
                matrix.transpose_rows(source, start / columns, part, |i| at(offset, outer, i));
            });
        }
        [outer @ .., (size, step)] => {
            for_each_part(context, out, *size, |start, part| {
                for (i, row) in part.chunks_mut(*size).enumerate() {
                    copy_row(source, at(offset, outer, start / size + i), *step, row);
                }
            });
        }
    }
}

/// Where the row with number `row` begins.
fn at(offset: isize, outer: &[(usize, isize)], mut row: usize) -> isize {
    let mut position = offset;
    for (size, step) in outer.iter().rev() {
        position += (row % size) as isize * step;
        row /= size;
    }
    position
}

fn copy_row<T: Pod>(source: &[T], start: isize, step: isize, row: &mut [T]) {
    match step {
        1 => row.copy_from_slice(&source[start as usize..start as usize + row.len()]),
        0 => row.fill(source[start as usize]),
        _ => {
            for (i, element) in row.iter_mut().enumerate() {
                *element = source[(start + i as isize * step) as usize];
            }
        }
    }
}

/// Matrices whose columns are contiguous in the source.
struct Matrix {
    rows: usize,
    columns: usize,
    step: usize,
}

impl Matrix {
    /// Writes output rows from number `first` on, counted over all matrices, of which `origin`
    /// says where each begins.
    fn transpose_rows<T: Pod>(
        &self,
        source: &[T],
        first: usize,
        mut out: &mut [T],
        origin: impl Fn(usize) -> isize,
    ) {
        let mut row = first;
        while !out.is_empty() {
            let (matrix, within) = (row / self.rows, row % self.rows);
            let n = (self.rows - within).min(out.len() / self.columns);
            let (rows, rest) = out.split_at_mut(n * self.columns);
            let start = origin(matrix) as usize + within;
            for (i, block) in rows.chunks_mut(BLOCK * self.columns).enumerate() {
                self.transpose_block(&source[start + i * BLOCK..], block);
            }
            row += n;
            out = rest;
        }
    }

    /// Writes up to [`BLOCK`] output rows, of which `source` holds the first at its beginning.
    fn transpose_block<T: Pod>(&self, source: &[T], out: &mut [T]) {
        for c0 in (0..self.columns).step_by(BLOCK) {
            for (r, row) in out.chunks_mut(self.columns).enumerate() {
                let end = (c0 + BLOCK).min(self.columns);
                let column = source[c0 * self.step + r..].iter().step_by(self.step);
                row[c0..end].iter_mut().zip(column).for_each(|(o, x)| *o = *x);
            }
        }
    }
}
