//! Tests of control flow, against what ONNX's specification says; ONNX Runtime has its say in the
//! tests of the engine.

use planish_ir::{DataType, Dim, Graph, Model, Tensor};

use super::close_all;
use crate::infer::infer;
use crate::{CpuContext, OpNode, ops};

/// The outputs of the graph in `text`, by the reference forms and by the fast ones.
fn run(text: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let model = planish_ir::text::parse(text).unwrap();
    let (slow, fast) = (run_as(&model, inputs, false), run_as(&model, inputs, true));
    assert_eq!(slow.is_err(), fast.is_err(), "{slow:?} {fast:?}");
    if let (Ok(slow), Ok(fast)) = (&slow, &fast) {
        assert_eq!(slow, fast);
    }
    fast
}

fn run_as(model: &Model, inputs: &[Tensor], fast: bool) -> Result<Vec<Tensor>, String> {
    let closed = close_all(model);
    let graph: &Graph = &closed.graph;
    let mut values = vec![None; 1000];
    graph.inputs.iter().zip(inputs).for_each(|(v, t)| values[v.index()] = Some(t.clone()));
    for value in graph.value_ids() {
        if let Some(tensor) = graph.constant(value) {
            values[value.index()] = Some(tensor.clone());
        }
    }
    let pool = planish_cpu::ThreadPool::new(1);
    let (buffers, mut caches) = (crate::buffers::BufferPool::new(), Vec::new());
    for id in graph.topological_order().unwrap() {
        let node = graph.node(id);
        let op = ops::find(&node.domain, &node.op_type).unwrap();
        let view = OpNode { node, opset: 18 };
        let given: Vec<Option<Tensor>> =
            node.inputs.iter().map(|v| v.and_then(|v| values[v.index()].clone())).collect();
        let constants: Vec<Option<Tensor>> =
            node.inputs.iter().map(|v| v.and_then(|v| graph.constant(v).cloned())).collect();
        let kernel = op.cpu.and_then(|make| make(&view, &constants).unwrap()).filter(|_| fast);
        let results = match kernel {
            Some(kernel) => {
                let mut context = CpuContext::new(&pool, &buffers, &mut caches);
                let read = |i: usize| given[i].as_ref().filter(|_| !kernel.owns_input(i));
                kernel.run(&mut context, &(0..given.len()).map(read).collect::<Vec<_>>())
            }
            None => op.evaluate(&view, &given),
        };
        for (value, tensor) in node.outputs.iter().zip(results.map_err(|e| e.to_string())?) {
            values[value.unwrap().index()] = Some(tensor);
        }
    }
    Ok(graph.outputs.iter().map(|v| values[v.index()].clone().unwrap()).collect())
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_f32_vec().unwrap()
}

