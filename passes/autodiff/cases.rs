//! A small graph for every operator that has a gradient rule, checked by finite differences.

use std::collections::{HashMap, HashSet};

use planish_ir::{DataType, Model, Tensor, ValueId};
use planish_kernels::ops;

use super::check::check_gradients;
use crate::transform::Random;

/// Graphs in ONNX's text syntax, without name and header, after the operators that they are for.
/// Inputs that are floats get distinct numbers in −2..2, sizes without number those in [`size`];
/// gradients are checked for all of them.
const CASES: &[(&str, &str)] = &[
    ("Add", "(float[B,S,3] a, float[3] b) => (y) { y = Add (a, b) }"),
    ("Add", "(float[2,1,3] a, float[4,1] b) => (y) { y = Add (a, b) }"),
    ("Sub", "(float[3] a, float[2,3] b) => (y) { y = Sub (a, b) }"),
    ("Mul", "(float[B,3] a, float[B,1] b) => (y) { y = Mul (a, b) }"),
    ("Mul", "(float[3] a) => (y) { y = Mul (a, a) }"),
    ("Div", "(float[2,3] a, float[3] b) => (y) { c = Exp (b) y = Div (a, c) }"),
    ("Pow", "(float[2,3] a) => (y) <float two = {2.0}> { y = Pow (a, two) }"),
    ("Pow", "(float[2,3] a) => (y) <int64[3] n = {1, 3, 4}> { y = Pow (a, n) }"),
    ("Pow", "(float[2,3] a) => (y) <float p = {0.7}> { e = Exp (a) y = Pow (e, p) }"),
    ("Max", "(float[2,3] a, float[3] b) => (y) { y = Max (a, b) }"),
    ("Max", "(float[2,3] a, float[3] b, float[2,1] c) => (y) { y = Max (a, b, c) }"),
    ("Min", "(float[3] a, float[2,3] b) => (y) { y = Min (a, b) }"),
    ("Sum", "(float[2,3] a, float[3] b, float[2,1] c) => (y) { y = Sum (a, b, c) }"),
    ("Mean", "(float[2,3] a, float[3] b, float[2,1] c) => (y) { y = Mean (a, b, c) }"),
    ("Where", "(bool[2,3] c, float[3] a, float[2,1] b) => (y) { y = Where (c, a, b) }"),
    ("Neg", "(float[2,3] x) => (y) { y = Neg (x) }"),
    ("Abs", "(float[2,3] x) => (y) { y = Abs (x) }"),
    ("Sqrt", "(float[2,3] x) => (y) { e = Exp (x) y = Sqrt (e) }"),
    ("Reciprocal", "(float[2,3] x) => (y) { e = Exp (x) y = Reciprocal (e) }"),
    ("Exp", "(float[2,3] x) => (y) { y = Exp (x) }"),
    ("Log", "(float[2,3] x) => (y) { s = Softplus (x) y = Log (s) }"),
    ("Erf", "(float[2,3] x) => (y) { y = Erf (x) }"),
    ("Tanh", "(float[2,3] x) => (y) { y = Tanh (x) }"),
    ("Sigmoid", "(float[2,3] x) => (y) { y = Sigmoid (x) }"),
    ("Relu", "(float[2,3] x) => (y) { y = Relu (x) }"),
    ("LeakyRelu", "(float[2,3] x) => (y) { y = LeakyRelu <alpha = 0.2> (x) }"),
    ("Elu", "(float[2,3] x) => (y) { y = Elu <alpha = 0.7> (x) }"),
    ("Softplus", "(float[2,3] x) => (y) { y = Softplus (x) }"),
    ("Cos", "(float[2,3] x) => (y) { y = Cos (x) }"),
    ("Sin", "(float[2,3] x) => (y) { y = Sin (x) }"),
    ("Cast", "(float[2,3] x) => (y) { d = Cast <to = 11> (x) e = Exp (d) y = Cast <to = 1> (e) }"),
    ("CastLike", "(float[2,3] x, float z) => (y) { y = CastLike (x, z) }"),
    ("Clip", "(float[2,3] x) => (y) <float a = {-0.9}, float b = {1.1}> { y = Clip (x, a, b) }"),
    ("Clip", "(float[2,3] x) => (y) <float b = {0.5}> { y = Clip (x, , b) }"),
    ("Identity", "(float[2,3] x) => (y) { y = Identity (x) }"),
    ("MatMul", "(float[B,S,3] x, float[3,4] w) => (y) { y = MatMul (x, w) }"),
    ("MatMul", "(float[2,3] x, float[3,4] w) => (y) { y = MatMul (x, w) }"),
    ("MatMul", "(float[2,2,3] a, float[2,3,2] b) => (y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[2,1,2,3] a, float[B,3,2] b) => (y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[2,3] a, float[2,3,2] b) => (y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[2,2,K] a, float[K,2] b) => (y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[3] a, float[2,3,2] b) => (y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[2,2,3] a, float[3] b) => (y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[3] a, float[3] b) => (y) { y = MatMul (a, b) }"),
    ("Gemm", "(float[2,3] a, float[3,4] b, float[4] c) => (y) { y = Gemm (a, b, c) }"),
    ("Gemm", "(float[3,2] a, float[3,4] b) => (y) { y = Gemm <transA = 1, alpha = 0.5> (a, b) }"),
    (
        "Gemm",
        "(float[2,3] a, float[4,3] b, float[2,1] c) => (y)
        { y = Gemm <transB = 1, beta = 2.0> (a, b, c) }",
    ),
    ("Gemm", "(float[3,2] a, float[4,3] b) => (y) { y = Gemm <transA = 1, transB = 1> (a, b) }"),
    (
        "Linear",
        "(float[B,S,3] x, float[3,4] w, float[4] b) => (y) { y = planish.Linear (x, w, b) }",
    ),
    ("Linear", "(float[2,3] x, float[4,3] w) => (y) { y = planish.Linear <trans_b = 1> (x, w) }"),
    ("ReduceSum", "(float[B,3] x) => (y) <int64[1] axes = {1}> { y = ReduceSum (x, axes) }"),
    ("ReduceSum", "(float[B,3] x) => (y) { y = ReduceSum <keepdims = 0> (x) }"),
    (
        "ReduceSum",
        "(float[2,3] x) => (y) { y = ReduceSum <noop_with_empty_axes = 1, keepdims = 0> (x) }",
    ),
    (
        "ReduceMean",
        "(float[2,B,3] x) => (y) <int64[2] axes = {0, -1}>
        { y = ReduceMean <keepdims = 0> (x, axes) }",
    ),
    ("ReduceMean", "(float[2,B,3] x) => (y) <int64[1] axes = {1}> { y = ReduceMean (x, axes) }"),
    (
        "ReduceMax",
        "(float[2,3,2] x) => (y) <int64[1] axes = {1}> { y = ReduceMax <keepdims = 0> (x, axes) }",
    ),
    ("ReduceMin", "(float[2,3] x) => (y) <int64[1] axes = {1}> { y = ReduceMin (x, axes) }"),
    (
        "ReduceSumSquare",
        "(float[2,3] x) => (y) <int64[1] axes = {0}>
        { y = ReduceSumSquare <keepdims = 0> (x, axes) }",
    ),
    (
        "ReduceL1",
        "(float[2,3] x) => (y) <int64[1] axes = {0}> { y = ReduceL1 <keepdims = 0> (x, axes) }",
    ),
    ("ReduceL2", "(float[2,3] x) => (y) <int64[1] axes = {1}> { y = ReduceL2 (x, axes) }"),
    ("Softmax", "(float[2,3] x) => (y) { y = Softmax (x) }"),
    ("Softmax", "(float[2,3,2] x) => (y) { y = Softmax <axis = 1> (x) }"),
    ("LogSoftmax", "(float[2,3] x) => (y) { y = LogSoftmax (x) }"),
    ("Reshape", "(float[2,6] x) => (y) <int64[2] s = {3, 4}> { y = Reshape (x, s) }"),
    ("Reshape", "(float[B,S,6] x) => (y) <int64[4] s = {0, 0, 2, 3}> { y = Reshape (x, s) }"),
    ("Reshape", "(float[B,S,3] x) => (y) <int64[2] s = {-1, 3}> { y = Reshape (x, s) }"),
    ("Flatten", "(float[2,B,3] x) => (y) { y = Flatten <axis = 2> (x) }"),
    ("Squeeze", "(float[2,1,B] x) => (y) <int64[1] a = {1}> { y = Squeeze (x, a) }"),
    ("Unsqueeze", "(float[2,B] x) => (y) <int64[2] a = {0, 2}> { y = Unsqueeze (x, a) }"),
    ("Transpose", "(float[2,B,3] x) => (y) { y = Transpose <perm = [1, 2, 0]> (x) }"),
    ("Transpose", "(float[2,B,3] x) => (y) { y = Transpose (x) }"),
    ("Expand", "(float[2,1] x) => (y) <int64[3] s = {2, 1, 3}> { y = Expand (x, s) }"),
    ("Concat", "(float[2,3] a, float[2,1] b) => (y) { y = Concat <axis = -1> (a, b) }"),
    ("Concat", "(float[B,2] a, float[S,2] b) => (y) { y = Concat <axis = 0> (a, b) }"),
    ("Split", "(float[B,5] x) => (a, b) <int64[2] s = {2, 3}> { a, b = Split <axis = 1> (x, s) }"),
    ("Split", "(float[B,6] x) => (b) { a, b, c = Split <axis = -1, num_outputs = 3> (x) }"),
    (
        "Slice",
        "(float[B,5] x) => (y) <int64[1] s = {1}, int64[1] e = {-1}, int64[1] a = {1}>
        { y = Slice (x, s, e, a) }",
    ),
    (
        "Slice",
        "(float[4,5] x) => (y) <int64[2] s = {-3, 0}, int64[2] e = {9, 2}> { y = Slice (x, s, e) }",
    ),
    (
        "Slice",
        "(float[B,4] x) => (y) <int64[2] s = {0, 1}, int64[2] e = {9223372036854775807, 3}>
        { y = Slice (x, s, e) }",
    ),
    ("Gather", "(float[4,2] x) => (y) <int64[2,2] i = {1, -1, 1, 0}> { y = Gather (x, i) }"),
    (
        "Gather",
        "(float[2,4,2] x) => (y) <int64[3] i = {1, -1, 1}> { y = Gather <axis = 1> (x, i) }",
    ),
    ("Gather", "(float[2,B] x) => (y) <int64 i = {1}> { y = Gather <axis = -1> (x, i) }"),
    ("Pad", "(float[2,B] x) => (y) <int64[4] p = {1, 0, 0, 2}> { y = Pad (x, p) }"),
    (
        "Pad",
        "(float[2,3] x) => (y) <int64[2] p = {-1, 1}, int64[1] a = {1}> { y = Pad (x, p, , a) }",
    ),
    ("RMSNormalization", "(float[B,S,6] x, float[6] w) => (y) { y = RMSNormalization (x, w) }"),
    (
        "LayerNormalization",
        "(float[B,S,6] x, float[6] w, float[6] b) => (y) { y = LayerNormalization (x, w, b) }",
    ),
    (
        "SimplifiedLayerNormalization",
        "(float[B,6] x, float[6] w) => (y) { y = SimplifiedLayerNormalization (x, w) }",
    ),
    ("Swish", "(float[2,3] x) => (y) { y = Swish <alpha = 1.5> (x) }"),
    ("Gelu", "(float[2,3] x) => (y) { y = Gelu (x) }"),
    ("Gelu", "(float[2,3] x) => (y) { y = Gelu <approximate = \"tanh\"> (x) }"),
    ("FastGelu", "(float[2,3] x) => (y) { y = com.microsoft.FastGelu (x) }"),
    ("QuickGelu", "(float[2,3] x) => (y) { y = com.microsoft.QuickGelu (x) }"),
    ("SwiGLU", "(float[2,3] g, float[2,3] u) => (y) { y = planish.SwiGLU (g, u) }"),
    (
        "Attention",
        "(float[B,S,8] q, float[B,S,4] k, float[B,S,4] v) => (y)
        { y = Attention <q_num_heads = 4, kv_num_heads = 2, is_causal = 1> (q, k, v) }",
    ),
    (
        "Attention",
        "(float[B,2,4] q, float[B,S,4] k, float[B,S,6] v) => (y)
        { y = Attention <q_num_heads = 2, kv_num_heads = 2, softcap = 2.0> (q, k, v) }",
    ),
    (
        "RotaryEmbedding",
        "(float[1,2,8] x) => (y)
        <float[1,2,2] c = {0.6, 0.8, -0.3, 1.0}, float[1,2,2] s = {0.8, -0.6, 0.9, 0.1}>
        { y = RotaryEmbedding <num_heads = 2> (x, c, s) }",
    ),
    (
        "Transform",
        "(float[B,S,6] x, float[2,2] p, float[3,3] q) => (y) { y = planish.Transform (x, p, q) }",
    ),
    ("TransformLeft", "(float[B,S,6] x, float[2,2] p) => (y) { y = planish.TransformLeft (x, p) }"),
    (
        "TransformHeads",
        "(float[B,S,6] x, float[3,3] p) => (y) { y = planish.TransformHeads (x, p) }",
    ),
    (
        "Inverse",
        "(float[2,2,2] x) => (y) <float[2,2] d = {4, 0, 0, 4}>
        { z = Add (x, d) y = com.microsoft.Inverse (z) }",
    ),
];

