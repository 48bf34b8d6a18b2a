//! Gradient rules and finite differences, for the tests.

use std::collections::HashMap;

use planish_ir::{Graph, Tensor, ValueId, ValueType};

use super::testing::Case;
use crate::infer::Facts;
use crate::{Fact, GradNode, GradScope, OpError, OpNode, ops};

/// The gradients that the rule of `case` emits, evaluated: of the inputs at `wanted`, from those
/// of the outputs.
pub(in crate::ops) fn by_rule(
    case: &Case,
    inputs: &[Option<Tensor>],
    outputs: &[Option<Tensor>],
    wanted: &[usize],
) -> Result<Vec<Option<Tensor>>, OpError> {
    let (mut graph, mut facts) = (Graph::new("rule"), Facts::default());
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    let mut add = |graph: &mut Graph, tensor: &Option<Tensor>| {
        let tensor = tensor.as_ref()?;
        let value = graph.new_value("given", ValueType::Unknown);
        let shape = Fact::of_constant(tensor).shape;
        facts.set(value, Fact::new(Some(tensor.dtype()), shape));
        values.insert(value, tensor.clone());
        Some(value)
    };
    let mut node = case.node.clone();
    node.inputs = inputs.iter().map(|t| add(&mut graph, t)).collect();
    let outputs: Vec<Option<ValueId>> = outputs.iter().map(|t| add(&mut graph, t)).collect();
    let wanted: Vec<bool> = (0..inputs.len()).map(|i| wanted.contains(&i)).collect();
    let op = OpNode { node: &node, opset: case.opset };
    let rule = ops::find(&node.domain, &node.op_type).and_then(|op| op.grad).expect("a rule");
    let opset = |domain: &str| if domain.is_empty() { case.opset } else { 1 };
    let mut scope = GradScope::new(&mut graph, &mut facts, &opset);
    let gradients = rule(&mut scope, &GradNode { op, outputs: &outputs, wanted: &wanted })?;
    run(&graph, &opset, &mut values)?;
    Ok(gradients.into_iter().map(|value| values.get(&value?).cloned()).collect())
}

/// Evaluates every node of a graph.
fn run(
    graph: &Graph,
    opset: &dyn Fn(&str) -> i64,
    values: &mut HashMap<ValueId, Tensor>,
) -> Result<(), OpError> {
    for id in graph.topological_order().expect("an order") {
        let node = graph.node(id);
        let get = |v: &ValueId| values.get(v).or_else(|| graph.constant(*v)).cloned();
        let inputs: Vec<Option<Tensor>> =
            node.inputs.iter().map(|v| v.as_ref().and_then(get)).collect();
        let op = ops::find(&node.domain, &node.op_type).expect("a listed operator");
        let outputs = (op.eval)(&OpNode { node, opset: opset(&node.domain) }, &inputs)?;
        for (value, tensor) in node.outputs.iter().zip(outputs) {
            value.map(|value| values.insert(value, tensor));
        }
    }
    Ok(())
}

/// The gradient of Σ dy · y with respect to the input at `index` by central differences of fourth
/// order, y being the first output.
pub(in crate::ops) fn by_differences(
    case: &Case,
    inputs: &[Option<Tensor>],
    dy: &Tensor,
    index: usize,
) -> Tensor {
    const STEP: f32 = 0.03;
    let x = inputs[index].as_ref().expect("the input");
    let (values, dy) = (x.to_f32_vec().unwrap(), dy.to_f32_vec().unwrap());
    let loss = |i: usize, steps: f32| -> f64 {
        let mut moved = values.clone();
        moved[i] += steps * STEP;
        let mut inputs = inputs.to_vec();
        inputs[index] = Some(Tensor::from_vec(x.shape(), moved));
        let y = case.eval(&inputs)[0].to_f32_vec().unwrap();
        y.iter().zip(&dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum()
    };
    let slope = |i: usize| {
        let near = loss(i, 1.0) - loss(i, -1.0);
        let far = loss(i, 2.0) - loss(i, -2.0);
        ((8.0 * near - far) / (12.0 * f64::from(STEP))) as f32
    };
    Tensor::from_vec(x.shape(), (0..values.len()).map(slope).collect())
}
