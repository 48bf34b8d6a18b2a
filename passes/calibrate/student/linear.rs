//! The weight of a linear layer as its transforms and its quantiser leave it.

use std::ops::Range;

use planish_ir::{DataType, Node, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::{LinearSlots, Writer};
use crate::calibrate::builder::Builder;
use crate::calibrate::{CalibrateError, ParameterKind};
use crate::half::{cast_value, is_half};
use crate::sites::{LinearId, LinearLayer};

/// What the transforms around a layer change in it; the differentiable counterpart of
/// `transform::fold::LinearFold`.
#[derive(Clone, Debug, Default)]
pub(super) struct Fold {
    /// δ, which was subtracted from what the layer reads, `[K]`.
    pub row_shift: Option<ValueId>,
    /// What each row is multiplied by, `[K]`.
    pub row_scale: Option<ValueId>,
    /// What the rows are multiplied by.
    pub rows: Option<RowFold>,
    /// Changes of output columns, in order.
    pub columns: Vec<(Range<usize>, ColumnFold)>,
}

/// A change of all rows: W becomes (L ⊗ R) · W.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowFold {
    /// L, the inverse of the site's first factor, `[n₁, n₁]`; none is the identity.
    pub left: Option<ValueId>,
    /// R, that of the second, `[n₂, n₂]`.
    pub right: Option<ValueId>,
    /// n₁ and n₂.
    pub sizes: (usize, usize),
}

/// A change of some output columns.
#[derive(Clone, Copy, Debug)]
pub(super) enum ColumnFold {
    /// Divided by a value each.
    Divide(ValueId),
    /// Each run of `size` columns times the matrix.
    Heads {
        /// `[size, size]`.
        matrix: ValueId,
        /// Columns of a head.
        size: usize,
    },
}

impl Writer<'_> {
    /// The values of a layer's weight.
    pub(super) fn weight_of(&self, linear: &LinearLayer) -> Result<Vec<f32>, CalibrateError> {
        let graph = &self.block.model.graph;
        let name = || graph.value(linear.weight).name.clone();
        let tensor = graph.constant(linear.weight);
        let tensor = tensor.ok_or_else(|| CalibrateError::NotConstant { weight: name() })?;
        let data = tensor.to_f32_vec();
        data.map_err(|error| CalibrateError::Weight { weight: name(), error })
    }

    /// A weight in f32. One that is stored in 16 bits is cast when the block is compiled, so that
    /// no more than the blocks at work hold it in 32.
    fn floats_of(&mut self, weight: ValueId) -> ValueId {
        let stored = self.graph().value(weight).dtype();
        match stored.filter(|dtype| is_half(*dtype)) {
            Some(_) => cast_value(self.builder.graph, weight, DataType::F32),
            None => weight,
        }
    }

    /// Lets the layer read its weight (and bias) through folds and quantiser.
    pub(super) fn write_linear(&mut self, id: LinearId) -> Result<(), CalibrateError> {
        let linear = self.block.layout.linear(id).clone();
        let mut slots = LinearSlots::default();
        let mut weight = self.floats_of(linear.weight);
        if self.options.weights && self.options.bits.quantizes_weights() {
            let shape = [linear.in_features, linear.out_features];
            let start = Tensor::from_vec(&shape, self.weight_of(&linear)?);
            let (slot, value) = self.builder.parameter("weight", ParameterKind::Weight, start);
            (slots.weight, weight) = (Some(slot), value);
        }
        let fold = self.folds.get(&id).cloned().unwrap_or_default();
        self.write_bias(&linear, weight, &fold);
        weight = fold_weight(&mut self.builder, weight, &linear, &fold);
        self.folded.insert(id, weight);
        if self.options.bits.quantizes_weights() {
            weight = self.round_weight(weight, &linear, &mut slots)?;
        }
        self.builder.graph.set_input(linear.node, 1, Some(weight));
        self.linears.insert(id, slots);
        Ok(())
    }

    /// Lets the layer read its bias b through the folds: b + δ·W with the weight before them, then
    /// the changes of columns.
    fn write_bias(&mut self, linear: &LinearLayer, weight: ValueId, fold: &Fold) {
        let changes = fold.row_shift.is_some() || !fold.columns.is_empty();
        let Some(bias) = linear.bias.filter(|_| changes) else { return };
        let (k, n) = (linear.in_features, linear.out_features);
        let mut row = self.builder.reshape(bias.value, &[1, n as i64]);
        if let Some(shift) = fold.row_shift {
            // No `MatMul`: learning rounds the factors of those, which an offset does not bear.
            let shift = self.builder.reshape(shift, &[k as i64, 1]);
            let product = self.builder.op("Mul", &[shift, weight]);
            let rows = self.builder.constant(Tensor::from_vec(&[1], vec![0i64]));
            let sum = self.builder.op("ReduceSum", &[product, rows]);
            row = self.builder.op("Add", &[row, sum]);
        }
        let folded = fold_columns(&mut self.builder, row, 1, n, &fold.columns);
        let flat = self.builder.reshape(folded, &[n as i64]);
        self.builder.graph.set_input(bias.node, bias.index, Some(flat));
    }

    fn round_weight(
        &mut self,
        weight: ValueId,
        linear: &LinearLayer,
        slots: &mut LinearSlots,
    ) -> Result<ValueId, CalibrateError> {
        let (k, n) = (linear.in_features, linear.out_features);
        let shape = match self.options.group_size {
            None => vec![n],
            Some(size) if size > 0 && k.is_multiple_of(size) => vec![k / size, n],
            Some(group_size) => {
                let layer = self.graph().node(linear.node).describe();
                return Err(CalibrateError::GroupSize { layer, channels: k, group_size });
            }
        };
        let (clip, ratios) = self.add_clip("weight_clip", &shape);
        slots.clip = Some(clip);
        let inputs = vec![Some(weight), Some(ratios[0]), Some(ratios[1])];
        let node = Node::new("FakeQuantizeColumns", inputs)
            .with_domain(DOMAIN)
            .with("bits", i64::from(self.options.bits.weights))
            .with("block_size", self.options.group_size.unwrap_or(0) as i64);
        Ok(self.builder.node("weight_rounded", node))
    }
}

