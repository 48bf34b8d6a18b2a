//! Attention in single operators.

use planish_ir::{Dim, Graph, Node, NodeId, ValueId};
use planish_kernels::Fact;
use planish_kernels::infer::Facts;

use super::super::constants::int64s;
use super::mask_terms::Peeled;
use super::{Parts, mask_terms};
use crate::pattern::{Match, Pattern, any, as_number, match_value, number, one_of, op, scalar};

/// The parts of an attention whose last product is the node `id`; nothing if it does not start
/// from a softmax.
///
/// # Errors
/// A sentence that says what is different, where it starts from one.
pub(super) fn parts(
    graph: &mut Graph,
    facts: &mut Facts,
    id: NodeId,
) -> Result<Option<Parts>, String> {
    let node = graph.node(id);
    let (Some(probabilities), Some(v)) = (node.input(0), node.input(1)) else { return Ok(None) };
    let Ok(softmax) = match_value(graph, &guarded_softmax(), probabilities) else {
        return Ok(None);
    };
    check_softmax_axis(graph, facts, &softmax)?;
    scores(graph, facts, softmax.value("logits"), v).map(Some)
}

/// softmax(logits), also where rows of NaN (everything masked) are made zero
fn guarded_softmax() -> Pattern {
    let softmax = op("Softmax", [any("logits")]).named("softmax");
    one_of([softmax.clone(), op("Where", [op("IsNaN", [softmax.clone()]), number(0.0), softmax])])
}

fn check_softmax_axis(graph: &Graph, facts: &Facts, found: &Match) -> Result<(), String> {
    let value = found.value("softmax");
    let axis = graph.producer_node(value).map_or(-1, |node| node.int("axis", -1));
    if facts.get(value).rank() == Some(4) && (axis == -1 || axis == 3) {
        return Ok(());
    }
    Err(format!("the softmax runs over axis {axis}, not the last of four"))
}

/// scores, under any masks and biases; scores = [cap · tanh(… / cap)], … = [scale ·] (q · kᵀ)
fn scores(
    graph: &mut Graph,
    facts: &mut Facts,
    logits: ValueId,
    v: ValueId,
) -> Result<Parts, String> {
    let Peeled { found, terms, factor } = mask_terms::peel(graph, &capped(), logits)?;
    let number_of =
        |name| found.try_value(name).and_then(|v| graph.constant(v)).and_then(as_number);
    let softcap = number_of("cap").unwrap_or(0.0);
    let mut scale = number_of("factor").unwrap_or(1.0) / number_of("divisor").unwrap_or(1.0);
    let q = unscaled(graph, found.value("q"), &mut scale);
    let k_transposed = unscaled(graph, found.value("k_transposed"), &mut scale);
    let k = untransposed(graph, facts, k_transposed)
        .or_else(|| turned_once(graph, facts, k_transposed))
        .ok_or_else(|| format!("\"{}\" is no transpose of keys", graph.value(k_transposed).name))?;
    let k = unscaled(graph, k, &mut scale);
    if softcap != 0.0 && factor != 1.0 {
        return Err("capped scores are scaled below their mask".into());
    }
    scale *= factor;
    Ok(Parts {
        q,
        k,
        v,
        mask: mask_terms::join(graph, terms),
        scale: Some(scale),
        softcap,
        is_causal: false,
    })
}

/// cap · tanh(scores / cap), or the scores alone
fn capped() -> Pattern {
    one_of([op("Tanh", [scaled_product() / scalar("cap")]) * scalar("cap"), scaled_product()])
}

/// scale · (q · kᵀ), (q · kᵀ) / divisor, or q · kᵀ
fn scaled_product() -> Pattern {
    let product = || op("MatMul", [any("q"), any("k_transposed")]);
    one_of([product() * scalar("factor"), product() / scalar("divisor"), product()])
}

/// The value below products with single numbers, which go into `scale`.
pub(super) fn unscaled(graph: &Graph, value: ValueId, scale: &mut f32) -> ValueId {
    let scaled = any("x") * scalar("factor");
    match match_value(graph, &scaled, value) {
        Ok(found) => {
            *scale *= found.number(graph, "factor");
            unscaled(graph, found.value("x"), scale)
        }
        Err(_) => value,
    }
}

/// k where the value is kᵀ: by one Transpose, or by Reshape to three axes, Transpose, Reshape.
fn untransposed(graph: &mut Graph, facts: &mut Facts, value: ValueId) -> Option<ValueId> {
    let node = graph.producer_node(value)?;
    if node.is("Transpose") && node.ints("perm")? == [0, 1, 3, 2] {
        return node.input(0);
    }
    let middle = graph.producer_node(node.input(0).filter(|_| node.is("Reshape"))?)?;
    if !middle.is("Transpose") || middle.ints("perm")? != [0, 2, 1] {
        return None;
    }
    let flattened = graph.producer_node(middle.input(0)?).filter(|n| n.is("Reshape"))?;
    let source = flattened.input(0)?;
    let (before, after) = (facts.shape(source)?, facts.shape(value)?);
    let [batch, heads, size, length] = after else { return None };
    let wanted = [batch, heads, length, size].map(Dim::clone).to_vec();
    if *before == wanted[..] {
        return Some(source);
    }
    let merged = facts.shape(flattened.output(0)?)?;
    if before.len() == 4 || *merged != [batch.mul(heads), length.clone(), size.clone()] {
        return None;
    }
    unflattened(graph, facts, source, wanted)
}

/// `source`, which has heads and batch on more axes yet, with `shape`.
fn unflattened(
    graph: &mut Graph,
    facts: &mut Facts,
    source: ValueId,
    shape: Vec<Dim>,
) -> Option<ValueId> {
    let sizes: Vec<i64> = shape.iter().map(|dim| dim.as_const().unwrap_or(-1)).collect();
    if sizes.iter().filter(|size| **size < 0).count() > 1 {
        return None;
    }
    let target = graph.add_constant("heads_apart", int64s(&sizes));
    let hint = format!("{}/heads", graph.value(source).name);
    let keys = graph.add_op(&hint, Node::new("Reshape", vec![Some(source), Some(target)]));
    let dtype = facts.get(source).dtype;
    facts.set(keys, Fact::new(dtype, Some(shape)));
    Some(keys)
}

/// k where kᵀ is made of `[batch, sequence, heads, size]` by a single Transpose.
fn turned_once(graph: &mut Graph, facts: &mut Facts, value: ValueId) -> Option<ValueId> {
    let node = graph.producer_node(value).filter(|node| node.is("Transpose"))?;
    let source = node.input(0).filter(|_| node.ints("perm") == Some(&[0, 2, 3, 1]))?;
    let [batch, sequence, heads, size] = facts.shape(source)? else { return None };
    let shape = [batch, heads, sequence, size].map(Dim::clone).to_vec();
    let dtype = facts.get(source).dtype;
    let hint = format!("{}/heads", graph.value(source).name);
    let turn = Node::new("Transpose", vec![Some(source)]).with("perm", vec![0, 2, 1, 3]);
    let keys = graph.add_op(&hint, turn);
    facts.set(keys, Fact::new(dtype, Some(shape)));
    Some(keys)
}
