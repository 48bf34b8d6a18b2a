//! Putting other weights, such as trained ones, into a model before it is quantised.

use planish_ir::{Model, NodeId, Tensor, ValueId};

use super::QuantizeError;
use crate::half::is_weight_type;
use crate::sites::{Layout, LinearId};
use crate::unread::remove_unread;

/// Lets a linear layer have another weight, f32 `[K, N]`, in the coordinates of before any
/// transform. A layer or lookup that shares the weight of before keeps that.
///
/// # Errors
/// If the weight is not of the layer's type and shape, has an element that is not finite, or the
/// layer is not as the layout has it.
pub fn replace_weight(
    model: &mut Model,
    layout: &mut Layout,
    id: LinearId,
    weight: Tensor,
) -> Result<(), QuantizeError> {
    let linear = layout.linears.get_mut(id.0).ok_or_else(|| no_layer(id))?;
    linear.weight = replace_parameter(model, linear.node, 1, weight)?;
    Ok(())
}

/// Lets a linear layer have another bias, f32 `[N]`, as [`replace_weight`] does.
///
/// # Errors
/// As [`replace_weight`], and if the layer has no bias.
pub fn replace_bias(
    model: &mut Model,
    layout: &mut Layout,
    id: LinearId,
    value: Tensor,
) -> Result<(), QuantizeError> {
    let linear = layout.linears.get_mut(id.0).ok_or_else(|| no_layer(id))?;
    let bias = linear.bias.as_mut().ok_or_else(|| QuantizeError::Replacement {
        what: format!("the bias of linear layer {}", id.0),
        reason: "it has none".into(),
    })?;
    bias.value = replace_parameter(model, bias.node, bias.index, value)?;
    Ok(())
}

/// Lets a node read another constant at input `index` (the weight or bias of a norm are 1 and 2),
/// and only that node: others that read the constant of before keep it. Returns the new value.
///
/// # Errors
/// If there is no constant in that place, or the new one is not of its type and shape or has an
/// element that is not finite.
pub fn replace_parameter(
    model: &mut Model,
    node: NodeId,
    index: usize,
    parameter: Tensor,
) -> Result<ValueId, QuantizeError> {
    let graph = &mut model.graph;
    if !graph.contains_node(node) {
        return Err(QuantizeError::StaleLayout { layer: format!("{node:?}") });
    }
    let what = format!("input {index} of {}", graph.node(node).describe());
    let refuse = |reason: String| QuantizeError::Replacement { what, reason };
    let constant = graph.node(node).input(index).and_then(|v| Some((v, graph.constant(v)?)));
    let Some((old, tensor)) = constant else { return Err(refuse("it is no constant".into())) };
    let (before, after) = (tensor.shape(), parameter.shape());
    if before != after {
        return Err(refuse(format!("its shape is {before:?}, not {after:?}")));
    }
    if !is_weight_type(tensor.dtype()) {
        return Err(refuse(format!("it is of type {}", tensor.dtype())));
    }
    match parameter.as_slice::<f32>() {
        Ok(data) if data.iter().all(|x| x.is_finite()) => {}
        Ok(_) => return Err(refuse("an element is not a finite number".into())),
        Err(error) => return Err(refuse(error.to_string())),
    }
    let name = graph.value(old).name.clone();
    let new = graph.add_constant(&name, parameter);
    graph.set_input(node, index, Some(new));
    remove_unread(graph, old);
    Ok(new)
}

fn no_layer(id: LinearId) -> QuantizeError {
    QuantizeError::StaleLayout { layer: format!("linear layer {}", id.0) }
}
