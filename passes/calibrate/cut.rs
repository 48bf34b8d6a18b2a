//! Cutting a piece of the residual stream out of a model.

use std::collections::HashSet;

use planish_ir::{Graph, Model, NodeId, ValueId};
use planish_kernels::infer::InferError;

use super::CalibrateError;
use crate::half::{cast_weights, output_behind};
use crate::sites::{Group, Layout};

/// A piece of a model as a model of its own. Values and nodes keep the ids and names that they
/// have in the whole model, but for attentions, whose caches are gone.
#[derive(Clone, Debug)]
pub struct BlockModel {
    /// Inputs: `input`, then `outside`; output: `output`. Weights are shared with the whole model.
    pub model: Model,
    /// The layout of the whole model, with the nodes of this piece's attentions.
    pub layout: Layout,
    /// The sites and attentions of the piece.
    pub group: Group,
    /// The residual stream before it, f32 `[batch, sequence, hidden]`.
    pub input: ValueId,
    /// What is behind it: the stream, or the logits.
    pub output: ValueId,
    /// Other activations that it reads: rotary tables, masks.
    pub outside: Vec<ValueId>,
}

/// Cuts out one of [`Layout::blocks`].
///
/// Caches are taken away, and with them the padding mask of causal attentions: the windows of a
/// calibration text are full.
///
/// # Errors
/// If the block's output does not depend on its input.
pub fn cut_block(
    model: &Model,
    layout: &Layout,
    index: usize,
) -> Result<BlockModel, CalibrateError> {
    let block = layout.blocks.get(index).ok_or(CalibrateError::NoBlocks)?;
    let group = Group { sites: block.sites.clone(), attentions: block.attentions.clone() };
    let piece = Piece { what: format!("block {index}"), input: block.input, output: block.output };
    cut(model, layout, group, piece)
}

/// Cuts out what is behind the last block, up to the logits.
///
/// # Errors
/// If there are no blocks or no head, or the logits do not depend on the last block.
pub fn cut_tail(model: &Model, layout: &Layout) -> Result<BlockModel, CalibrateError> {
    let last = layout.blocks.last().ok_or(CalibrateError::NoBlocks)?;
    let head = layout.head.as_ref().map(|head| head.node);
    let logits = head.and_then(|node| logits_of(&model.graph, node));
    let what = "the part behind the last block".to_owned();
    let no_logits =
        || CalibrateError::Cut { what: what.clone(), reason: "it has no logits".into() };
    let output = logits.ok_or_else(no_logits)?;
    let mut tail = cut(
        model,
        layout,
        Group::default(),
        Piece { what: what.clone(), input: last.output, output },
    )?;
    // Gradients are of one type.
    let failed = |error: InferError| CalibrateError::Cut { what, reason: error.to_string() };
    cast_weights(&mut tail.model).map_err(failed)?;
    Ok(tail)
}

/// What the head's product leads to: the graph output, or what is cast to it.
fn logits_of(graph: &Graph, head: NodeId) -> Option<ValueId> {
    let mut value = graph.node(head).output(0)?;
    while !graph.is_output(value) {
        if output_behind(graph, value).is_some() {
            break;
        }
        let (next, _) = graph.users(value).into_iter().next()?;
        value = graph.node(next).output(0)?;
    }
    Some(value)
}

struct Piece {
    what: String,
    input: ValueId,
    output: ValueId,
}

fn cut(
    model: &Model,
    layout: &Layout,
    group: Group,
    piece: Piece,
) -> Result<BlockModel, CalibrateError> {
    let (mut model, mut layout) = (model.clone(), layout.clone());
    for id in &group.attentions {
        layout.attentions[id.0].node = without_cache(&mut model.graph, layout.attention(*id).node);
    }
    let graph = &mut model.graph;
    let reason =
        |reason: &str| CalibrateError::Cut { what: piece.what.clone(), reason: reason.into() };
    let order = graph.topological_order().map_err(|error| reason(&error.to_string()))?;
    let inside = reached(graph, &order, &[piece.input]);
    if !inside.contains(&piece.output) {
        return Err(reason("its output does not depend on its input"));
    }
    let inputs = graph.inputs.clone();
    let varying = reached(graph, &order, &inputs);
    let outside = read_from_outside(graph, &piece, &inside, &varying);
    for value in outside.iter().chain([&piece.input]) {
        if let Some((node, _)) = graph.producer(*value) {
            graph.remove_node(node);
        }
    }
    graph.inputs = [piece.input].into_iter().chain(outside.iter().copied()).collect();
    graph.outputs = vec![piece.output];
    graph.remove_dead();
    let Piece { input, output, .. } = piece;
    Ok(BlockModel { model, layout, group, input, output, outside })
}

