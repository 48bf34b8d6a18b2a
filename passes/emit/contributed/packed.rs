//! Queries, keys and values of one product.

use planish_ir::{DataType, Graph, Node, NodeId, Tensor, ValueId};
use planish_kernels::MICROSOFT;

/// Attributes that packed products must agree in.
const SAME: [&str; 4] = ["K", "bits", "block_size", "accuracy_level"];

/// Lets every `GroupQueryAttention` read its queries, keys and values as one value, where they are
/// the parts of one, or come from products of the same activation, which become one product.
/// Returns how many.
pub(super) fn pack_projections(graph: &mut Graph) -> usize {
    let found: Vec<NodeId> = graph
        .node_ids()
        .filter(|id| graph.node(*id).is_of(MICROSOFT, "GroupQueryAttention"))
        .collect();
    let pack = |id: &NodeId| {
        let node = graph.node(*id);
        let parts = [node.input(0)?, node.input(1)?, node.input(2)?];
        let whole = split_source(graph, parts).or_else(|| join_products(graph, parts))?;
        graph.set_input(*id, 0, Some(whole));
        graph.set_input(*id, 1, None);
        graph.set_input(*id, 2, None);
        Some(())
    };
    let n_packed = found.iter().filter_map(pack).count();
    graph.remove_dead();
    n_packed
}

/// What the three are the parts of, in this order and nothing else.
fn split_source(graph: &Graph, parts: [ValueId; 3]) -> Option<ValueId> {
    let (id, _) = graph.producer(parts[0])?;
    let node = graph.node(id);
    let is_last = matches!(node.int("axis", 0), -1 | 2);
    let fits = node.is("Split") && is_last && node.outputs == parts.map(Some);
    node.input(0).filter(|_| fits)
}

/// One product in the place of three that nothing else reads.
fn join_products(graph: &mut Graph, parts: [ValueId; 3]) -> Option<ValueId> {
    let product = |value: &ValueId| {
        let node = graph.producer_node(*value)?;
        let alone = graph.users(*value).len() == 1 && !graph.is_output(*value);
        (alone && node.is_of(MICROSOFT, "MatMulNBits")).then(|| node.clone())
    };
    let products: Vec<Node> = parts.iter().filter_map(product).collect();
    let [first, second, third] = &products[..] else { return None };
    let agree = |other: &Node| {
        let same = SAME.iter().all(|name| first.int(name, 0) == other.int(name, 0));
        let biased = first.input(5).is_some() == other.input(5).is_some();
        same && biased && first.input(0) == other.input(0) && other.input(3).is_none()
    };
    if !agree(second) || !agree(third) || first.input(3).is_some() {
        return None;
    }
    let name = format!("{}_qkv", graph.value(parts[0]).name);
    let joined = |graph: &Graph, index: usize| {
        let tensors = products.iter().map(|node| graph.constant(node.input(index)?));
        concatenate(&tensors.collect::<Option<Vec<&Tensor>>>()?)
    };
    let (codes, scales) = (joined(graph, 1)?, joined(graph, 2)?);
    let bias = match first.input(5) {
        Some(_) => Some(joined(graph, 5)?),
        None => None,
    };
    let codes = graph.add_constant(&format!("{name}_blocks"), codes);
    let scales = graph.add_constant(&format!("{name}_scales"), scales);
    let mut inputs = vec![first.input(0), Some(codes), Some(scales)];
    if let Some(bias) = bias {
        let bias = graph.add_constant(&format!("{name}_bias"), bias);
        inputs.extend([None, None, Some(bias)]);
    }
    let n = products.iter().map(|node| node.int("N", 0)).sum::<i64>();
    let mut node = Node::new("MatMulNBits", inputs).with_domain(MICROSOFT).with_name(name.clone());
    node.attributes = first.attributes.clone();
    Some(graph.add_op(&name, node.with("N", n)))
}

/// Tensors one after the other along the first axis.
fn concatenate(tensors: &[&Tensor]) -> Option<Tensor> {
    let first = tensors.first()?;
    let whole_bytes = first.dtype().bits() >= 8 && first.dtype() != DataType::String;
    let fits = |t: &&Tensor| t.dtype() == first.dtype() && t.shape()[1..] == first.shape()[1..];
    if !whole_bytes || !tensors.iter().all(fits) {
        return None;
    }
    let mut shape = first.shape().to_vec();
    shape[0] = tensors.iter().map(|t| t.shape()[0]).sum();
    let bytes: Vec<u8> = tensors.iter().flat_map(|t| t.bytes().iter().copied()).collect();
    Tensor::new(first.dtype(), shape, bytes.into()).ok()
}
