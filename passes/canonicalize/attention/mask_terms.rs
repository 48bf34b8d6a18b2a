//! What is done to scores before the softmax, as one mask.

use planish_ir::{Graph, Node, Tensor, ValueId};

use crate::pattern::{Match, Pattern, any, as_number, match_value, number, op, scalar};

/// What hides a key when it takes the place of its score, or less.
const HIDDEN: f32 = -1e4;
/// Most masks and biases one after the other.
const MAX_TERMS: usize = 4;

/// One mask or bias.
#[derive(Clone, Copy)]
pub(super) enum Term {
    /// It is added, this many times.
    Bias(ValueId, f32),
    /// Where the condition is not `visible`, the number takes the place of the score.
    Hides { condition: ValueId, low: ValueId, visible: bool },
}

/// What stands between a product and its softmax.
enum Layer {
    Term(Term),
    /// All below times a number.
    Scale(f32),
    /// All below, but no lower than a very low number.
    Floor,
}

/// A pattern below masks and biases.
pub(super) struct Peeled {
    pub(super) found: Match,
    /// From the innermost on.
    pub(super) terms: Vec<Term>,
    /// What the matched value is multiplied by above a mask.
    pub(super) factor: f32,
}

/// Matches `pattern` below masks, biases and what scales them together.
///
/// # Errors
/// Why `pattern` does not match.
pub(super) fn peel(graph: &Graph, pattern: &Pattern, logits: ValueId) -> Result<Peeled, String> {
    peel_some(graph, pattern, logits, MAX_TERMS)
}

fn peel_some(
    graph: &Graph,
    pattern: &Pattern,
    value: ValueId,
    most: usize,
) -> Result<Peeled, String> {
    // The outermost form first: a cap or a scale alone would match below a mask as well.
    let mut reason = None;
    for (below, layer) in outermost(graph, value) {
        match peel_some(graph, pattern, below, most.saturating_sub(1)) {
            Ok(mut peeled) if peeled.terms.len() < most => {
                if peeled.put(graph, layer) {
                    return Ok(peeled);
                }
            }
            Ok(_) => {}
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    match match_value(graph, pattern, value) {
        Ok(found) => Ok(Peeled { found, terms: Vec::new(), factor: 1.0 }),
        Err(miss) => Err(reason.unwrap_or(miss.reason)),
    }
}

impl Peeled {
    /// Takes one more layer around it. A scale or a floor is one only around a mask, and what
    /// hides must still hide when it is scaled.
    fn put(&mut self, graph: &Graph, layer: Layer) -> bool {
        let scale = match layer {
            Layer::Term(term) => {
                self.terms.push(term);
                return true;
            }
            Layer::Floor => 1.0,
            Layer::Scale(scale) => scale,
        };
        let still_hides = |term: &Term| match term {
            Term::Bias(..) => true,
            Term::Hides { low, .. } => {
                number_of(graph, *low).is_some_and(|low| low * scale <= HIDDEN)
            }
        };
        if self.terms.is_empty() || scale <= 0.0 || !self.terms.iter().all(still_hides) {
            return false;
        }
        for term in &mut self.terms {
            if let Term::Bias(_, times) = term {
                *times *= scale;
            }
        }
        self.factor *= scale;
        true
    }
}

/// The ways in which `value` can be something under one more mask or scale.
fn outermost(graph: &Graph, value: ValueId) -> Vec<(ValueId, Layer)> {
    let Some(node) = graph.producer_node(value).filter(|node| node.domain.is_empty()) else {
        return Vec::new();
    };
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return Vec::new() };
    let scaled = |below, scale| vec![(below, Layer::Scale(scale))];
    match (node.op_type.as_str(), number_of(graph, a), number_of(graph, b)) {
        ("Mul", _, Some(factor)) => scaled(a, factor),
        ("Mul", Some(factor), _) => scaled(b, factor),
        ("Div", _, Some(divisor)) => scaled(a, 1.0 / divisor),
        ("Max", _, Some(low)) if low <= HIDDEN => vec![(a, Layer::Floor)],
        ("Max", Some(low), _) if low <= HIDDEN => vec![(b, Layer::Floor)],
        ("Add", ..) => {
            let bias = |value| Layer::Term(Term::Bias(value, 1.0));
            vec![(a, bias(b)), (b, bias(a))]
        }
        ("Where", ..) => node.input(2).map(|c| hidden(graph, [a, b, c])).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// What `Where(condition, a, b)` hides, if one of both is a very low number.
fn hidden(graph: &Graph, [condition, a, b]: [ValueId; 3]) -> Vec<(ValueId, Layer)> {
    let hides = |low, visible| Layer::Term(Term::Hides { condition, low, visible });
    match (is_low(graph, a), is_low(graph, b)) {
        (true, false) => vec![(b, hides(a, false))],
        (false, true) => vec![(a, hides(b, true))],
        _ => Vec::new(),
    }
}

fn is_low(graph: &Graph, value: ValueId) -> bool {
    number_of(graph, value).is_some_and(|low| low <= HIDDEN)
}

/// A constant of one element.
fn number_of(graph: &Graph, value: ValueId) -> Option<f32> {
    graph.constant(value).filter(|tensor| tensor.n_elements() == 1).and_then(as_number)
}

/// One mask for all terms: boolean where nothing is added.
pub(super) fn join(graph: &mut Graph, terms: Vec<Term>) -> Option<ValueId> {
    if let [only] = terms[..] {
        return Some(match only {
            Term::Bias(mask, times) => match boolean_mask(graph, mask, times) {
                Some(keep) => keep,
                None => scaled(graph, mask, times),
            },
            Term::Hides { condition, visible: true, .. } => condition,
            Term::Hides { condition, visible: false, .. } => {
                graph.add_op("visible", Node::new("Not", vec![Some(condition)]))
            }
        });
    }
    let mut joined: Option<ValueId> = None;
    for term in terms {
        let node = match (term, joined) {
            (Term::Bias(bias, times), None) => {
                joined = Some(scaled(graph, bias, times));
                continue;
            }
            (Term::Bias(bias, times), Some(mask)) => {
                let bias = scaled(graph, bias, times);
                Node::new("Add", vec![Some(mask), Some(bias)])
            }
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

/// The value this many times.
fn scaled(graph: &mut Graph, value: ValueId, times: f32) -> ValueId {
    if times == 1.0 {
        return value;
    }
    let times = graph.add_constant("times", Tensor::scalar(times));
    graph.add_op("mask", Node::new("Mul", vec![Some(value), Some(times)]))
}

/// `Where(keep, 0, very negative)`, this many times, as the boolean `keep`.
fn boolean_mask(graph: &Graph, mask: ValueId, times: f32) -> Option<ValueId> {
    let pattern = op("Where", [any("keep"), number(0.0), scalar("low")]);
    let found = match_value(graph, &pattern, mask).ok()?;
    (found.number(graph, "low") * times <= HIDDEN).then(|| found.value("keep"))
}
