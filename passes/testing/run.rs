//! Running a tiny decoder with the operators' reference forms.

use std::collections::HashMap;

use planish_ir::{Dim, Graph, Model, NodeId, Tensor, ValueId};

use crate::interpret::Interpreter;

/// Sequences in the batch.
const BATCH: usize = 2;

/// The logits, `[batch, sequence, vocabulary]` each, of a prefill of five tokens on an empty
/// cache and of a step of one token after it.
pub(crate) fn run(model: &Model) -> [Vec<f32>; 2] {
    let ids = |n: usize, first: i64| -> Vec<i64> {
        (0..BATCH * n).map(|i| (first + 17 * i as i64) % 61).collect()
    };
    let empty = vec![None; model.graph.inputs.len() - 2];
    let prefill = run_step(model, ids(5, 3), 0, empty);
    let cache = prefill[1..].iter().cloned().map(Some).collect();
    let step = run_step(model, ids(1, 40), 5, cache);
    [&prefill[0], &step[0]].map(|logits| logits.to_f32_vec().expect("floats"))
}

/// All outputs for the given tokens, which follow `n_past` tokens in the cache.
pub(crate) fn run_step(
    model: &Model,
    ids: Vec<i64>,
    n_past: usize,
    cache: Vec<Option<Tensor>>,
) -> Vec<Tensor> {
    let n = ids.len() / BATCH;
    let positions = (0..BATCH * n).map(|i| (n_past + i % n) as i64).collect();
    let mut tensors =
        vec![Tensor::from_vec(&[BATCH, n], ids), Tensor::from_vec(&[BATCH, n], positions)];
    for (value, past) in model.graph.inputs[2..].iter().zip(cache) {
        tensors.push(past.unwrap_or_else(|| empty_past(model, *value)));
    }
    evaluate(model, tensors)
}

/// All outputs of the model for its inputs.
pub(crate) fn evaluate(model: &Model, inputs: Vec<Tensor>) -> Vec<Tensor> {
    let graph = &model.graph;
    let mut known: HashMap<ValueId, Tensor> = graph.inputs.iter().copied().zip(inputs).collect();
    known.extend(graph.node_ids().filter_map(|id| dequantized(graph, id)));
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let mut interpreter = Interpreter::new(graph, &opset, known);
    // In order, so that every step finds its inputs: there is never much to look up.
    for node in graph.topological_order().expect("no cycle") {
        for output in graph.node(node).outputs.iter().flatten() {
            interpreter.value(*output).expect("the model runs");
        }
    }
    let value = |output: &ValueId| interpreter.value(*output).expect("just computed");
    graph.outputs.iter().map(value).collect()
}

/// The result of a `DequantizeLinear` of constants: with one scale for each index of `axis`, or
/// for each block along the first axis.
fn dequantized(graph: &Graph, id: NodeId) -> Option<(ValueId, Tensor)> {
    let node = graph.node(id);
    let codes = graph.constant(node.input(0).filter(|_| node.is("DequantizeLinear"))?)?;
    let scale = graph.constant(node.input(1)?)?.to_f32_vec().ok()?;
    let n_columns = *codes.shape().last()?;
    let block = usize::try_from(node.int("block_size", 0)).ok()?;
    let scale_of = |i: usize| match (block, node.int("axis", 1)) {
        (0, 0) => scale[i / n_columns],
        (0, _) => scale[i % n_columns],
        (block, _) => scale[i / n_columns / block * n_columns + i % n_columns],
    };
    let values = codes.to_f32_vec().ok()?.into_iter().enumerate();
    let data = values.map(|(i, code)| code * scale_of(i)).collect();
    Some((node.output(0)?, Tensor::from_vec(codes.shape(), data)))
}

fn empty_past(model: &Model, value: ValueId) -> Tensor {
    let shape = model.graph.value(value).shape().expect("declared");
    let size = |axis: usize| shape.get(axis).and_then(Dim::as_usize).expect("a number");
    Tensor::from_vec(&[BATCH, size(1), 0, size(3)], Vec::<f32>::new())
}

/// The largest difference of the logits of two runs, over the largest logit.
pub(crate) fn largest_difference(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    assert!(a.iter().zip(b).all(|(a, b)| a.len() == b.len()));
    let difference = pairs.map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
    let largest = a.iter().flatten().fold(0.0f32, |max, x| max.max(x.abs()));
    assert!(a.iter().chain(b).flatten().all(|x| x.is_finite()), "a logit is not finite");
    difference.fold(0.0, f32::max) / largest
}

/// The mean difference of the logits of two runs, over the mean size of the first's logits.
pub(crate) fn mean_difference(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    let difference: f32 = pairs.map(|(a, b)| (a - b).abs()).sum();
    difference / a.iter().flatten().map(|x| x.abs()).sum::<f32>()
}
