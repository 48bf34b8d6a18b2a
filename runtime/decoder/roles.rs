//! What the inputs and outputs of a decoder's graph are for, found from the graph.

use planish_ir::{DataType, Dim, Graph, Model, ValueId};
use planish_kernels::MICROSOFT;
use planish_kernels::infer::Facts;

use super::DecoderError;
use super::caches::CachePair;
use super::capacity::max_positions;
use crate::engine::facts::infer_leniently;

/// Roles of a graph's inputs and outputs. What names say counts only where the graph leaves a
/// choice.
#[derive(Debug, Clone)]
pub struct Roles {
    /// Token ids `[batch, sequence]`: the integers that select rows of the largest table.
    pub tokens: ValueId,
    /// Attention mask `[batch, past + sequence]`.
    pub mask: Option<ValueId>,
    /// Positions `[batch, sequence]`.
    pub positions: Option<ValueId>,
    /// Whether there is a past: what chooses a branch by it.
    pub switch: Option<ValueId>,
    /// Caches and the outputs that continue them.
    pub caches: Vec<CachePair>,
    /// Logits `[batch, sequence, vocab]`.
    pub logits: ValueId,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Positions that tables of the graph have rows for.
    pub max_positions: Option<usize>,
}

impl Roles {
    /// Finds the roles in a graph, canonical or not.
    ///
    /// # Errors
    /// [`DecoderError`], naming what is missing.
    pub fn find(model: &Model) -> Result<Self, DecoderError> {
        let facts = infer_leniently(model)?;
        let graph = &model.graph;
        let tokens =
            find_tokens(graph, &facts).ok_or(DecoderError::Missing("input of token ids"))?;
        let caches = CachePair::find_all(graph, &facts)?;
        let mut others: Vec<ValueId> = graph
            .inputs
            .iter()
            .copied()
            .filter(|v| *v != tokens && caches.iter().all(|pair| pair.past != *v))
            .filter(|v| !graph.users(*v).is_empty() && graph.value(*v).constant.is_none())
            .collect();
        let switch = take(&mut others, |v| is_switch(graph, &facts, v));
        let positions = take(&mut others, |v| is_positions(graph, &facts, v, tokens));
        let mask = take(&mut others, |v| is_mask(graph, &facts, v, tokens));
        if let Some(unknown) = others.first() {
            return Err(DecoderError::UnknownInput(graph.value(*unknown).name.clone()));
        }
        let logits =
            find_logits(graph, &facts, &caches).ok_or(DecoderError::Missing("output of logits"))?;
        let vocab = facts.get(logits).dim(-1).and_then(Dim::as_usize).ok_or_else(|| {
            let name = graph.value(logits).name.clone();
            DecoderError::UnknownSize { what: "size of the vocabulary", name }
        })?;
        let max_positions = max_positions(graph, tokens);
        Ok(Self { tokens, mask, positions, switch, caches, logits, vocab, max_positions })
    }
}

fn take(values: &mut Vec<ValueId>, is_wanted: impl Fn(ValueId) -> bool) -> Option<ValueId> {
    let index = values.iter().position(|v| is_wanted(*v))?;
    Some(values.remove(index))
}

/// The integer input that selects rows of the largest table.
fn find_tokens(graph: &Graph, facts: &Facts) -> Option<ValueId> {
    let score =
        |v: &ValueId| (largest_table(graph, facts, *v), graph.value(*v).name == "input_ids");
    let is_integer = |v: &ValueId| facts.get(*v).dtype.is_some_and(DataType::is_integer);
    let best = graph.inputs.iter().copied().filter(is_integer).max_by_key(score)?;
    (largest_table(graph, facts, best) > 0).then_some(best)
}

/// One truth value, which does nothing but decide which branches are taken.
fn is_switch(graph: &Graph, facts: &Facts, value: ValueId) -> bool {
    let fact = facts.get(value);
    let is_small = fact.shape.as_ref().is_some_and(|shape| {
        shape.len() <= 1 && shape.iter().all(|size| size.as_const() == Some(1))
    });
    let decides = |(id, index): &(planish_ir::NodeId, usize)| {
        let node = graph.node(*id);
        let same = ["Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze"];
        *index == 0 && (node.is("If") || same.iter().any(|op| node.is(op)))
    };
    let users = aliases(graph, value).into_iter().flat_map(|alias| graph.users(alias));
    fact.dtype == Some(DataType::Bool) && is_small && users.into_iter().all(|user| decides(&user))
}

