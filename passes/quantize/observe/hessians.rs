//! Collecting the Hessians of sites.

use planish_ir::{DataType, Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::{Observed, add_output};
use crate::quantize::QuantizeError;
use crate::sites::{Layout, SiteId};

/// A copy of the model (weights are shared) with one more output for each of `sites`: Xᵀ · X, f32
/// `[K, K]`, of what the site's layers read in that model, over batch and sequence. Padded
/// positions count like the others. Summed over runs by [`super::super::Hessians::update`], that is
/// what GPTQ needs.
///
/// The model may be in any state of quantisation: transforms are in what is read if they are in
/// the model, and where activations are quantised, X is codes · scale. To have the Hessians that
/// GPTQ should see, quantise a copy of the model with weights of 16 bits (of all blocks, or of
/// those that are not yet quantised themselves).
///
/// # Errors
/// [`QuantizeError::StaleLayout`] if a site is not in the model.
pub fn observe_hessians(
    model: &Model,
    layout: &Layout,
    sites: &[SiteId],
) -> Result<Observed, QuantizeError> {
    let mut model = model.clone();
    let graph = &mut model.graph;
    let mut outputs = Vec::new();
    for id in sites {
        let x = activation(graph, layout, *id)?;
        let n = layout.site(*id).channels;
        let gram = add_gram(graph, x, n, &format!("planish.site_{}.hessian", id.0));
        outputs.push((*id, add_output(graph, gram, &[n, n])));
    }
    Ok(Observed { model, outputs })
}

/// Adds Xᵀ · X, f32 `[K, K]`, of an activation `[…, K]` of `channels` = K channels.
pub fn add_gram(graph: &mut Graph, x: ValueId, channels: usize, name: &str) -> ValueId {
    let shape = Tensor::from_vec(&[2], vec![-1, channels as i64]);
    let shape = graph.add_constant(&format!("{name}.shape"), shape);
    let rows = Node::new("Reshape", vec![Some(x), Some(shape)]);
    let rows = graph.add_op(&format!("{name}.rows"), rows);
    let columns = Node::new("Transpose", vec![Some(rows)]).with("perm", vec![1i64, 0]);
    let columns = graph.add_op(&format!("{name}.columns"), columns);
    graph.add_op(name, Node::new("MatMul", vec![Some(columns), Some(rows)]))
}

/// What the layers of a site read, in floating point.
fn activation(graph: &mut Graph, layout: &Layout, id: SiteId) -> Result<ValueId, QuantizeError> {
    let stale = || QuantizeError::StaleLayout { layer: format!("site {}", id.0) };
    let first = layout.sites.get(id.0).and_then(|site| site.linears.first()).ok_or_else(stale)?;
    let linear = layout.linear(*first);
    let product = product(graph, linear.output, linear.bias.is_some()).ok_or_else(stale)?;
    let node = graph.node(product);
    if node.is("MatMul") {
        return node.input(0).ok_or_else(stale);
    }
    let is_product = node.domain == DOMAIN
        && ["QuantizedMatMul", "BlockQuantizedMatMul"].contains(&node.op_type.as_str());
    let (Some(codes), Some(scale), true) = (node.input(0), node.input(1), is_product) else {
        return Err(stale());
    };
    Ok(dequantize_activation(graph, codes, scale, "planish.site"))
}

/// The node that multiplies by the weight of a layer with the given output.
fn product(graph: &Graph, output: ValueId, has_bias: bool) -> Option<NodeId> {
    if !graph.contains_value(output) {
        return None;
    }
    let (node, _) = graph.producer(output)?;
    if !has_bias || !graph.node(node).is("Add") {
        return Some(node);
    }
    let mut terms = graph.node(node).inputs.iter().flatten();
    terms.find_map(|term| Some(graph.producer(*term)?.0))
}

/// `Mul(Cast(codes), scale)`.
pub(in crate::quantize) fn dequantize_activation(
    graph: &mut Graph,
    codes: ValueId,
    scale: ValueId,
    name: &str,
) -> ValueId {
    let name = format!("{name}_rounded");
    let to = i64::from(DataType::F32.to_onnx());
    let codes = graph.add_op(&name, Node::new("Cast", vec![Some(codes)]).with("to", to));
    graph.add_op(&name, Node::new("Mul", vec![Some(codes), Some(scale)]))
}
