//! What is done to scores before the softmax, as one mask.

use planish_ir::{Graph, Node, Tensor, ValueId};

use crate::pattern::{Match, Pattern, any, match_value, number, op, scalar};

/// What hides a key when it takes the place of its score, or less.
const HIDDEN: f32 = -1e4;
/// Most masks and biases one after the other.
const MAX_TERMS: usize = 4;

/// One mask or bias.
#[derive(Clone, Copy)]
pub(super) enum Term {
    /// It is added.
    Bias(ValueId),
    /// Where the condition is not `visible`, the number takes the place of the score.
    Hides { condition: ValueId, low: ValueId, visible: bool },
}

/// Matches `pattern` below masks and biases; these from the innermost on.
///
/// # Errors
/// Why `pattern` does not match.
pub(super) fn peel(
    graph: &Graph,
    pattern: &Pattern,
    logits: ValueId,
) -> Result<(Match, Vec<Term>), String> {
    peel_some(graph, pattern, logits, MAX_TERMS)
}

fn peel_some(
    graph: &Graph,
    pattern: &Pattern,
    value: ValueId,
    most: usize,
) -> Result<(Match, Vec<Term>), String> {
    // The outermost form first: a cap or a scale alone would match below a mask as well.
    let mut reason = None;
    for (below, term) in outermost(graph, value) {
        match peel_some(graph, pattern, below, most.saturating_sub(1)) {
            Ok((found, mut terms)) if terms.len() < most => {
                terms.push(term);
                return Ok((found, terms));
            }
            Ok(_) => {}
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    match match_value(graph, pattern, value) {
        Ok(found) => Ok((found, Vec::new())),
        Err(miss) => Err(reason.unwrap_or(miss.reason)),
    }
}

/// The ways in which `value` can be something under one more mask.
fn outermost(graph: &Graph, value: ValueId) -> Vec<(ValueId, Term)> {
    let Some(node) = graph.producer_node(value) else { return Vec::new() };
    let input = |index: usize| node.input(index);
    match node.op_type.as_str() {
        "Add" if node.domain.is_empty() => {
            let (Some(a), Some(b)) = (input(0), input(1)) else { return Vec::new() };
            vec![(a, Term::Bias(b)), (b, Term::Bias(a))]
        }
        "Where" if node.domain.is_empty() => {
            let (Some(condition), Some(a), Some(b)) = (input(0), input(1), input(2)) else {
                return Vec::new();
            };
            let hides = |low, visible| Term::Hides { condition, low, visible };
            match (is_low(graph, a), is_low(graph, b)) {
                (true, false) => vec![(b, hides(a, false))],
                (false, true) => vec![(a, hides(b, true))],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn is_low(graph: &Graph, value: ValueId) -> bool {
    let tensor = graph.constant(value).filter(|tensor| tensor.n_elements() == 1);
    tensor.and_then(crate::pattern::as_number).is_some_and(|low| low <= HIDDEN)
}

/// One mask for all terms: boolean where nothing is added.
pub(super) fn join(graph: &mut Graph, terms: Vec<Term>) -> Option<ValueId> {
    if let [only] = terms[..] {
        return Some(match only {
            Term::Bias(mask) => boolean_mask(graph, mask),
            Term::Hides { condition, visible: true, .. } => condition,
            Term::Hides { condition, visible: false, .. } => {
                graph.add_op("visible", Node::new("Not", vec![Some(condition)]))
            }
        });
    }
    let mut joined: Option<ValueId> = None;
    for term in terms {
        let node = match (term, joined) {
            (Term::Bias(bias), None) => {
                joined = Some(bias);
                continue;
            }
            (Term::Bias(bias), Some(mask)) => Node::new("Add", vec![Some(mask), Some(bias)]),
            (Term::Hides { condition, low, visible }, before) => {
                let mask =
                    before.unwrap_or_else(|| graph.add_constant("nothing", Tensor::scalar(0f32)));
                let (yes, no) = if visible { (mask, low) } else { (low, mask) };
                Node::new("Where", vec![Some(condition), Some(yes), Some(no)])
            }
        };
        joined = Some(graph.add_op("mask", node));
    }
    joined
}

/// `Where(keep, 0, very negative)` as the boolean `keep`; any other mask as it is.
fn boolean_mask(graph: &Graph, mask: ValueId) -> ValueId {
    let pattern = op("Where", [any("keep"), number(0.0), scalar("low")]);
    match match_value(graph, &pattern, mask) {
        Ok(found) if found.number(graph, "low") <= HIDDEN => found.value("keep"),
        _ => mask,
    }
}