/// Whether a graph within looks rows up by what it captures of `indices`.
fn selects_within(graph: &Graph, indices: ValueId) -> bool {
    aliases(graph, indices).into_iter().any(|alias| {
        graph.users(alias).into_iter().any(|(id, index)| {
            let node = graph.node(id);
            let mut inner = node.attributes.values().flat_map(|attribute| attribute.graphs());
            match index {
                1 => node.is("Gather"),
                usize::MAX => inner.any(|inner| {
                    let mut captured = inner.captures.iter().filter(|c| c.outer == alias);
                    captured.any(|capture| selects_within(inner, capture.inner))
                }),
                _ => false,
            }
        })
    })
}

/// Elements of the largest table that `indices` selects from; 0 if there is none.
fn largest_table(graph: &Graph, facts: &Facts, indices: ValueId) -> i64 {
    let tables =
        aliases(graph, indices).into_iter().flat_map(|v| graph.users(v)).map(|(id, at)| {
            let node = graph.node(id);
            let selects =
                at == 1 && (node.is("Gather") || node.is_of(MICROSOFT, "GatherBlockQuantized"));
            let shape = node.input(0).filter(|_| selects).and_then(|v| facts.get(v).shape);
            shape.map_or(0, |s| s.iter().map(|d| d.as_const().unwrap_or(1)).product())
        });
    let largest = tables.max().unwrap_or(0);
    // Of a table within a branch nothing is known but that it is there.
    largest.max(i64::from(selects_within(graph, indices)))
}

/// A value and what is the same up to type and shape.
pub(super) fn aliases(graph: &Graph, value: ValueId) -> Vec<ValueId> {
    let mut found = vec![value];
    let mut next = 0;
    while let Some(value) = found.get(next).copied() {
        next += 1;
        for (id, index) in graph.users(value) {
            let node = graph.node(id);
            let same = ["Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten"];
            if index == 0 && same.iter().any(|op| node.is(op)) {
                found.extend(node.output(0).filter(|v| !found.contains(v)));
            }
        }
    }
    found
}

/// As wide as the token ids, or called so where widths are not known.
fn is_positions(graph: &Graph, facts: &Facts, value: ValueId, tokens: ValueId) -> bool {
    let (fact, ids) = (facts.get(value), facts.get(tokens));
    if !fact.dtype.is_some_and(DataType::is_integer) {
        return false;
    }
    let is_called_so = graph.value(value).name.contains("position");
    match (fact.dim(-1), ids.dim(-1)) {
        (Some(a), Some(b)) => a == b && !graph.value(value).name.contains("mask") || is_called_so,
        _ => is_called_so,
    }
}

/// A matrix of another width than the token ids', or called a mask.
fn is_mask(graph: &Graph, facts: &Facts, value: ValueId, tokens: ValueId) -> bool {
    let fact = facts.get(value);
    let is_called_so = graph.value(value).name.contains("mask");
    match (fact.rank(), fact.dim(-1)) {
        (Some(2), Some(width)) => is_called_so || Some(width) != facts.get(tokens).dim(-1),
        (None, _) => is_called_so,
        _ => false,
    }
}

/// The float output of rank 3 with the most channels that continues no cache; of equals the one
/// called logits.
fn find_logits(graph: &Graph, facts: &Facts, caches: &[CachePair]) -> Option<ValueId> {
    let is_candidate = |v: &ValueId| {
        let fact = facts.get(*v);
        let is_float = fact.dtype.is_none_or(DataType::is_float);
        let fits = fact.rank().map_or(graph.value(*v).name.contains("logits"), |rank| rank == 3);
        is_float && fits && caches.iter().all(|pair| pair.present != *v)
    };
    let score = |v: &ValueId| {
        let width = facts.get(*v).dim(-1).and_then(Dim::as_const).unwrap_or(0);
        (width, graph.value(*v).name.contains("logits"))
    };
    graph.outputs.iter().copied().filter(is_candidate).max_by_key(score)
}