/// Operators whose gradients are checked in their own folders: those of rounding, which are no
/// slopes.
const CHECKED_ELSEWHERE: &[&str] =
    &["FakeQuantizeColumns", "FakeQuantizeHeads", "FakeQuantizeRows"];

/// What the sizes without number are.
fn size(symbol: &str) -> Option<i64> {
    Some(match symbol {
        "B" => 2,
        "S" => 3,
        _ => 4,
    })
}

fn model(case: &str) -> Model {
    let opsets = r#"["" : 23, "planish" : 1, "com.microsoft" : 1]"#;
    let text = format!("<ir_version: 10, opset_import: {opsets}> g {case}");
    planish_ir::text::parse(&text).unwrap_or_else(|error| panic!("{case}: {error}"))
}

/// Numbers for the inputs. The floats are evenly spread and in random order, so that no two are so
/// close that a maximum has no slope there, and none is close to 0.
fn inputs(model: &Model) -> HashMap<ValueId, Tensor> {
    let graph = &model.graph;
    let shape = |value: &ValueId| -> Vec<usize> {
        let shape = graph.value(*value).shape().expect("a shape");
        shape.iter().map(|dim| dim.eval(&size).expect("a size") as usize).collect()
    };
    let count = |value: &ValueId| shape(value).iter().product::<usize>();
    // An even number of them leaves 0 out.
    let n = graph.inputs.iter().map(count).sum::<usize>().next_multiple_of(2);
    let mut random = Random::new(5);
    let mut numbers: Vec<f32> = (0..n).map(|i| (i as f32 + 0.5) / n as f32 * 4.0 - 2.0).collect();
    for i in (1..n).rev() {
        numbers.swap(i, (random.uniform() * (i + 1) as f64) as usize);
    }
    let mut tensor = |value: &ValueId| {
        let (shape, rest) = (shape(value), numbers.split_off(count(value)));
        let data = std::mem::replace(&mut numbers, rest);
        let is_bool = graph.value(*value).dtype() == Some(DataType::Bool);
        let truths: Vec<bool> = data.iter().map(|x| *x > 0.0).collect();
        if is_bool { Tensor::from_bools(&shape, &truths) } else { Tensor::from_vec(&shape, data) }
    };
    graph.inputs.iter().map(|value| (*value, tensor(value))).collect()
}

#[test]
fn gradients_are_the_slopes() {
    let mut failures = Vec::new();
    for (op, case) in CASES {
        let model = model(case);
        let graph = &model.graph;
        let applies = graph.node_ids().any(|id| graph.node(id).op_type == *op);
        assert!(applies, "{case} has no {op}");
        let is_float = |v: &ValueId| graph.value(*v).dtype() == Some(DataType::F32);
        let wrt: Vec<ValueId> = graph.inputs.iter().copied().filter(is_float).collect();
        if let Err(error) = check_gradients(&model, &inputs(&model), &wrt) {
            failures.push(format!("{case}: {error}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_gradient_rule_is_checked() {
    let covered: HashSet<&str> =
        CASES.iter().map(|(op, _)| *op).chain(CHECKED_ELSEWHERE.iter().copied()).collect();
    let with_rule = ops::all().filter(|op| op.grad.is_some());
    let missing: Vec<&str> =
        with_rule.map(|op| op.name).filter(|name| !covered.contains(name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    let has_rule = |name: &&str| ops::all().any(|op| op.name == *name && op.grad.is_some());
    assert!(CHECKED_ELSEWHERE.iter().all(has_rule));
}
