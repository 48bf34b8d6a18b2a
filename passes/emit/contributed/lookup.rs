//! Embeddings of codes: `GatherBlockQuantized`.

use planish_ir::{Graph, Node, NodeId, Tensor, ValueId};
use planish_kernels::MICROSOFT;

use super::blocks::{BlockWeight, Layout};
use super::products::Packed;

/// `Mul(Cast(Gather(codes, ids)), Gather(scales, ids))`, one scale a row →
/// `GatherBlockQuantized` on the constants that the head reads. A table whose rows do not make
/// whole blocks stays as it is. Returns how many.
pub(super) fn lower_lookups(graph: &mut Graph, packed: &mut Packed) -> usize {
    let nodes: Vec<NodeId> = graph.node_ids().collect();
    let lower = |id: NodeId| lower(graph, packed, id);
    let n_rewrites = nodes.into_iter().filter_map(lower).count();
    graph.remove_dead();
    n_rewrites
}

fn lower(graph: &mut Graph, packed: &mut Packed, id: NodeId) -> Option<()> {
    let node = graph.node(id).clone();
    let lookup = Lookup::find(graph, &node)?;
    let scale = lookup.scale.clone();
    let make = |graph: &Graph| {
        let codes = graph.constant(lookup.codes).ok_or("its codes are no constant")?;
        BlockWeight::new(codes, &scale, None, Layout::OutputsFirst)
    };
    let packed = packed.get(graph, lookup.codes, make).ok()?;
    let table = packed.weight.as_table()?;
    let name = graph.value(packed.codes).name.clone();
    let table = graph.add_constant(&format!("{name}_rows"), table);
    let gather =
        Node::new("GatherBlockQuantized", vec![Some(table), Some(lookup.ids), Some(packed.scales)]);
    let gather = gather
        .with_domain(MICROSOFT)
        .with_name(node.name.clone())
        .with("bits", packed.weight.bits as i64)
        .with("block_size", packed.weight.block_size as i64)
        .with("gather_axis", 0i64)
        .with("quantize_axis", 1i64)
        .with_outputs(node.outputs);
    graph.replace_node(id, gather).ok()?;
    Some(())
}

/// A lookup of rows of codes with a scale each.
struct Lookup {
    /// INT8 `[V, H]`.
    codes: ValueId,
    /// f32 `[V, 1]`.
    scale: Tensor,
    ids: ValueId,
}

impl Lookup {
    fn find(graph: &Graph, node: &Node) -> Option<Self> {
        let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return None };
        node.is("Mul").then(|| Self::of(graph, a, b).or_else(|| Self::of(graph, b, a)))?
    }

    fn of(graph: &Graph, rows: ValueId, scales: ValueId) -> Option<Self> {
        let cast = graph.producer_node(rows).filter(|node| node.is("Cast"))?;
        let (codes, ids) = gathered(graph, cast.input(0)?)?;
        let (column, same_ids) = gathered(graph, scales)?;
        let scale = constant_column(graph, column)?;
        let tensor = graph.constant(codes)?;
        let fits = ids == same_ids
            && tensor.dtype() == planish_ir::DataType::I8
            && tensor.shape().len() == 2
            && scale.shape() == [tensor.shape()[0], 1];
        fits.then_some(Self { codes, scale, ids })
    }
}

/// Table and ids of a `Gather` of rows.
fn gathered(graph: &Graph, value: ValueId) -> Option<(ValueId, ValueId)> {
    let node = graph.producer_node(value).filter(|n| n.is("Gather") && n.int("axis", 0) == 0)?;
    Some((node.input(0)?, node.input(1)?))
}

/// A constant `[V, 1]`, or a vector that a node makes one.
fn constant_column(graph: &Graph, value: ValueId) -> Option<Tensor> {
    if let Some(tensor) = graph.constant(value) {
        return Some(tensor.clone());
    }
    let vector = graph.producer_node(value).filter(|node| node.is("Unsqueeze"))?.input(0)?;
    let tensor = graph.constant(vector).filter(|tensor| tensor.shape().len() == 1)?;
    tensor.reshaped(vec![tensor.n_elements(), 1]).ok()
}
