//! Products with weights of codes: `MatMulNBits`.

use std::collections::HashMap;

use planish_ir::{Graph, Node, NodeId, ValueId};
use planish_kernels::MICROSOFT;

use super::blocks::{BlockWeight, Layout};
use super::{Contributed, refused};
use crate::emit::EmitError;

/// The `accuracy_level` at which activations are rounded to 8 bits, block by block.
const ROUNDS_ACTIVATIONS: i64 = 4;

/// Weights that were packed before, by the value of their codes: a head and an embedding share
/// theirs, and the file holds it once.
#[derive(Default)]
pub(super) struct Packed(HashMap<ValueId, PackedWeight>);

/// A packed weight among the constants of the graph.
#[derive(Clone)]
pub(super) struct PackedWeight {
    pub(super) weight: BlockWeight,
    pub(super) codes: ValueId,
    pub(super) scales: ValueId,
}

impl Packed {
    /// The constants for the weight that is packed from `codes`, made by `make` at first.
    pub(super) fn get(
        &mut self,
        graph: &mut Graph,
        codes: ValueId,
        make: impl FnOnce(&Graph) -> Result<BlockWeight, String>,
    ) -> Result<PackedWeight, String> {
        if let Some(packed) = self.0.get(&codes) {
            return Ok(packed.clone());
        }
        let weight = make(graph)?;
        let name = graph.value(codes).name.clone();
        let packed = PackedWeight {
            codes: graph.add_constant(&format!("{name}_blocks"), weight.codes.clone()),
            scales: graph.add_constant(&format!("{name}_scales"), weight.scales.clone()),
            weight,
        };
        self.0.insert(codes, packed.clone());
        Ok(packed)
    }
}

/// `MatMul(x, DequantizeLinear(…))`, the weight transposed or not, and a bias behind it →
/// `MatMulNBits`. Returns how many.
pub(super) fn lower_products(
    graph: &mut Graph,
    options: Contributed,
    packed: &mut Packed,
) -> Result<usize, EmitError> {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.contains_node(id) {
            continue;
        }
        let Some((dequantize, layout)) = dequantized_weight(graph, graph.node(id)) else {
            continue;
        };
        lower(graph, options, packed, id, dequantize, layout)
            .map_err(|reason| refused(graph, id, reason))?;
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// The `DequantizeLinear` of the right side of a product, and which way its codes lie.
fn dequantized_weight(graph: &Graph, node: &Node) -> Option<(NodeId, Layout)> {
    let right = node.input(1).filter(|_| node.is("MatMul"))?;
    let (mut id, _) = graph.producer(right)?;
    let mut layout = Layout::InputsFirst;
    if graph.node(id).is("Transpose") {
        let swaps = graph.node(id).ints("perm").is_none_or(|perm| perm == [1, 0]);
        id = graph.producer(graph.node(id).input(0).filter(|_| swaps)?)?.0;
        layout = Layout::OutputsFirst;
    }
    let is_weight = graph.node(id).input(0).is_some_and(|codes| graph.constant(codes).is_some());
    (graph.node(id).is("DequantizeLinear") && is_weight).then_some((id, layout))
}

fn lower(
    graph: &mut Graph,
    options: Contributed,
    packed: &mut Packed,
    id: NodeId,
    dequantize: NodeId,
    layout: Layout,
) -> Result<(), String> {
    let dequantize = graph.node(dequantize).clone();
    let codes = dequantize.input(0).ok_or("its weight has no codes")?;
    let make = |graph: &Graph| BlockWeight::of_dequantized(graph, &dequantize, layout);
    let PackedWeight { weight, codes, scales } = packed.get(graph, codes, make)?;
    let node = graph.node(id).clone();
    let mut inputs = vec![node.input(0), Some(codes), Some(scales)];
    let bias = find_bias(graph, &node, weight.n);
    let mut outputs = node.outputs.clone();
    if let Some((add, bias)) = bias {
        inputs.extend([None, None, Some(bias)]);
        outputs = graph.remove_node(add).outputs;
    }
    let product = Node::new("MatMulNBits", inputs)
        .with_domain(MICROSOFT)
        .with_name(node.name.clone())
        .with("K", weight.k as i64)
        .with("N", weight.n as i64)
        .with("bits", weight.bits as i64)
        .with("block_size", weight.block_size as i64)
        .with("accuracy_level", accuracy_level(options, weight.bits))
        .with_outputs(outputs);
    graph.replace_node(id, product).map_err(|error| error.to_string())?;
    Ok(())
}

/// ONNX Runtime multiplies 8-bit weights with 8-bit activations, or else makes floats of the whole
/// weight in every run, which costs a decoding step several times what all the rest does.
fn accuracy_level(options: Contributed, bits: usize) -> i64 {
    if bits == 8 { ROUNDS_ACTIVATIONS } else { options.accuracy_level }
}

/// The `Add` of a constant vector that alone reads the product.
fn find_bias(graph: &Graph, product: &Node, n: usize) -> Option<(NodeId, ValueId)> {
    let output = product.output(0).filter(|output| !graph.is_output(*output))?;
    let [(add, index)] = graph.users(output)[..] else { return None };
    let bias = graph.node(add).input(1usize.checked_sub(index)?)?;
    let fits = graph.node(add).is("Add") && graph.constant(bias)?.shape() == [n];
    fits.then_some((add, bias))
}
