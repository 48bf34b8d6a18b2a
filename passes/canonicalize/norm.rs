//! Norms.

use planish_ir::{Attribute, DataType, Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::MICROSOFT;

use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, any, constant, one_of, op, rsqrt, scalar, sqrt};
use crate::rule::{Rewriter, Rule, apply};

/// Lifts decomposed and contributed norms to `RMSNormalization` and `LayerNormalization`.
pub(super) fn lift_norms(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let n_contributed = lift_contributed(&mut model.graph);
    let rules = [
        Rule { name: "lift_layer_norm", pattern: layer_norm_pattern, replace: layer_norm },
        // Before the root mean square, which a norm of x − mean(x) is too.
        Rule { name: "lift_layer_norm", pattern: unbiased_pattern, replace: unbiased },
        Rule { name: "lift_rms_norm", pattern: rms_norm_pattern, replace: rms_norm },
        // What is left are norms whose weight is no vector, or that have none.
        Rule { name: "lift_layer_norm", pattern: centred_norm, replace: bare_layer_norm },
        Rule { name: "lift_rms_norm", pattern: root_mean_square_norm, replace: bare_rms_norm },
    ];
    Ok(n_contributed + apply(model, context, &rules)?)
}

/// x · 1/√(mean(x²) + ε), also with a division by the root, or without an ε, which exporters leave
/// out where it is very small.
fn root_mean_square_norm() -> Pattern {
    let mean_square = op("ReduceMean", [any("x").pow(2.0)]).named("mean");
    let variance = one_of([mean_square.clone() + scalar("epsilon"), mean_square]);
    one_of([any("x") * rsqrt(variance.clone()), any("x") / sqrt(variance)])
}

/// The same · w.
fn rms_norm_pattern() -> Pattern {
    root_mean_square_norm() * constant("weight")
}

fn rms_norm(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    check_last_axis(rewriter, found, "mean")?;
    let (x, weight) = (found.value("x"), found.value("weight"));
    check_vector(rewriter, x, weight, "weight")?;
    let epsilon = epsilon(rewriter.graph, found);
    Ok(rewriter.add_root(norm_node("RMSNormalization", vec![Some(x), Some(weight)], epsilon)))
}

fn bare_rms_norm(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    check_last_axis(rewriter, found, "mean")?;
    let x = found.value("x");
    let weight = ones(rewriter, x)?;
    let epsilon = epsilon(rewriter.graph, found);
    Ok(rewriter.add_root(norm_node("RMSNormalization", vec![Some(x), Some(weight)], epsilon)))
}

fn epsilon(graph: &Graph, found: &Match) -> f32 {
    found.try_value("epsilon").map_or(0.0, |_| found.number(graph, "epsilon"))
}

/// (x − mean(x)) / √(mean((x − mean(x))²) + ε).
fn centred_norm() -> Pattern {
    let centred = || any("x") - op("ReduceMean", [any("x")]).named("middle");
    let mean_square = op("ReduceMean", [centred().pow(2.0)]).named("mean");
    let variance = mean_square + scalar("epsilon");
    one_of([centred() / sqrt(variance.clone()), centred() * rsqrt(variance)])
}

/// The same · w + b.
fn layer_norm_pattern() -> Pattern {
    unbiased_pattern() + constant("bias")
}

fn layer_norm(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let (x, weight, bias) = (found.value("x"), found.value("weight"), found.value("bias"));
    check_vector(rewriter, x, weight, "weight")?;
    check_vector(rewriter, x, bias, "bias")?;
    centred(rewriter, found, vec![Some(x), Some(weight), Some(bias)])
}

/// The centred norm · w.
fn unbiased_pattern() -> Pattern {
    centred_norm() * constant("weight")
}

fn unbiased(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let (x, weight) = (found.value("x"), found.value("weight"));
    check_vector(rewriter, x, weight, "weight")?;
    centred(rewriter, found, vec![Some(x), Some(weight)])
}

fn bare_layer_norm(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let x = found.value("x");
    let weight = ones(rewriter, x)?;
    centred(rewriter, found, vec![Some(x), Some(weight)])
}

fn centred(
    rewriter: &mut Rewriter,
    found: &Match,
    inputs: Vec<Option<ValueId>>,
) -> Result<ValueId, String> {
    check_last_axis(rewriter, found, "middle")?;
    check_last_axis(rewriter, found, "mean")?;
    let epsilon = found.number(rewriter.graph, "epsilon");
    Ok(rewriter.add_root(norm_node("LayerNormalization", inputs, epsilon)))
}

/// A weight that changes nothing.
fn ones(rewriter: &mut Rewriter, x: ValueId) -> Result<ValueId, String> {
    let channels = rewriter.facts.get(x).dim(-1).and_then(|d| d.as_usize());
    let n = channels.ok_or("the number of channels is not known")?;
    if rewriter.facts.get(x).dtype != Some(DataType::F32) {
        return Err("it is not computed in f32".into());
    }
    Ok(rewriter.constant("ones", Tensor::from_vec(&[n], vec![1f32; n])))
}

