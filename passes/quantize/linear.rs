//! Rewriting one linear layer for codes.

use planish_ir::{Graph, Node, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::QuantizeError;
use super::rounding::SiteRounding;
use super::weight::QuantizedWeight;
use crate::sites::{Layout, LinearId};
use crate::unread::remove_unread;

/// Codes and scale of an activation.
#[derive(Clone, Copy)]
pub(super) struct Activation {
    pub(super) codes: ValueId,
    pub(super) scale: ValueId,
}

/// Squared error and norm of weights that were rounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorSums {
    pub(super) error: f64,
    pub(super) norm: f64,
}

/// Rounds the weight of a layer and lets it be multiplied with the codes of the activation, or with
/// the activation itself where that is not quantised.
pub(super) fn quantize_linear(
    graph: &mut Graph,
    layout: &Layout,
    id: LinearId,
    activation: Option<Activation>,
    rounding: &SiteRounding,
    group_size: Option<usize>,
) -> Result<ErrorSums, QuantizeError> {
    let linear = layout.linear(id);
    let node = graph.node(linear.node).clone();
    let stale = || QuantizeError::StaleLayout { layer: node.describe() };
    let weight = node.input(1).filter(|_| node.is("MatMul")).ok_or_else(stale)?;
    let tensor = graph.constant(weight).ok_or_else(stale)?;
    let quantized = round_weight(graph, id, weight, tensor, &node, rounding, group_size)?;
    let sums = ErrorSums { error: quantized.squared_error, norm: quantized.squared_norm };
    let [codes, scale] = add_codes(graph, weight, quantized);
    match activation {
        Some(activation) => {
            let product = product_of_codes(&node, activation, codes, scale, group_size);
            graph.replace_node(linear.node, product)?;
        }
        None => {
            let float = dequantize(graph, codes, scale, 1, group_size);
            graph.set_input(linear.node, 1, Some(float));
        }
    }
    remove_unread(graph, weight);
    Ok(sums)
}

fn round_weight(
    graph: &Graph,
    id: LinearId,
    weight: ValueId,
    tensor: &Tensor,
    node: &Node,
    rounding: &SiteRounding,
    group_size: Option<usize>,
) -> Result<QuantizedWeight, QuantizeError> {
    let name = || graph.value(weight).name.clone();
    let [channels, n_columns] = tensor.shape()[..] else {
        return Err(QuantizeError::StaleLayout { layer: node.describe() });
    };
    if let Some(group_size) = group_size.filter(|g| *g == 0 || !channels.is_multiple_of(*g)) {
        return Err(QuantizeError::GroupSize { layer: node.describe(), channels, group_size });
    }
    let data = tensor.as_f32().map_err(|error| QuantizeError::Weight { weight: name(), error })?;
    rounding
        .round(id, &data, n_columns)
        .map_err(|error| QuantizeError::Rounding { weight: name(), error })
}

/// Adds codes and scale as constants named after the weight.
pub(super) fn add_codes(
    graph: &mut Graph,
    weight: ValueId,
    quantized: QuantizedWeight,
) -> [ValueId; 2] {
    let name = graph.value(weight).name.clone();
    [(quantized.codes, "quantized"), (quantized.scale, "scale")]
        .map(|(tensor, suffix)| graph.add_constant(&format!("{name}_{suffix}"), tensor))
}

/// `DequantizeLinear` with one scale for each position of `axis`, or for each group along axis 0.
pub(super) fn dequantize(
    graph: &mut Graph,
    codes: ValueId,
    scale: ValueId,
    axis: i64,
    group_size: Option<usize>,
) -> ValueId {
    let name = format!("{}_float", graph.value(codes).name);
    let node = Node::new("DequantizeLinear", vec![Some(codes), Some(scale)]);
    graph.add_op(
        &name,
        match group_size {
            None => node.with("axis", axis),
            Some(size) => node.with("axis", 0i64).with("block_size", size as i64),
        },
    )
}

/// The integer product that takes the place of `matmul`.
fn product_of_codes(
    matmul: &Node,
    activation: Activation,
    codes: ValueId,
    scale: ValueId,
    group_size: Option<usize>,
) -> Node {
    let inputs = [activation.codes, activation.scale, codes, scale].map(Some).to_vec();
    let node = match group_size {
        None => Node::new("QuantizedMatMul", inputs),
        Some(size) => Node::new("BlockQuantizedMatMul", inputs).with("block_size", size as i64),
    };
    let outputs = matmul.outputs.clone();
    node.with_domain(DOMAIN).with_name(matmul.name.clone()).with_outputs(outputs)
}
