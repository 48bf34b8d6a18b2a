//! Floats of 16 bits: how weights may be stored, while activations are f32.

use half::{bf16, f16};
use planish_ir::{DataType, Graph, Model, Node, NodeId, Tensor, Value, ValueId, ValueType};
use planish_kernels::infer::{InferError, infer};

/// Whether the type is a float of 16 bits.
pub(crate) fn is_half(dtype: DataType) -> bool {
    matches!(dtype, DataType::F16 | DataType::BF16)
}

/// Whether weights may be stored in the type.
pub(crate) fn is_weight_type(dtype: DataType) -> bool {
    dtype == DataType::F32 || is_half(dtype)
}

/// A tensor of a float type of 16 or 32 bits.
pub(crate) fn to_type(dtype: DataType, shape: &[usize], data: Vec<f32>) -> Tensor {
    match dtype {
        DataType::F16 => Tensor::from_vec(shape, data.into_iter().map(f16::from_f32).collect()),
        DataType::BF16 => Tensor::from_vec(shape, data.into_iter().map(bf16::from_f32).collect()),
        _ => Tensor::from_vec(shape, data),
    }
}

/// A `Cast` of `value`.
pub(crate) fn cast_to(value: ValueId, dtype: DataType) -> Node {
    Node::new("Cast", vec![Some(value)]).with("to", i64::from(dtype.to_onnx()))
}

/// Adds a `Cast` of `value`; returns what it gives.
pub(crate) fn cast_value(graph: &mut Graph, value: ValueId, dtype: DataType) -> ValueId {
    let hint = format!("{}/cast", graph.value(value).name);
    let ty = graph.value(value).ty.clone();
    let cast = graph.add_op(&hint, cast_to(value, dtype));
    graph.value_mut(cast).ty = ty;
    set_dtype(graph.value_mut(cast), dtype);
    cast
}

/// Changes the element type of a value whose type is known.
pub(crate) fn set_dtype(value: &mut Value, dtype: DataType) {
    if let ValueType::Tensor(ty) = &mut value.ty {
        ty.dtype = Some(dtype);
    }
}

/// The graph input that `value` is, or is cast from.
pub(crate) fn input_behind(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let is_input = |v: &ValueId| graph.is_input(*v);
    let cast = || graph.producer_node(value).filter(|node| node.is("Cast"))?.input(0);
    Some(value).filter(is_input).or_else(|| cast().filter(is_input))
}

/// The graph output that `value` is, or is cast to, where nothing else reads it.
pub(crate) fn output_behind(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let leaves = |v: &ValueId| graph.is_output(*v) && graph.users(*v).is_empty();
    let cast = || {
        let [(user, 0)] = graph.users(value)[..] else { return None };
        graph.node(user).output(0).filter(|_| graph.node(user).is("Cast"))
    };
    Some(value).filter(leaves).or_else(|| cast().filter(leaves))
}

/// Puts a `Cast` between products of f32 and weights of 16 bits: our kernels take these as they
/// are stored, ONNX's `MatMul` wants both factors to be of one type. Returns how many.
pub(crate) fn cast_weights(model: &mut Model) -> Result<usize, InferError> {
    let facts = infer(model)?;
    let graph = &mut model.graph;
    let dtype = |value: Option<ValueId>| value.and_then(|value| facts.get(value).dtype);
    let is_mixed = |id: &NodeId| {
        let node = graph.node(*id);
        let is_product = node.is("MatMul") || node.is("Gemm");
        let weight = is_product.then(|| dtype(node.input(1))).flatten();
        dtype(node.input(0)) == Some(DataType::F32) && weight.is_some_and(is_half)
    };
    let found: Vec<NodeId> = graph.node_ids().filter(is_mixed).collect();
    for id in &found {
        cast_weight(graph, *id);
    }
    Ok(found.len())
}

/// Lets a product read its weight, or what that is the transpose of, through a `Cast`.
fn cast_weight(graph: &mut Graph, product: NodeId) -> Option<()> {
    let weight = graph.node(product).input(1)?;
    let turn = graph.producer(weight).filter(|(id, _)| graph.node(*id).is("Transpose"));
    let (reader, at) = turn.map_or((product, 1), |(id, _)| (id, 0));
    let cast = cast_value(graph, graph.node(reader).input(at)?, DataType::F32);
    graph.set_input(reader, at, Some(cast));
    if turn.is_some() {
        set_dtype(graph.value_mut(weight), DataType::F32);
    }
    Some(())
}