fn norm_node(op_type: &str, inputs: Vec<Option<ValueId>>, epsilon: f32) -> Node {
    Node::new(op_type, inputs).with("axis", -1).with("epsilon", epsilon).with("stash_type", 1)
}

/// The mean `name` runs over the last axis and keeps it.
fn check_last_axis(rewriter: &Rewriter, found: &Match, name: &str) -> Result<(), String> {
    let mean = found.value(name);
    let node = rewriter.graph.producer_node(mean).expect("the pattern named an operator");
    let axes = node.input(1).and_then(|axes| rewriter.facts.get(axes).ints());
    let rank = rewriter.facts.get(found.value("x")).rank();
    let last = match axes.as_deref() {
        Some([-1]) => true,
        Some([axis]) => rank.is_some_and(|rank| *axis == rank as i64 - 1),
        _ => false,
    };
    if !last {
        return Err(format!("the mean runs over axes {axes:?}, not the last one"));
    }
    if node.int("keepdims", 1) == 0 {
        return Err("the mean does not keep its axis".into());
    }
    Ok(())
}

/// The weight or bias is a vector over the last axis.
fn check_vector(
    rewriter: &Rewriter,
    x: ValueId,
    vector: ValueId,
    what: &str,
) -> Result<(), String> {
    let shape = rewriter.graph.constant(vector).map(|t| t.shape().to_vec()).unwrap_or_default();
    let channels = rewriter.facts.get(x).dim(-1).and_then(|d| d.as_usize());
    match (&shape[..], channels) {
        ([n], Some(channels)) if *n == channels => Ok(()),
        _ => Err(format!("the {what} has shape {shape:?} for {channels:?} channels")),
    }
}

/// `SimplifiedLayerNormalization` (also under ONNX's own domain, as some builders write it) and
/// `SkipSimplifiedLayerNormalization`, `SkipLayerNormalization` of ONNX Runtime.
fn lift_contributed(graph: &mut Graph) -> usize {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        let known = node.domain.is_empty() || node.domain == MICROSOFT;
        let lifted = known
            && match node.op_type.as_str() {
                "SimplifiedLayerNormalization" => lift_simplified(graph, id),
                "SkipSimplifiedLayerNormalization" => lift_skip(graph, id, "RMSNormalization", 3),
                "SkipLayerNormalization" => lift_skip(graph, id, "LayerNormalization", 4),
                _ => false,
            };
        n_rewrites += usize::from(lifted);
    }
    n_rewrites
}

fn lift_simplified(graph: &mut Graph, id: NodeId) -> bool {
    if graph.node(id).outputs.iter().skip(1).flatten().next().is_some() {
        return false;
    }
    let mut node = graph.remove_node(id);
    node.op_type = "RMSNormalization".into();
    node.domain.clear();
    node.attributes.entry("axis".into()).or_insert(Attribute::Int(-1));
    graph.add_node(node).expect("its outputs were just freed");
    true
}

/// Skip norms: (input, skip, weight[, beta][, bias]) → (norm, mean, inverse deviation, sum).
/// `bias_index` is the position of the bias that is added to the sum.
fn lift_skip(graph: &mut Graph, id: NodeId, op_type: &str, bias_index: usize) -> bool {
    let node = graph.node(id);
    let unused = |index: usize| {
        node.output(index).is_none_or(|v| graph.users(v).is_empty() && !graph.is_output(v))
    };
    let (Some(x), Some(skip), Some(weight)) = (node.input(0), node.input(1), node.input(2)) else {
        return false;
    };
    let has_others = node.outputs.iter().skip(4).any(Option::is_some);
    if !unused(1) || !unused(2) || has_others {
        return false;
    }
    let node = graph.remove_node(id);
    let mut sum = add(graph, &node.name, x, skip);
    if let Some(bias) = node.input(bias_index) {
        sum = add(graph, &node.name, sum, bias);
    }
    if let Some(total) = node.output(3) {
        graph.replace_value(total, sum);
    }
    let mut inputs = vec![Some(sum), Some(weight)];
    if op_type == "LayerNormalization" {
        inputs.push(node.input(3));
    }
    let norm = norm_node(op_type, inputs, node.float("epsilon", 1e-5))
        .with_name(node.name.clone())
        .with_outputs(vec![node.output(0)]);
    graph.add_node(norm).expect("its outputs were just freed");
    true
}

fn add(graph: &mut Graph, name: &str, a: ValueId, b: ValueId) -> ValueId {
    let hint = if name.is_empty() { "residual".to_owned() } else { format!("{name}/residual") };
    graph.add_op(&hint, Node::new("Add", vec![Some(a), Some(b)]))
}
