//! Tests of the pass itself: what is gone through, what adds up, what is refused.

use std::collections::HashMap;

use planish_ir::{Model, Tensor, ValueId};

use super::check::{check_gradients, evaluate};
use super::*;

fn model(graph: &str) -> Model {
    let text = format!("<ir_version: 10, opset_import: [\"\" : 23]> g {graph}");
    planish_ir::text::parse(&text).expect("a model")
}

fn values(model: &Model, names: &[&str]) -> Vec<ValueId> {
    names.iter().map(|name| model.graph.find_value(name).expect("a value")).collect()
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

/// The gradients of the sum of "y" for x = [1, 2], with respect to the values called `wrt`.
fn gradients(mut model: Model, wrt: &[&str]) -> Vec<Option<Vec<f32>>> {
    let [x, y] = values(&model, &["x", "y"])[..] else { panic!("two values") };
    let seed = model.graph.add_constant("seed", vector(&[1.0, 1.0]));
    let wrt = values(&model, wrt);
    let gradients = differentiate(&mut model, &[(y, seed)], &wrt).expect("gradients");
    let known = HashMap::from([(x, vector(&[1.0, 2.0]))]);
    let value = |gradient: ValueId| {
        evaluate(&model, &known, &[gradient]).expect("a value")[0].to_f32_vec().expect("floats")
    };
    gradients.into_iter().map(|gradient| gradient.map(value)).collect()
}

fn error(mut model: Model, wrt: &[&str]) -> String {
    let y = values(&model, &["y"])[0];
    let seed = model.graph.add_constant("seed", vector(&[1.0, 1.0]));
    let wrt = values(&model, wrt);
    differentiate(&mut model, &[(y, seed)], &wrt).expect_err("an error").to_string()
}

#[test]
fn a_value_that_is_read_twice_gets_the_sum() {
    let model = model("(float[2] x) => (y) { a = Mul (x, x) b = Neg (x) y = Add (a, b) }");
    assert_eq!(gradients(model, &["x"]), [Some(vec![1.0, 3.0])]);
}

#[test]
fn constants_and_results_have_gradients_too() {
    let model =
        model("(float[2] x) => (y) <float[2] c = {3, 4}> { a = Mul (x, c) y = Mul (a, a) }");
    let expected = [vec![6.0, 32.0], vec![6.0, 16.0], vec![18.0, 64.0], vec![1.0, 1.0]].map(Some);
    assert_eq!(gradients(model, &["c", "a", "x", "y"]), expected);
}

#[test]
fn what_the_scalar_does_not_depend_on_has_no_gradient() {
    let model = model("(float[2] x, float[2] z) => (y, w) { y = Neg (x) w = Mul (x, z) }");
    assert_eq!(gradients(model, &["z", "w", "x"]), [None, None, Some(vec![-1.0, -1.0])]);
}

#[test]
fn seeds_of_several_outputs_add_up() {
    let mut model = model("(float[2] x) => (y, z) { y = Neg (x) z = Mul (y, y) }");
    let [x, y, z] = values(&model, &["x", "y", "z"])[..] else { panic!("three values") };
    let seed = model.graph.add_constant("seed", vector(&[1.0, 10.0]));
    let seeds = [(y, seed), (z, seed), (y, seed)];
    let gradient = differentiate(&mut model, &seeds, &[x]).unwrap()[0].unwrap();
    let known = HashMap::from([(x, vector(&[1.0, 2.0]))]);
    let value = evaluate(&model, &known, &[gradient]).unwrap().remove(0);
    assert_eq!(value.to_f32_vec().unwrap(), [-2.0 + 2.0, -20.0 + 40.0]);
}

#[test]
fn only_what_lies_between_is_gone_through() {
    // Neither Floor, which has no rule, nor the power of a constant is on the way.
    let graph = "(float[2] x) => (y) <float[2] c = {3, 4}>
        { a = Floor (c) b = Floor (x) d = Mul (b, a) e = Exp (d) y = Mul (e, c) }";
    let model = model(graph);
    let n_nodes = model.graph.n_nodes();
    assert_eq!(gradients(model.clone(), &["e"]), [Some(vec![3.0, 4.0])]);
    let mut backward = model;
    let [y, e] = values(&backward, &["y", "e"])[..] else { panic!("two values") };
    let seed = backward.graph.add_constant("seed", vector(&[1.0, 1.0]));
    differentiate(&mut backward, &[(y, seed)], &[e]).unwrap();
    assert_eq!(backward.graph.n_nodes(), n_nodes + 1);
}

#[test]
fn nothing_flows_through_integers() {
    let graph = "(float[2] x) => (y)
        { s = Shape (x) i = Cast <to = 7> (x) f = Cast <to = 1> (i) e = Expand (f, s) y = Mul (e, x) }";
    assert_eq!(gradients(model(graph), &["x"]), [Some(vec![1.0, 2.0])]);
}

#[test]
fn what_has_no_rule_is_named() {
    let floor = model("(float[2] x) => (y) { [low] y = Floor (x) }");
    let expected =
        "nothing can be learned through Floor \"low\": there is no gradient rule for Floor";
    assert_eq!(error(floor, &["x"]), expected);
    let power = model("(float[2] x) => (y) <float two = {2.0}> { y = Pow (two, x) }");
    assert!(error(power, &["x"]).ends_with("input 1 has no gradient rule"));
    let steps = "(float[4] x) => (y) <int64[1] s = {0}, int64[1] e = {4}, int64[1] k = {2}>
        { y = Slice (x, s, e, s, k) }";
    assert!(error(model(steps), &["x"]).ends_with("it takes steps other than 1"));
    let captured = "(bool c, float[2] x) => (y) { y = If (c) <then_branch = a () => (z)
        { z = Neg (x) }, else_branch = b () => (w) { w = Abs (x) }> }";
    assert!(error(model(captured), &["x"]).ends_with("there is no gradient rule for If"));
}

#[test]
fn a_seed_must_fit_its_value() {
    let text = "(float[3] x) => (y) { y = Neg (x) }";
    assert!(error(model(text), &["x"]).contains("not of the type and shape of \"y\""));
    let mut old = model("(float[2] x) => (y) { y = Neg (x) }");
    old.set_opset("", 17);
    assert!(error(old, &["x"]).contains("operator set 18"));
}

#[test]
fn equal_extremes_are_told_apart_as_the_rules_say() {
    let first = model("(float[2] x) => (y) <float[2] c = {1, 2}> { y = Max (x, c) }");
    let expected = [Some(vec![1.0, 1.0]), Some(vec![0.0, 0.0])];
    assert_eq!(gradients(first, &["x", "c"]), expected);
    let graph = "(float[2] x) => (y) <float[2,2] c = {1, 1, 2, 3}, int64[1] axes = {1}>
        { m = ReduceMax <keepdims = 0> (c, axes) y = Add (x, m) }";
    assert_eq!(gradients(model(graph), &["c"]), [Some(vec![0.5, 0.5, 0.0, 1.0])]);
}

#[test]
fn a_wrong_gradient_is_found() {
    // x is rounded on the way, which finite differences see and the product's rule does not.
    let model =
        model("(float[2] x) => (y) { i = Cast <to = 7> (x) f = Cast <to = 1> (i) y = Mul (f, x) }");
    let x = values(&model, &["x"])[0];
    let near = HashMap::from([(x, vector(&[0.999, 2.001]))]);
    assert!(check_gradients(&model, &near, &[x]).unwrap_err().contains("the slope"));
    let far = HashMap::from([(x, vector(&[1.5, 2.5]))]);
    assert_eq!(check_gradients(&model, &far, &[x]), Ok(()));
}
