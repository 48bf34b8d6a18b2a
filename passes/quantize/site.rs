//! Rewriting the linear layers of a site.

use planish_ir::{DataType, Graph, Node, NodeId, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::weight::{QuantizedWeight, WeightFormat, quantize_columns};
use super::{QuantizeError, QuantizeOptions, QuantizeReport};
use crate::sites::{Layout, LinearLayer, SiteId};
use crate::unread::remove_unread;

/// Squared error and norm of weights that were rounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorSums {
    pub(super) error: f64,
    pub(super) norm: f64,
}

/// Rewrites the layers of a site for the bits that `options` give:
///
/// - weights alone: `MatMul(x, DequantizeLinear(codes, scale))`;
/// - activations: one `DynamicQuantize` for the site, which takes a `Transform` before it in;
///   the layers become `QuantizedMatMul` or `BlockQuantizedMatMul`;
/// - activations alone: `MatMul(Mul(Cast(codes), scale), W)`.
pub(super) fn quantize_site(
    graph: &mut Graph,
    layout: &Layout,
    id: SiteId,
    options: &QuantizeOptions,
    sums: &mut ErrorSums,
) -> Result<(), QuantizeError> {
    let site = layout.site(id);
    let first = site.linears.first().map(|id| layout.linear(*id).node);
    let Some(x) = first.and_then(|node| graph.node(node).input(0)) else { return Ok(()) };
    let bits = options.bits;
    let activation =
        bits.quantizes_activations().then(|| quantize_activation(graph, x, bits.activations));
    if let (Some(activation), false) = (&activation, bits.quantizes_weights()) {
        let float = dequantize_activation(graph, x, activation);
        for linear in &site.linears {
            graph.set_input(layout.linear(*linear).node, 0, Some(float));
        }
    }
    for linear in site.linears.iter().filter(|_| bits.quantizes_weights()) {
        quantize_linear(graph, layout.linear(*linear), activation, options, sums)?;
    }
    remove_transform(graph, x);
    Ok(())
}

/// Codes and scale of an activation.
#[derive(Clone, Copy)]
struct Activation {
    codes: ValueId,
    scale: ValueId,
}

/// Quantises x per token; where x is the output of a transform, in one operator with that.
fn quantize_activation(graph: &mut Graph, x: ValueId, bits: u8) -> Activation {
    let transform = graph.producer_node(x).filter(|node| node.domain == DOMAIN);
    let (op_type, inputs) = match transform.map(|node| (node.op_type.as_str(), &node.inputs)) {
        Some(("Transform", inputs)) => ("TransformQuantize", inputs.clone()),
        Some(("TransformLeft", inputs)) => ("TransformLeftQuantize", inputs.clone()),
        _ => ("DynamicQuantize", vec![Some(x)]),
    };
    let node = Node::new(op_type, inputs)
        .with_domain(DOMAIN)
        .with("bits", i64::from(bits))
        .with("clip_min", 1.0f32)
        .with("clip_max", 1.0f32);
    let name = format!("{}_quantized", graph.value(x).name);
    let outputs = graph.add_op_n(&name, node, 2);
    Activation { codes: outputs[0], scale: outputs[1] }
}

fn dequantize_activation(graph: &mut Graph, x: ValueId, activation: &Activation) -> ValueId {
    let name = format!("{}_rounded", graph.value(x).name);
    let to = i64::from(DataType::F32.to_onnx());
    let codes = graph.add_op(&name, Node::new("Cast", vec![Some(activation.codes)]).with("to", to));
    graph.add_op(&name, Node::new("Mul", vec![Some(codes), Some(activation.scale)]))
}

/// Removes the transform that wrote x, if nothing reads x any more.
fn remove_transform(graph: &mut Graph, x: ValueId) {
    let transform = graph.producer(x).filter(|(id, _)| {
        let node = graph.node(*id);
        node.domain == DOMAIN && node.op_type.starts_with("Transform")
    });
    if let Some((id, _)) = transform.filter(|_| graph.users(x).is_empty() && !graph.is_output(x)) {
        graph.remove_node(id);
        remove_unread(graph, x);
    }
}

fn quantize_linear(
    graph: &mut Graph,
    linear: &LinearLayer,
    activation: Option<Activation>,
    options: &QuantizeOptions,
    sums: &mut ErrorSums,
) -> Result<(), QuantizeError> {
    let node = graph.node(linear.node).clone();
    let stale = || QuantizeError::StaleLayout { layer: node.describe() };
    let weight = node.input(1).filter(|_| node.is("MatMul")).ok_or_else(stale)?;
    let tensor = graph.constant(weight).ok_or_else(stale)?;
    let quantized = round_weight(graph, weight, tensor, &node, options)?;
    sums.error += quantized.squared_error;
    sums.norm += quantized.squared_norm;
    let [codes, scale] = add_codes(graph, weight, quantized);
    match activation {
        Some(activation) => {
            let product = product_of_codes(&node, activation, codes, scale, options.group_size);
            graph.replace_node(linear.node, product)?;
        }
        None => {
            let float = dequantize(graph, codes, scale, 1, options.group_size);
            graph.set_input(linear.node, 1, Some(float));
        }
    }
    remove_unread(graph, weight);
    Ok(())
}

fn round_weight(
    graph: &Graph,
    weight: ValueId,
    tensor: &Tensor,
    node: &Node,
    options: &QuantizeOptions,
) -> Result<QuantizedWeight, QuantizeError> {
    let name = || graph.value(weight).name.clone();
    let [channels, n_columns] = tensor.shape()[..] else {
        return Err(QuantizeError::StaleLayout { layer: node.describe() });
    };
    let group_size = options.group_size;
    if let Some(group_size) = group_size.filter(|g| *g == 0 || !channels.is_multiple_of(*g)) {
        return Err(QuantizeError::GroupSize { layer: node.describe(), channels, group_size });
    }
    let data = tensor
        .as_slice::<f32>()
        .map_err(|error| QuantizeError::Weight { weight: name(), error })?;
    let (bits, clip_search) = (options.bits.weights, options.clip_search);
    quantize_columns(&data, n_columns, WeightFormat { bits, group_size, clip_search })
        .map_err(|_| QuantizeError::NotFinite { weight: name() })
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

/// Bytes of all constants of a graph.
pub(super) fn constant_bytes(graph: &Graph) -> usize {
    graph.value_ids().filter_map(|v| Some(graph.value(v).constant.as_ref()?.bytes().len())).sum()
}

/// Notes the layers that the rewriting did not reach.
pub(super) fn note_left_alone(layout: &Layout, report: &mut QuantizeReport) {
    report.n_left_alone = layout.left_alone.len();
    let notes = layout.left_alone.iter();
    report.notes.extend(notes.map(|left| format!("{}: {}", left.node, left.reason)));
}

/// The node of a head, checked to be what the layout says.
pub(super) fn checked_node(graph: &Graph, id: NodeId) -> Result<Node, QuantizeError> {
    if graph.contains_node(id) && graph.node(id).is("MatMul") {
        return Ok(graph.node(id).clone());
    }
    Err(QuantizeError::StaleLayout { layer: "the head".to_owned() })
}
