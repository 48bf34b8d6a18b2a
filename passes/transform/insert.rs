//! Writing transforms into a graph.

use planish_ir::{Graph, Model, Node, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::fold::LinearFold;
use super::plan::{Planner, TransformError, invert_rounded};
use super::{Matrix, SiteMatrix, TransformSet};
use crate::sites::{
    AttentionId, Group, HeadTransform, Layout, LinearId, LinearLayer, SiteId, SiteRole,
};

/// Folds the transforms of `set` into the weights of the model and puts the parts that can't be
/// folded (`Transform`, `TransformLeft`, `TransformHeads`) before its sites and attentions. The
/// logits stay as they are, up to rounding; keys and values in the cache become other numbers,
/// so a cache must come from the same model. The layout holds for the new graph as well, but for
/// the inputs of the linear layers.
///
/// # Errors
/// If a transform is singular, or does not fit where it is to go.
pub fn insert_transforms(
    model: &mut Model,
    layout: &Layout,
    set: &TransformSet,
) -> Result<(), TransformError> {
    layout.groups().iter().try_for_each(|group| insert_group(model, layout, set, group))
}

/// As [`insert_transforms`], for one of [`Layout::groups`]; the weights before are dropped.
///
/// # Errors
/// As [`insert_transforms`].
pub fn insert_group(
    model: &mut Model,
    layout: &Layout,
    set: &TransformSet,
    group: &Group,
) -> Result<(), TransformError> {
    let graph = &mut model.graph;
    let mut planner = Planner { graph, layout, folds: Default::default() };
    planner.plan_group(set, group)?;
    let folds = std::mem::take(&mut planner.folds);
    for (id, fold) in folds {
        fold_linear(graph, layout, id, &fold)?;
    }
    for id in &group.sites {
        insert_site(graph, layout, set, *id)?;
    }
    for id in &group.attentions {
        insert_heads(graph, layout, set, *id)?;
    }
    Ok(())
}

fn fold_linear(
    graph: &mut Graph,
    layout: &Layout,
    id: LinearId,
    fold: &LinearFold,
) -> Result<(), TransformError> {
    let linear: &LinearLayer = layout.linear(id);
    let weight = graph.node(linear.node).input(1).unwrap_or(linear.weight);
    let shape = [linear.in_features, linear.out_features];
    replace_constant(graph, weight, linear.node, 1, |data| {
        Tensor::from_vec(&shape, fold.fold_weight(data, linear.out_features))
    })?;
    if let Some(bias) = linear.bias.filter(|_| !fold.columns.is_empty()) {
        let value = graph.node(bias.node).input(bias.index).unwrap_or(bias.value);
        replace_constant(graph, value, bias.node, bias.index, |data| {
            Tensor::from_vec(&[data.len()], fold.fold_bias(data))
        })?;
    }
    Ok(())
}

/// Lets input `index` of `node` read a changed copy of the f32 constant `old`; the old one goes if
/// nothing else reads it.
fn replace_constant(
    graph: &mut Graph,
    old: ValueId,
    node: planish_ir::NodeId,
    index: usize,
    change: impl FnOnce(&[f32]) -> Tensor,
) -> Result<(), TransformError> {
    let name = graph.value(old).name.clone();
    let Some(tensor) = graph.constant(old) else {
        return Err(TransformError::Misfit { place: name, reason: "it is no constant" });
    };
    let data =
        tensor.as_f32().map_err(|error| TransformError::Weight { weight: name.clone(), error })?;
    let changed = change(&data);
    let new = graph.add_constant(&name, changed);
    graph.set_input(node, index, Some(new));
    crate::unread::remove_unread(graph, old);
    Ok(())
}

/// Merges the scale into the norm before the site and puts the online part of its transform there.
fn insert_site(
    graph: &mut Graph,
    layout: &Layout,
    set: &TransformSet,
    id: SiteId,
) -> Result<(), TransformError> {
    let site = layout.site(id);
    let Some(transform) = set.site(id) else { return Ok(()) };
    if let (SiteRole::Norm { node }, Some(scale)) = (&site.role, &transform.scale) {
        let n_inputs = graph.node(*node).inputs.len();
        let parameters = (1..n_inputs).filter_map(|i| Some((i, graph.node(*node).input(i)?)));
        for (index, value) in parameters.collect::<Vec<_>>() {
            replace_constant(graph, value, *node, index, |data| divided(data, scale))?;
        }
    }
    let online = match &transform.matrix {
        SiteMatrix::Identity => None,
        SiteMatrix::Kronecker { left, right } => Some(("Transform", vec![left, right])),
        SiteMatrix::Heads { across, .. } => across.as_ref().map(|m| ("TransformLeft", vec![m])),
    };
    let Some((op_type, matrices)) = online else { return Ok(()) };
    let transformed = add_transform(graph, op_type, site.input, &matrices);
    for linear in &site.linears {
        graph.set_input(layout.linear(*linear).node, 0, Some(transformed));
    }
    Ok(())
}

/// The weight or bias of a norm over the scale; a weight of one element is spread.
fn divided(data: &[f32], scale: &[f64]) -> Tensor {
    let quotient = |(i, c): (usize, &f64)| (f64::from(data[i % data.len().max(1)]) / c) as f32;
    Tensor::from_vec(&[scale.len()], scale.iter().enumerate().map(quotient).collect())
}

fn add_transform(graph: &mut Graph, op_type: &str, x: ValueId, matrices: &[&Matrix]) -> ValueId {
    let name = format!("{}_transformed", graph.value(x).name);
    let mut inputs = vec![Some(x)];
    for (i, matrix) in matrices.iter().enumerate() {
        let tensor = matrix.to_tensor();
        inputs.push(Some(graph.add_constant(&format!("{name}_p{}", i + 1), tensor)));
    }
    graph.add_op(&name, Node::new(op_type, inputs).with_domain(DOMAIN))
}

/// Puts P_h⁻ᵀ on the queries and P_h on the keys of an attention, unless they were folded.
fn insert_heads(
    graph: &mut Graph,
    layout: &Layout,
    set: &TransformSet,
    id: AttentionId,
) -> Result<(), TransformError> {
    let attention = layout.attention(id);
    let online = matches!(attention.head_transform, Ok(HeadTransform::Online));
    let Some(matrix) = set.head(id).filter(|_| online) else { return Ok(()) };
    let place = || graph.node(attention.node).describe();
    let inverse = invert_rounded(matrix, place)?.transposed();
    for (index, matrix) in [(0, &inverse), (1, matrix)] {
        if let Some(x) = graph.node(attention.node).input(index) {
            let transformed = add_transform(graph, "TransformHeads", x, &[matrix]);
            graph.set_input(attention.node, index, Some(transformed));
        }
    }
    Ok(())
}