/// The weight `[K, N]` after its folds.
fn fold_weight(
    builder: &mut Builder,
    mut weight: ValueId,
    linear: &LinearLayer,
    fold: &Fold,
) -> ValueId {
    let (k, n) = (linear.in_features, linear.out_features);
    if let Some(scale) = fold.row_scale {
        let column = builder.reshape(scale, &[k as i64, 1]);
        weight = builder.op("Mul", &[weight, column]);
    }
    if let Some(RowFold { left, right, sizes: (n1, n2) }) = fold.rows {
        let (n1, n2, n) = (n1 as i64, n2 as i64, n as i64);
        if let Some(left) = left {
            let wide = builder.reshape(weight, &[n1, n2 * n]);
            weight = builder.op("MatMul", &[left, wide]);
        }
        if let Some(right) = right {
            let by_block = builder.reshape(weight, &[n1, n2, n]);
            weight = builder.op("MatMul", &[right, by_block]);
        }
        weight = builder.reshape(weight, &[n1 * n2, n]);
    }
    fold_columns(builder, weight, k, n, &fold.columns)
}

fn fold_columns(
    builder: &mut Builder,
    mut value: ValueId,
    n_rows: usize,
    n_columns: usize,
    folds: &[(Range<usize>, ColumnFold)],
) -> ValueId {
    for (columns, fold) in folds {
        value = builder.on_columns(value, n_columns, columns.clone(), |builder, part| match fold {
            ColumnFold::Divide(scale) => builder.op("Div", &[part, *scale]),
            ColumnFold::Heads { matrix, size } => {
                let heads = builder.reshape(part, &[-1, *size as i64]);
                let product = builder.op("MatMul", &[heads, *matrix]);
                builder.reshape(product, &[n_rows as i64, columns.len() as i64])
            }
        });
    }
    value
}
