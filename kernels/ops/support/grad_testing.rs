//! Gradient rules against finite differences of the reference evaluation, for the tests.

use std::collections::HashMap;

use planish_ir::{Dim, Graph, Node, Tensor, TensorType, ValueId, ValueType};

use super::testing::{Case, assert_close, present};
use crate::infer::infer_graph;
use crate::{GradNode, GradScope, OpNode, ops};

/// The gradients of Σ dY · Y, with Y the first output of `case`, that the operator's rule gives
/// for the inputs that are wanted: its nodes are run by their reference evaluations.
pub(in crate::ops) fn gradients(
    case: &Case,
    inputs: &[Tensor],
    dy: &Tensor,
    wanted: &[bool],
) -> Vec<Option<Tensor>> {
    let mut graph = Graph::new("forward");
    let mut tensors = HashMap::new();
    let mut input = |graph: &mut Graph, tensor: &Tensor| {
        let shape = Some(tensor.shape().iter().map(|d| Dim::from(*d)).collect());
        let ty = TensorType { dtype: Some(tensor.dtype()), shape };
        let value = graph.new_value("x", ValueType::Tensor(ty));
        graph.inputs.push(value);
        tensors.insert(value, tensor.clone());
        value
    };
    let values = inputs.iter().map(|x| Some(input(&mut graph, x))).collect();
    let dy = input(&mut graph, dy);
    let outputs = graph.add_op_n("y", Node { inputs: values, ..case.node.clone() }, 1);
    let opset = |_: &str| case.opset;
    let mut facts = infer_graph(&graph, &opset).expect("an inference");
    let (id, _) = graph.producer(outputs[0]).expect("a node");
    let node = graph.node(id).clone();
    let rule = ops::find(&node.domain, &node.op_type).and_then(|op| op.grad).expect("a rule");
    let op = OpNode { node: &node, opset: case.opset };
    let forward = GradNode { op, outputs: &[Some(dy)], wanted };
    let gradients = rule(&mut GradScope::new(&mut graph, &mut facts, &opset), &forward);
    let gradients = gradients.expect("gradients");
    evaluate(&graph, &mut tensors, case.opset);
    let tensor = |value: Option<ValueId>| value.map(|value| tensors[&value].clone());
    gradients.into_iter().zip(wanted).map(|(g, wanted)| tensor(g.filter(|_| *wanted))).collect()
}

/// Runs all nodes in order.
fn evaluate(graph: &Graph, tensors: &mut HashMap<ValueId, Tensor>, opset: i64) {
    for id in graph.topological_order().expect("an order") {
        let node = graph.node(id);
        let tensor = |value: &Option<ValueId>| {
            let value = (*value)?;
            tensors.get(&value).or_else(|| graph.constant(value)).cloned()
        };
        let inputs: Vec<Option<Tensor>> = node.inputs.iter().map(tensor).collect();
        let results = match node.op_type.as_str() {
            "FusedMatMul" => vec![fused_matmul(node, &inputs)],
            name => {
                let op = ops::find(&node.domain, name).expect("a listed operator");
                (op.eval)(&OpNode { node, opset }, &inputs).expect("an evaluation")
            }
        };
        let outputs = node.outputs.iter().zip(results);
        tensors.extend(outputs.filter_map(|(value, tensor)| Some(((*value)?, tensor))));
    }
}

/// The product of two matrices, either transposed first.
fn fused_matmul(node: &Node, inputs: &[Option<Tensor>]) -> Tensor {
    let read = |index: usize, attribute: &str| {
        let tensor = inputs[index].as_ref().expect("a factor");
        let &[rows, cols] = tensor.shape() else { panic!("a matrix") };
        let data = tensor.to_f32_vec().unwrap();
        match node.int(attribute, 0) {
            0 => (rows, cols, data),
            _ => (cols, rows, (0..rows * cols).map(|i| data[i % rows * cols + i / rows]).collect()),
        }
    };
    let ((m, k, a), (_, n, b)) = (read(0, "transA"), read(1, "transB"));
    let cell = |i: usize| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum::<f32>();
    Tensor::from_vec(&[m, n], (0..m * n).map(cell).collect())
}

/// Fails unless the rule's gradients of the wanted inputs are within `tolerance` of finite
/// differences.
pub(in crate::ops) fn assert_slopes(
    case: &Case,
    inputs: &[&Tensor],
    dy: &Tensor,
    wanted: &[bool],
    tolerance: f32,
) {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| (*x).clone()).collect();
    let found = gradients(case, &inputs, dy, wanted);
    for (i, found) in found.iter().enumerate() {
        assert_eq!(found.is_some(), wanted[i], "gradient of input {i}");
        if let Some(found) = found {
            println!("{}, input {i}", case.node.op_type);
            assert_close(found, &slopes(case, &inputs, i, dy), tolerance);
        }
    }
}

/// The derivatives of Σ dY · Y by the input at `index`: differences of fourth order, which take
/// steps so large that the rounding of Y to f32 does not matter.
fn slopes(case: &Case, inputs: &[Tensor], index: usize, dy: &Tensor) -> Tensor {
    const STEP: f32 = 1.0 / 32.0;
    let (x, dy) = (inputs[index].to_f32_vec().unwrap(), dy.to_f32_vec().unwrap());
    let shape = inputs[index].shape();
    let slope = |i: usize| {
        let loss = |offset: f32| {
            let mut moved = x.clone();
            moved[i] += offset;
            let moved = Tensor::from_vec(shape, moved);
            let mut all: Vec<&Tensor> = inputs.iter().collect();
            all[index] = &moved;
            let y = case.eval(&present(&all)).swap_remove(0).to_f32_vec().unwrap();
            y.iter().zip(&dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum::<f64>()
        };
        let near = loss(STEP) - loss(-STEP);
        let far = loss(2.0 * STEP) - loss(-2.0 * STEP);
        ((8.0 * near - far) / (12.0 * f64::from(STEP))) as f32
    };
    Tensor::from_vec(shape, (0..x.len()).map(slope).collect())
}

/// Fails unless the fast form gives the same bits on pools of 1, 2, 3 and 5 threads.
pub(in crate::ops) fn assert_same_bits(case: &Case, inputs: &[&Tensor]) {
    let run = |n_threads| {
        let pool = planish_cpu::ThreadPool::new(n_threads);
        let (buffers, mut caches) = (crate::buffers::BufferPool::new(), Vec::new());
        let mut context = crate::CpuContext::new(&pool, &buffers, &mut caches);
        case.run_cpu_in(&mut context, &present(inputs), &[]).expect("a fast form")
    };
    let first = run(1);
    for n_threads in [2, 3, 5] {
        assert!(run(n_threads) == first, "{n_threads} threads give other bits");
    }
}