fn row(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

const IF: &str = "<ir_version: 8, opset_import: [\"\": 18]>
main (bool c, float[n] x) => (float[n] y) <float[1] two = {2}> {
  y = If (c) <then_branch = doubled () => (float[n] a) { a = Mul (x, two) },
              else_branch = plain () => (float[n] b) { b = Identity (x) }>
}";

#[test]
fn a_condition_chooses_the_branch() {
    for (holds, expected) in [(true, [2.0, 6.0]), (false, [1.0, 3.0])] {
        let condition = Tensor::from_bools(&[1], &[holds]);
        assert_eq!(floats(&run(IF, &[condition, row(&[1.0, 3.0])]).unwrap()[0]), expected);
    }
    let two = Tensor::from_bools(&[2], &[true, true]);
    let message = run(IF, &[two, row(&[1.0])]).unwrap_err();
    assert!(message.contains("its condition has the shape [2]"), "{message}");
}

#[test]
fn what_both_branches_have_in_common_is_inferred() {
    let model = planish_ir::text::parse(IF).unwrap();
    let facts = infer(&model).unwrap();
    let fact = facts.get(model.graph.outputs[0]);
    assert_eq!((fact.dtype, fact.shape), (Some(DataType::F32), Some(vec![Dim::symbol("n")])));
}

const FIBONACCI: &str = "<ir_version: 8, opset_import: [\"\": 18]>
main (int64 n, float[1] limit) => (float[1] last, float[k, 1] all)
  <bool yes = {1}, float[1] zero = {0}, float[1] one = {1}> {
  last, beyond, all = Loop (n, yes, zero, one) <body = step
    (int64 i, bool go, float[1] a, float[1] b) => (bool on, float[1] b2, float[1] c, float[1] out) {
      c = Add (a, b)
      b2 = Identity (b)
      out = Identity (a)
      less = Less (b, limit)
      on = Squeeze (less)
    }>
}";

#[test]
fn a_loop_carries_values_and_puts_outputs_together() {
    let n = |n: i64| Tensor::scalar(n);
    let results = run(FIBONACCI, &[n(6), row(&[100.0])]).unwrap();
    assert_eq!((floats(&results[0]), results[1].shape()), (vec![8.0], &[6, 1][..]));
    assert_eq!(floats(&results[1]), [0.0, 1.0, 1.0, 2.0, 3.0, 5.0]);
    // The condition ends it, in the iteration whose b is not below the limit.
    let results = run(FIBONACCI, &[n(100), row(&[3.0])]).unwrap();
    assert_eq!(floats(&results[1]), [0.0, 1.0, 1.0, 2.0]);
    let results = run(FIBONACCI, &[n(0), row(&[3.0])]).unwrap();
    assert_eq!((floats(&results[0]), results[1].shape()), (vec![0.0], &[0, 1][..]));
}

#[test]
fn a_loop_without_end_is_an_error() {
    let text = "<ir_version: 8, opset_import: [\"\": 18]>
    main (int64 n) => (float[1] y) <bool yes = {1}, float[1] zero = {0}> {
      y = Loop (n, yes, zero) <body = step (int64 i, bool go, float[1] a)
        => (bool on, float[1] b) { on = Identity (go) b = Identity (a) }>
    }";
    let message = run(text, &[Tensor::scalar(i64::MAX)]).unwrap_err();
    assert!(message.contains("more than 1048576 times"), "{message}");
}

#[test]
fn a_scan_goes_over_slices_in_either_direction() {
    let text = "<ir_version: 8, opset_import: [\"\": 18]>
    main (float[1] first, float[1, s] x) => (float[1] sum, float[s, 1] partial) {
      sum, partial = Scan (first, x) <num_scan_inputs = 1, scan_input_axes = [1],
          scan_input_directions = [1], body = step (float[1] a, float[1] e)
        => (float[1] total, float[1] out) { total = Add (a, e) out = Mul (total, first) }>
    }";
    let x = Tensor::from_vec(&[1, 3], vec![1.0f32, 2.0, 3.0]);
    let results = run(text, &[row(&[10.0]), x]).unwrap();
    assert_eq!(floats(&results[0]), [16.0]);
    assert_eq!((results[1].shape(), floats(&results[1])), (&[3, 1][..], vec![130.0, 150.0, 160.0]));
}

#[test]
fn graphs_within_graphs_read_from_all_around() {
    let text = "<ir_version: 8, opset_import: [\"\": 18]>
    main (bool c, bool d, float[1] x) => (float[1] y) <float[1] three = {3}> {
      y = If (c) <then_branch = outer () => (float[1] a) {
            a = If (d) <then_branch = inner () => (float[1] b) { b = Mul (x, three) },
                        else_branch = other () => (float[1] e) { e = Neg (x) }>
          }, else_branch = none () => (float[1] f) { f = Abs (x) }>
    }";
    let flag = |holds| Tensor::from_bools(&[], &[holds]);
    for (c, d, expected) in [(true, true, -6.0), (true, false, 2.0), (false, true, 2.0)] {
        assert_eq!(floats(&run(text, &[flag(c), flag(d), row(&[-2.0])]).unwrap()[0]), [expected]);
    }
}

#[test]
fn what_fails_inside_is_named() {
    let text = "<ir_version: 8, opset_import: [\"\": 18]>
    main (bool c, float[2] x) => (float[2] y) {
      y = If (c) <then_branch = bad () => (float[2] a) { [odd] a = Unheard (x) },
                  else_branch = good () => (float[2] b) { b = Neg (x) }>
    }";
    let x = row(&[1.0, 2.0]);
    assert!(run(text, &[Tensor::from_bools(&[], &[false]), x.clone()]).is_ok());
    let message = run(text, &[Tensor::from_bools(&[], &[true]), x]).unwrap_err();
    assert_eq!(message, "in its graph, Unheard \"odd\": there is no implementation of it");
}