/// The values that depend on one of `from`, those included.
fn reached(graph: &Graph, order: &[NodeId], from: &[ValueId]) -> HashSet<ValueId> {
    let mut reached: HashSet<ValueId> = from.iter().copied().collect();
    for id in order {
        if graph.inputs_and_captures(*id).iter().any(|v| reached.contains(v)) {
            reached.extend(graph.node(*id).outputs.iter().flatten());
        }
    }
    reached
}

/// The values that change from run to run and that the piece reads without computing them, in the
/// order in which its nodes are found from its output.
fn read_from_outside(
    graph: &Graph,
    piece: &Piece,
    inside: &HashSet<ValueId>,
    varying: &HashSet<ValueId>,
) -> Vec<ValueId> {
    let (mut found, mut seen, mut pending) = (Vec::new(), HashSet::new(), vec![piece.output]);
    while let Some(value) = pending.pop() {
        if value == piece.input || !seen.insert(value) {
            continue;
        }
        if varying.contains(&value) && !inside.contains(&value) {
            found.push(value);
        } else if let Some((node, _)) = graph.producer(value) {
            pending.extend(graph.inputs_and_captures(node));
        }
    }
    found
}

/// Takes past, present and, of a causal attention, the padding mask away; returns the new node.
fn without_cache(graph: &mut Graph, id: NodeId) -> NodeId {
    let mut node = graph.node(id).clone();
    node.outputs.truncate(1);
    node.inputs.truncate(4);
    if node.int("is_causal", 0) == 1 {
        node.inputs.truncate(3);
    }
    // The node's own output was freed with the node that it replaces.
    graph.replace_node(id, node).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use planish_ir::Tensor;

    use super::*;
    use crate::testing::{TinyDecoder, evaluate};

    /// The outputs of the pieces of a tiny decoder, one after the other, and of the whole.
    fn by_pieces(decoder: TinyDecoder) -> (Vec<f32>, Vec<f32>) {
        let mut model = decoder.build(3);
        crate::canonicalize::canonicalize(&mut model, &mut crate::PassManager::new()).unwrap();
        let layout = Layout::new(&model).unwrap();
        let pieces: Vec<BlockModel> = (0..layout.blocks.len())
            .map(|i| cut_block(&model, &layout, i).unwrap())
            .chain([cut_tail(&model, &layout).unwrap()])
            .collect();
        let mut whole = model.clone();
        let mut wanted = vec![pieces[0].input];
        wanted.extend(pieces.iter().flat_map(|piece| piece.outside.clone()));
        let n_own = whole.graph.outputs.len();
        whole.graph.outputs.extend(&wanted);
        let ids: Vec<i64> = (0..10).map(|i| (7 * i) % 60).collect();
        let positions: Vec<i64> = (0..10).map(|i| i % 5).collect();
        let mut inputs = vec![Tensor::from_vec(&[2, 5], ids), Tensor::from_vec(&[2, 5], positions)];
        let shape = [2, decoder.kv_heads, 0, decoder.head_size];
        inputs.resize(whole.graph.inputs.len(), Tensor::from_vec(&shape, Vec::<f32>::new()));
        let outputs = evaluate(&whole, inputs);
        let known = |value: ValueId| {
            let index = wanted.iter().position(|v| *v == value).unwrap();
            outputs[n_own + index].clone()
        };
        let mut x = known(pieces[0].input);
        for piece in &pieces {
            planish_ir::verify(&piece.model).unwrap();
            let mut inputs = vec![x];
            inputs.extend(piece.outside.iter().map(|value| known(*value)));
            x = evaluate(&piece.model, inputs).remove(0);
        }
        (x.to_f32_vec().unwrap(), outputs[0].to_f32_vec().unwrap())
    }

    #[test]
    fn the_pieces_make_up_the_whole() {
        for decoder in [TinyDecoder::default(), TinyDecoder::gpt2()] {
            let (pieces, whole) = by_pieces(decoder);
            let largest = whole.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let differ = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-5 * largest;
            assert!(pieces.len() == whole.len() && !pieces.iter().zip(&whole).any(differ));
        }
    }

    #[test]
    fn a_piece_holds_only_its_own_weights() {
        let model = TinyDecoder::default().build(3);
        let layout = Layout::new(&model).unwrap();
        let block = cut_block(&model, &layout, 0).unwrap();
        let weights = |model: &Model| {
            let graph = &model.graph;
            let matrices = graph.value_ids().filter_map(|v| graph.constant(v));
            matrices.filter(|t| t.shape().len() == 2 && t.dtype().is_float()).count()
        };
        assert_eq!(weights(&block.model), 7);
        assert_eq!(block.model.graph.inputs.len(), 3, "the stream, cos and sin");
        assert!(cut_block(&model, &layout, 9).is_err());
    }
}
