//! Writing transforms into a graph.

use std::borrow::Cow;

use planish_ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::fold::LinearFold;
use super::plan::{Planner, TransformError, invert_rounded};
use super::{Matrix, SiteMatrix, SiteTransform, TransformSet};
use crate::sites::{
    AttentionId, Group, HeadTransform, Layout, LinearId, LinearLayer, NORM_BIAS, SiteId, SiteRole,
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
    let n = linear.out_features;
    let data = floats(graph, weight)?;
    let folded_weight = Tensor::from_vec(&[linear.in_features, n], fold.fold_weight(&data, n));
    let mut folded_bias = None;
    if let Some(bias) = linear.bias.filter(|_| fold.changes_bias()) {
        let value = graph.node(bias.node).input(bias.index).unwrap_or(bias.value);
        let folded = fold.fold_bias(&floats(graph, value)?, &data);
        folded_bias = Some((value, bias, Tensor::from_vec(&[n], folded)));
    }
    drop(data);
    replace_constant(graph, weight, linear.node, 1, folded_weight);
    if let Some((value, bias, folded)) = folded_bias {
        replace_constant(graph, value, bias.node, bias.index, folded);
    }
    Ok(())
}

/// The elements of a constant of floats.
pub(super) fn floats(graph: &Graph, value: ValueId) -> Result<Cow<'_, [f32]>, TransformError> {
    let name = || graph.value(value).name.clone();
    let Some(tensor) = graph.constant(value) else {
        return Err(TransformError::Misfit { place: name(), reason: "it is no constant" });
    };
    tensor.as_f32().map_err(|error| TransformError::Weight { weight: name(), error })
}

/// Lets input `index` of `node` read `new` under the name of the constant `old`; the old one goes
/// if nothing else reads it.
pub(super) fn replace_constant(
    graph: &mut Graph,
    old: ValueId,
    node: NodeId,
    index: usize,
    new: Tensor,
) {
    let name = graph.value(old).name.clone();
    let new = graph.add_constant(&name, new);
    graph.set_input(node, index, Some(new));
    crate::unread::remove_unread(graph, old);
}

/// Merges shift and scale into the norm before the site and puts the online part of its transform
/// there.
fn insert_site(
    graph: &mut Graph,
    layout: &Layout,
    set: &TransformSet,
    id: SiteId,
) -> Result<(), TransformError> {
    let site = layout.site(id);
    let Some(transform) = set.site(id) else { return Ok(()) };
    if let SiteRole::Norm { node } = &site.role {
        merge_into_norm(graph, *node, site.channels, transform)?;
    }
    let online = match &transform.matrix {
        SiteMatrix::Identity => None,
        SiteMatrix::Kronecker { left: Some(left), right } => Some(("Transform", vec![left, right])),
        SiteMatrix::Kronecker { left: None, right } => Some(("TransformHeads", vec![right])),
        SiteMatrix::Heads { across, .. } => across.as_ref().map(|m| ("TransformLeft", vec![m])),
    };
    let Some((op_type, matrices)) = online else { return Ok(()) };
    let transformed = add_transform(graph, op_type, site.input, &matrices);
    for linear in &site.linears {
        graph.set_input(layout.linear(*linear).node, 0, Some(transformed));
    }
    Ok(())
}

/// Lets a norm give (x − δ) / c in the place of x: its weight w becomes w / c, its bias b becomes
/// (b − δ) / c. One of a single element is spread over the `n` channels.
fn merge_into_norm(
    graph: &mut Graph,
    node: NodeId,
    n: usize,
    transform: &SiteTransform,
) -> Result<(), TransformError> {
    let scale = transform.scale.as_deref();
    for index in 1..graph.node(node).inputs.len() {
        let shift = transform.shift.as_deref().filter(|_| index == NORM_BIAS);
        let Some(value) = graph.node(node).input(index) else { continue };
        if shift.is_none() && scale.is_none() {
            continue;
        }
        let data = floats(graph, value)?;
        let merged = |j: usize| {
            let x = f64::from(data[j % data.len().max(1)]) - shift.map_or(0.0, |shift| shift[j]);
            (x / scale.map_or(1.0, |scale| scale[j])) as f32
        };
        let merged = Tensor::from_vec(&[n], (0..n).map(merged).collect());
        drop(data);
        replace_constant(graph, value, node, index, merged);
    }
    Ok(())
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
