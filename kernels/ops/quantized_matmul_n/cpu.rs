//! The fast form of `QuantizedMatMulN`: one product with all the weights side by side, so that a
//! decoding step opens one parallel region for them.

use planish_cpu::{Isa, MAX_K, PackedWeights, WeightLayout, WeightSpec, qgemm};
use planish_ir::{DataType, Tensor};

use super::{block_size, products};
use crate::kernel::required;
use crate::op::required as constant;
use crate::ops::common::parallel::for_each_part;
use crate::ops::quantized_matmul::cpu::check;
use crate::ops::support::{packed, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

/// Rows computed at a time: their products stay in the second-level cache.
const ROWS: usize = 96;

struct QuantizedMatMulN {
    weight: PackedWeights,
    /// Columns of each product.
    columns: Vec<usize>,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let products = products(constants)?;
    let bits = |product: &[Option<Tensor>; 4]| product[2].as_ref().map(Tensor::dtype);
    let same = products.iter().all(|product| bits(product) == bits(&products[0]));
    if !same || products.iter().any(|product| product[2].is_none() || product[3].is_none()) {
        return Ok(None);
    }
    let (weight, columns) = side_by_side(&products, block_size(op))?;
    if weight.k() > MAX_K {
        return Ok(None);
    }
    Ok(Some(Box::new(QuantizedMatMulN { weight, columns })))
}

/// All weights packed as one, and the columns of each.
fn side_by_side(
    products: &[[Option<Tensor>; 4]],
    group: Option<usize>,
) -> Result<(PackedWeights, Vec<usize>), OpError> {
    let weights =
        products.iter().map(|product| constant(product, 2)).collect::<Result<Vec<_>, _>>()?;
    let (k, _) = packed::sizes(weights[0], false)?;
    let codes = weights.iter().map(|w| w.to_i64_vec()).collect::<Result<Vec<_>, _>>()?;
    let scales = products
        .iter()
        .map(|p| Ok(constant(p, 3)?.to_f32_vec()?))
        .collect::<Result<Vec<_>, OpError>>()?;
    let columns = weights
        .iter()
        .map(|w| Ok(packed::sizes(w, false)?.1))
        .collect::<Result<Vec<_>, OpError>>()?;
    let n_groups = group.map_or(1, |group| k / group.max(1));
    let fits = weights.iter().all(|w| w.shape()[0] == k)
        && group.is_none_or(|group| k.is_multiple_of(group))
        && scales.iter().zip(&columns).all(|(scales, n)| scales.len() == n_groups * n);
    if !fits {
        return Err(OpError::shape("the weights and scales do not go together"));
    }
    let codes: Vec<i8> = join(&codes, &columns, k).into_iter().map(|code| code as i8).collect();
    let scales = join(&scales, &columns, n_groups);
    let (n, layout) = (columns.iter().sum(), WeightLayout::Kn);
    let spec = WeightSpec { k, n, layout, scales: &scales, group };
    let packed = match weights[0].dtype() {
        DataType::I4 => PackedWeights::pack_int4_bytes(&codes, spec),
        DataType::I8 => PackedWeights::pack_int8(&codes, spec),
        other => return Err(OpError::unsupported(format!("a weight can't be {other}"))),
    };
    Ok((packed.map_err(|error| OpError::shape(error.to_string()))?, columns))
}

/// Matrices of `n_rows` rows, joined row by row.
fn join<T: Copy>(matrices: &[Vec<T>], columns: &[usize], n_rows: usize) -> Vec<T> {
    let row = |r: usize| {
        let parts = matrices.iter().zip(columns);
        parts.flat_map(move |(matrix, n)| matrix[r * n..(r + 1) * n].iter().copied())
    };
    (0..n_rows).flat_map(row).collect()
}

impl Kernel for QuantizedMatMulN {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let (codes, a_scale) = (required(inputs, 0)?, required(inputs, 1)?);
        check(codes, a_scale, self.weight.k())?;
        let (data, scales) = (codes.as_slice::<i8>()?, a_scale.as_slice::<f32>()?);
        match scales.len() {
            1 => self.one_row(context, codes, &data, &scales),
            _ => self.rows(context, codes, &data, &scales),
        }
    }

    fn owns_input(&self, index: usize) -> bool {
        index >= 2
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }
}

impl QuantizedMatMulN {
    /// Where each product's columns start.
    fn starts(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.columns.iter().scan(0, |next, n| {
            let start = *next;
            *next += n;
            Some((start, *n))
        })
    }

    /// All products of some rows, side by side.
    fn multiply(&self, context: &CpuContext, codes: &[i8], scales: &[f32], all: &mut [f32]) {
        qgemm(context.pool, Isa::best(), codes, scales, &self.weight, None, all, false);
    }

    /// The outputs of a single row are parts of one buffer.
    fn one_row(
        &self,
        context: &CpuContext,
        codes: &Tensor,
        data: &[i8],
        scales: &[f32],
    ) -> Result<Vec<Tensor>, OpError> {
        let shape = rows::with_last(codes, self.weight.n());
        let all = rows::f32_output(context, shape, |all| {
            self.multiply(context, data, scales, all);
        })?;
        let part = |(start, n): (usize, usize)| {
            let bytes = all.bytes().slice(4 * start..4 * (start + n));
            Ok(Tensor::new(DataType::F32, rows::with_last(codes, n), bytes)?)
        };
        self.starts().map(part).collect()
    }

    /// The outputs of several rows are copied apart, a few rows at a time so that they are still
    /// in the cache.
    fn rows(
        &self,
        context: &CpuContext,
        codes: &Tensor,
        data: &[i8],
        scales: &[f32],
    ) -> Result<Vec<Tensor>, OpError> {
        let (k, width) = (self.weight.k(), self.weight.n());
        let outputs = self.columns.iter().map(|n| context.f32s(scales.len() * n));
        let mut outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let mut scratch = context.f32s(ROWS.min(scales.len()) * width)?;
        for (i, scales) in scales.chunks(ROWS).enumerate() {
            let (first, n_rows) = (i * ROWS, scales.len());
            let all = &mut scratch.as_mut::<f32>()[..n_rows * width];
            self.multiply(context, &data[first * k..(first + n_rows) * k], scales, all);
            for (output, (start, n)) in outputs.iter_mut().zip(self.starts()) {
                let output = &mut output.as_mut::<f32>()[first * n..(first + n_rows) * n];
                copy_columns(context, all, width, start, n, output);
            }
        }
        let tensor =
            |(buffer, n): (_, &usize)| context.f32_tensor(buffer, rows::with_last(codes, *n));
        outputs.into_iter().zip(&self.columns).map(tensor).collect()
    }
}

/// Copies columns `start..start + n` of rows of `width` to `output`.
fn copy_columns(
    context: &CpuContext,
    all: &[f32],
    width: usize,
    start: usize,
    n: usize,
    output: &mut [f32],
) {
    for_each_part(context, output, n, |first, part| {
        for (i, row) in part.chunks_exact_mut(n.max(1)).enumerate() {
            let from = (first / n.max(1) + i) * width + start;
            row.copy_from_slice(&all[from..from + n]);
        }
    });
}
