//! Rewriting the linear layers of a site.

use planish_ir::{Graph, Node, NodeId, ValueId};
use planish_kernels::DOMAIN;

use super::linear::{Activation, ErrorSums, quantize_linear};
use super::observe::dequantize_activation;
use super::rounding::SiteRounding;
use super::{Calibration, Clip, QuantizeError, QuantizeOptions, QuantizeReport};
use crate::sites::{Layout, SiteId};
use crate::unread::remove_unread;

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
    calibration: &Calibration,
    options: &QuantizeOptions,
    sums: &mut ErrorSums,
) -> Result<(), QuantizeError> {
    let site = layout.site(id);
    let first = site.linears.first().map(|id| layout.linear(*id).node);
    let Some(x) = first.and_then(|node| graph.node(node).input(0)) else { return Ok(()) };
    let bits = options.bits;
    let rounding = match bits.quantizes_weights() {
        true => Some(SiteRounding::new(graph, layout, id, calibration, options)?),
        false => None,
    };
    let clip = calibration.clips.activation(id);
    if bits.quantizes_activations() && !clip.is_valid() {
        let place = layout.describe_site(graph, id);
        return Err(QuantizeError::Clip { place, clip });
    }
    let activation =
        bits.quantizes_activations().then(|| quantize_activation(graph, x, bits.activations, clip));
    if let (Some(Activation { codes, scale }), false) = (activation, bits.quantizes_weights()) {
        let name = graph.value(x).name.clone();
        let float = dequantize_activation(graph, codes, scale, &name);
        for linear in &site.linears {
            graph.set_input(layout.linear(*linear).node, 0, Some(float));
        }
    }
    for (linear, rounding) in site.linears.iter().flat_map(|id| Some((id, rounding.as_ref()?))) {
        let layer =
            quantize_linear(graph, layout, *linear, activation, rounding, options.group_size)?;
        sums.error += layer.error;
        sums.norm += layer.norm;
    }
    remove_transform(graph, x);
    Ok(())
}

/// Quantises x per token; where x is the output of a transform, in one operator with that.
fn quantize_activation(graph: &mut Graph, x: ValueId, bits: u8, clip: Clip) -> Activation {
    let transform = graph.producer_node(x).filter(|node| node.domain == DOMAIN);
    let (op_type, inputs) = match transform.map(|node| (node.op_type.as_str(), &node.inputs)) {
        Some(("Transform", inputs)) => ("TransformQuantize", inputs.clone()),
        Some(("TransformLeft", inputs)) => ("TransformLeftQuantize", inputs.clone()),
        _ => ("DynamicQuantize", vec![Some(x)]),
    };
    let node = Node::new(op_type, inputs)
        .with_domain(DOMAIN)
        .with("bits", i64::from(bits))
        .with("clip_min", clip.min)
        .with("clip_max", clip.max);
    let name = format!("{}_quantized", graph.value(x).name);
    let outputs = graph.add_op_n(&name, node, 2);
    Activation { codes: outputs[0], scale: outputs[1] }
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
