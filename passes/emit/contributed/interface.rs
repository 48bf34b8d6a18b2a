//! Inputs and outputs as onnxruntime-genai expects them.

use planish_ir::{DataType, Dim, Graph, Model, Node, TensorType, ValueId, ValueType};

use super::attention::Caches;
use super::{DecoderInputs, Interface};
use crate::emit::EmitError;
use crate::half::{is_half, set_dtype};

/// Names of the caches; `%d` stands for the number of the attention.
pub const CACHE_NAMES: [&str; 4] =
    ["past_key_values.%d.key", "past_key_values.%d.value", "present.%d.key", "present.%d.value"];

/// Lets inputs and outputs of 16 bits be f32, as everything inside is. Returns how many.
pub(super) fn widen_boundary(graph: &mut Graph) -> usize {
    let mut n_widened = 0;
    for input in graph.inputs.clone() {
        if !graph.value(input).dtype().is_some_and(is_half) {
            continue;
        }
        let users: Vec<&Node> = graph.users(input).iter().map(|(id, _)| graph.node(*id)).collect();
        let is_cast = |node: &Node| node.is("Cast") && node.int("to", 0) == 1;
        if !users.iter().all(|node| is_cast(node) || node.is("Shape")) {
            continue;
        }
        let casts = users.into_iter().filter(|node| is_cast(node));
        for wide in casts.filter_map(|node| node.output(0)).collect::<Vec<_>>() {
            graph.replace_value(wide, input);
        }
        set_dtype(graph.value_mut(input), DataType::F32);
        n_widened += 1;
    }
    for index in 0..graph.outputs.len() {
        let output = graph.outputs[index];
        let cast = graph.producer_node(output).filter(|node| node.is("Cast"));
        let source = cast.and_then(|node| node.input(0));
        let narrows = graph.value(output).dtype().is_some_and(is_half);
        if let Some(source) = source.filter(|_| narrows) {
            let shape = graph.value(output).ty.clone();
            if graph.set_output(index, source).is_ok() {
                let value = graph.value_mut(source);
                (value.ty, value.declared) = (shape, true);
                set_dtype(value, DataType::F32);
                n_widened += 1;
            }
        }
    }
    graph.remove_dead();
    n_widened
}

/// Adds an attention mask where the export has none: lengths follow from it.
pub(super) fn ensure_mask(graph: &mut Graph, inputs: &mut DecoderInputs) {
    if inputs.mask.is_some() {
        return;
    }
    let shape = match graph.value(inputs.tokens).shape() {
        Some([batch, _]) => vec![batch.clone(), Dim::symbol("total_sequence_length")],
        _ => vec![Dim::symbol("batch_size"), Dim::symbol("total_sequence_length")],
    };
    let ty = ValueType::Tensor(TensorType { dtype: Some(DataType::I64), shape: Some(shape) });
    let mask = graph.new_value("attention_mask", ty);
    graph.inputs.push(mask);
    inputs.mask = Some(mask);
}

/// Drops inputs that nothing reads, renames the caches, and says what is called how.
pub(super) fn name_interface(
    model: &mut Model,
    inputs: &DecoderInputs,
    caches: &[Caches],
) -> Result<Interface, EmitError> {
    let graph = &mut model.graph;
    let used: Vec<ValueId> = graph.inputs.clone();
    graph.inputs = used
        .into_iter()
        .filter(|v| !graph.users(*v).is_empty() || graph.is_output(*v) || *v == inputs.tokens)
        .collect();
    let of_layer =
        |cache: &Caches| [cache.past[0], cache.past[1], cache.present[0], cache.present[1]];
    let values: Vec<[ValueId; 4]> = caches.iter().map(of_layer).collect();
    for (layer, values) in values.iter().enumerate() {
        for (i, value) in values.iter().enumerate() {
            let parked = graph.free_name(&format!("planish_parked_{layer}_{i}"));
            rename(graph, *value, &parked)?;
        }
    }
    for (layer, values) in values.iter().enumerate() {
        for (value, name) in values.iter().zip(CACHE_NAMES) {
            rename(graph, *value, &name.replace("%d", &layer.to_string()))?;
        }
    }
    graph.remove_dead();
    let shares = caches.iter().all(|cache| shares_buffer(graph, cache));
    let name = |v: ValueId| graph.value(v).name.clone();
    let positions = inputs.positions.filter(|v| graph.is_input(*v));
    Ok(Interface {
        tokens: name(inputs.tokens),
        mask: inputs.mask.filter(|v| graph.is_input(*v)).map(name),
        positions: positions.map(name),
        logits: name(inputs.logits),
        n_layers: caches.len(),
        shares_buffer: shares && !caches.is_empty(),
        ..Interface::default()
    })
}

fn rename(graph: &mut Graph, value: ValueId, name: &str) -> Result<(), EmitError> {
    graph.rename_value(value, name).map_err(|error| EmitError::Infer(error.to_string()))
}

/// Whether past and present may be one buffer, longer than what it holds: nothing but the
/// attention itself reads the past.
fn shares_buffer(graph: &Graph, cache: &Caches) -> bool {
    cache.past.iter().all(|past| {
        let users = graph.users(*past);
        users.len() == 1
            && users.iter().all(|(id, _)| graph.node(*id).op_type == "GroupQueryAttention")
    })
}
