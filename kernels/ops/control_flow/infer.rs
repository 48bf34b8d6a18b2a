//! Shape inference through held graphs.

use planish_ir::{Dim, Graph, Node};

use crate::Fact;
use crate::infer::{infer_given, is_unknown};

/// Facts of the outputs of `graph`, given those of its inputs. Nothing is known where they
/// contradict each other: the graph may be a branch that is never taken.
pub(super) fn outputs(graph: &Graph, opset: i64, inputs: &[Fact]) -> Vec<Fact> {
    let own = |domain: &str| if domain.is_empty() { opset } else { 1 };
    let given = graph.inputs.iter().copied().zip(inputs.iter().enumerate().map(renamed));
    let Ok(facts) = infer_given(graph, &own, given) else {
        return vec![Fact::unknown(); graph.outputs.len()];
    };
    graph.outputs.iter().map(|output| facts.get(*output)).collect()
}

/// A fact as an inner graph may see it: sizes that only a run can tell are called by numbers of
/// values, which mean other values in there.
fn renamed((index, fact): (usize, &Fact)) -> Fact {
    let rename = |(axis, dim): (usize, &Dim)| match is_unknown(dim) {
        true => Dim::symbol(&format!("unknown_captured_{index}_{axis}")),
        false => dim.clone(),
    };
    let shape = fact.shape.as_ref().map(|shape| shape.iter().enumerate().map(rename).collect());
    let dims = fact.dims.clone().filter(|dims| !dims.iter().any(is_unknown));
    Fact { shape, dims, ..fact.clone() }
}

/// A fact of an inner graph as one of output `index` of `node`: sizes that only a run can tell
/// get names of their own.
pub(super) fn outer(node: &Node, index: usize, fact: Fact) -> Fact {
    let rename = |(axis, dim): (usize, &Dim)| match is_unknown(dim) {
        true => fresh(node, index, axis),
        false => dim.clone(),
    };
    let shape = fact.shape.as_ref().map(|shape| shape.iter().enumerate().map(rename).collect());
    let dims = fact.dims.clone().filter(|dims| !dims.iter().any(is_unknown));
    Fact { shape, dims, ..fact }
}

/// A symbol for the size of `axis` of output `index`.
pub(super) fn fresh(node: &Node, index: usize, axis: usize) -> Dim {
    let output = node.outputs.get(index).copied().flatten().map_or(0, |value| value.index());
    Dim::symbol(&format!("unknown_{output}_{index}_{axis}"))
}

/// What holds of a value that is either of two; `axis` to symbol for sizes that differ.
pub(super) fn either(a: Fact, b: Fact, symbol: impl Fn(usize) -> Dim) -> Fact {
    let dtype = a.dtype.filter(|dtype| b.dtype == Some(*dtype));
    let shape = match (a.shape, b.shape) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            let pairs = a.into_iter().zip(b).enumerate();
            Some(pairs.map(|(i, (a, b))| if a == b { a } else { symbol(i) }).collect())
        }
        _ => None,
    };
    let dims = a.dims.filter(|dims| b.dims.as_ref() == Some(dims));
    Fact { dims, ..Fact::new(dtype, shape) }
}

/// Type and shape alone.
pub(super) fn typed(fact: &Fact) -> Fact {
    Fact::new(fact.dtype, fact.shape.clone())
}

/// What holds of carried values after any number of iterations, from what holds of them at first
/// and what one iteration (`step`) makes of what holds before.
pub(super) fn carried(
    node: &Node,
    first: &[Fact],
    step: impl Fn(&[Fact]) -> Vec<Fact>,
) -> Vec<Fact> {
    let mut states: Vec<Fact> = first.iter().map(typed).collect();
    for _ in 0..3 {
        let after = step(&states);
        let merged: Vec<Fact> = states
            .iter()
            .zip(after)
            .enumerate()
            .map(|(i, (state, after))| {
                let after = outer(node, i, after);
                let merged = either(state.clone(), after, |axis| fresh(node, i, axis));
                Fact { dtype: state.dtype, dims: None, ..merged }
            })
            .collect();
        if merged == states {
            return states;
        }
        states = merged;
    }
    states.iter().map(|state| Fact::new(state.dtype, None)).collect()
}
