//! The layer that makes the logits, and the embedding where the two share a table.

use planish_ir::{DataType, Graph, Model, Node, NodeId, Tensor, ValueId};

use super::QuantizeError;
use super::linear::{add_codes, dequantize};
use super::site::checked_node;
use super::weight::{
    Clipping, QuantizedWeight, WeightError, WeightFormat, quantize_columns, quantize_rows,
};
use crate::half::set_dtype;
use crate::sites::Head;
use crate::unread::remove_unread;

/// Rounds the head's weight to `bits` per output channel; activations stay floats. A table that
/// the embedding reads as well is stored once, as codes: rows are looked up as codes and scaled.
/// 16 bits leave head and embedding alone; the embedding of an untied head is never touched.
///
/// # Errors
/// If the width is not supported for this head, or the weight has an element that is not finite.
pub fn quantize_head(
    model: &mut Model,
    head: &Head,
    bits: u8,
    clip_search: bool,
) -> Result<(), QuantizeError> {
    let graph = &mut model.graph;
    match (bits, head.transpose) {
        (16, _) => Ok(()),
        (4 | 8, None) => quantize_own_weight(graph, head, bits, clip_search),
        (8, Some(transpose)) => quantize_table(graph, head, transpose, bits, clip_search),
        (_, Some(_)) => {
            let (what, allowed) = ("a head that is tied to the embedding", "8 and 16 are");
            Err(QuantizeError::HeadBits { bits, what, allowed })
        }
        _ => Err(QuantizeError::HeadBits { bits, what: "the head", allowed: "4, 8 and 16 are" }),
    }
}

/// `MatMul(x, W)` → `MatMul(x, DequantizeLinear(codes, scale))`.
fn quantize_own_weight(
    graph: &mut Graph,
    head: &Head,
    bits: u8,
    clip_search: bool,
) -> Result<(), QuantizeError> {
    checked_node(graph, head.node)?;
    let format = WeightFormat { bits, group_size: None };
    let clipping = if clip_search { Clipping::Search { importance: None } } else { Clipping::Full };
    let quantized = round(graph, head.weight, |data, n_columns| {
        quantize_columns(data, n_columns, format, clipping)
    })?;
    let [codes, scale] = add_codes(graph, head.weight, quantized);
    let float = dequantize(graph, codes, scale, 1, None);
    graph.set_input(head.node, 1, Some(float));
    remove_unread(graph, head.weight);
    Ok(())
}

/// Rounds the table of an embedding that the head does not share to 8 bits per row: rows are looked
/// up as codes and scaled. 16 bits leave it alone, and so does a lookup in anything but a table.
///
/// # Errors
/// As [`quantize_head`].
pub fn quantize_embedding(
    model: &mut Model,
    lookup: NodeId,
    bits: u8,
    clip_search: bool,
) -> Result<(), QuantizeError> {
    let graph = &mut model.graph;
    if bits == 16 {
        return Ok(());
    }
    if bits != 8 {
        return Err(QuantizeError::HeadBits {
            bits,
            what: "an embedding",
            allowed: "8 and 16 are",
        });
    }
    let node = Some(lookup).filter(|id| graph.contains_node(*id)).map(|id| graph.node(id));
    let table = node.filter(|node| node.is("Gather")).and_then(|node| node.input(0));
    let Some(table) = table.filter(|table| graph.constant(*table).is_some()) else {
        return Ok(());
    };
    let quantized =
        round(graph, table, |data, n_columns| quantize_rows(data, n_columns, bits, clip_search))?;
    let [codes, scale] = add_codes(graph, table, quantized);
    look_up_codes(graph, lookup, codes, scale)?;
    remove_unread(graph, table);
    Ok(())
}

/// The table becomes codes `[V, H]` and a scale `[V]`, for the head and for every lookup.
fn quantize_table(
    graph: &mut Graph,
    head: &Head,
    transpose: NodeId,
    bits: u8,
    clip_search: bool,
) -> Result<(), QuantizeError> {
    checked_node(graph, head.node)?;
    let quantized = round(graph, head.weight, |data, n_columns| {
        quantize_rows(data, n_columns, bits, clip_search)
    })?;
    let [codes, scale] = add_codes(graph, head.weight, quantized);
    let float = dequantize(graph, codes, scale, 0, None);
    graph.set_input(transpose, 0, Some(float));
    if let Some(turned) = graph.node(transpose).output(0) {
        set_dtype(graph.value_mut(turned), DataType::F32);
    }
    for lookup in &head.embeddings {
        look_up_codes(graph, *lookup, codes, scale)?;
    }
    remove_unread(graph, head.weight);
    Ok(())
}

/// `Gather(table, ids)` → `Mul(Cast(Gather(codes, ids)), Gather(scale as [V, 1], ids))`.
fn look_up_codes(
    graph: &mut Graph,
    lookup: NodeId,
    codes: ValueId,
    scale: ValueId,
) -> Result<(), QuantizeError> {
    let node = graph.node(lookup).clone();
    let (Some(ids), Some(output)) = (node.input(1), node.output(0)) else {
        return Err(QuantizeError::StaleLayout { layer: node.describe() });
    };
    let name = graph.value(output).name.clone();
    let gather = |table| Node::new("Gather", vec![Some(table), Some(ids)]).with("axis", 0i64);
    let rows = graph.add_op(&format!("{name}_codes"), gather(codes));
    let to = i64::from(DataType::F32.to_onnx());
    let rows =
        graph.add_op(&format!("{name}_codes"), Node::new("Cast", vec![Some(rows)]).with("to", to));
    let axes = graph.add_constant(&format!("{name}_axes"), Tensor::from_vec(&[1], vec![1i64]));
    let column = Node::new("Unsqueeze", vec![Some(scale), Some(axes)]);
    let column = graph.add_op(&format!("{name}_scale"), column);
    let scales = graph.add_op(&format!("{name}_scale"), gather(column));
    let product = Node::new("Mul", vec![Some(rows), Some(scales)]);
    set_dtype(graph.value_mut(output), DataType::F32);
    graph.replace_node(lookup, product.with_name(node.name.clone()).with_outputs(node.outputs))?;
    Ok(())
}

/// Applies `quantize(data, n_columns)` to a constant matrix.
fn round(
    graph: &Graph,
    weight: ValueId,
    quantize: impl FnOnce(&[f32], usize) -> Result<QuantizedWeight, WeightError>,
) -> Result<QuantizedWeight, QuantizeError> {
    let stale = || QuantizeError::StaleLayout { layer: "the head".to_owned() };
    let name = || graph.value(weight).name.clone();
    let tensor = graph.constant(weight).ok_or_else(stale)?;
    let n_columns = *tensor.shape().last().ok_or_else(stale)?;
    let data = tensor.as_f32().map_err(|error| QuantizeError::Weight { weight: name(), error })?;
    quantize(&data, n_columns).map_err(|error| QuantizeError::Rounding { weight: name(), error })
}
