//! What can't be inlined; what can is under `tests/rules/inlining.txt`.

use planish_ir::text::parse;
use planish_kernels::ops::control_flow::is_closed;

use super::*;

fn inlined(text: &str) -> Result<Model, String> {
    let mut model = parse(text).unwrap();
    let result = inline_functions(&mut model, &mut PassContext::default());
    result.map(|_| model).map_err(|error| error.to_string())
}

const HEADER: &str = "<ir_version: 10, opset_import: [\"\": 18, \"f\": 1]>\n";

#[test]
fn functions_that_call_each_other_in_a_circle_are_an_error() {
    let text = "g (float[n] x) => (float[n] y) { y = f.A (x) }
        <domain: \"f\", opset_import: [\"\": 18, \"f\": 1]> A (v) => (w) { w = f.B (v) }
        <domain: \"f\", opset_import: [\"\": 18, \"f\": 1]> B (v) => (w) { w = f.A (v) }";
    let error = inlined(&format!("{HEADER}{text}")).unwrap_err();
    assert_eq!(error, "the model-local functions call each other in a circle");
}

#[test]
fn functions_that_double_with_every_level_stop() {
    let mut text = format!("{HEADER}g (float[n] x) => (float[n] y) {{ y = f.A0 (x) }}\n");
    for level in 0..30 {
        let below = level + 1;
        text += &format!(
            "<domain: \"f\", opset_import: [\"\": 18, \"f\": 1]> A{level} (v) => (w) \
             {{ u = f.A{below} (v) w = f.A{below} (u) }}\n"
        );
    }
    text += "<domain: \"f\", opset_import: [\"\": 18]> A30 (v) => (w) { w = Neg (v) }";
    let error = inlined(&text).unwrap_err();
    assert_eq!(error, "the model-local functions grow without end");
}

#[test]
fn an_output_that_is_an_absent_input_is_an_error() {
    let text = "g (float[n] x) => (float[n] y) { [call] y = f.Second (x) }
        <domain: \"f\", opset_import: [\"\": 18]> Second (v, w) => (w) { u = Neg (v) }";
    let error = inlined(&format!("{HEADER}{text}")).unwrap_err();
    assert!(error.starts_with("f.Second \"call\" can't be inlined: its output \"y\""), "{error}");
}

#[test]
fn a_function_of_an_operator_set_that_can_not_be_raised_is_an_error() {
    let text = "g (float[n] x) => (float[n] y) { y = f.Old (x) }
        <domain: \"f\", opset_import: [\"\": 9]>
        Old (v) => (w) { w = Clip <min = 0.0> (v) }";
    let error = inlined(&format!("{HEADER}{text}")).unwrap_err();
    assert_eq!(error, "the function Old is of operator set 9, the model of 23");
}

#[test]
fn graphs_within_run_with_what_they_read_as_inputs() {
    let text = "g (bool c, float[n] x) => (float[n] y) {
        y = If (c) <then_branch = a () => (float[n] p) { p = Neg (x) },
                    else_branch = b () => (float[n] q) { q = Abs (x) }>
    }";
    let model = parse(&format!("{HEADER}{text}")).unwrap();
    let closed = runnable(&model).unwrap();
    let node = closed.graph.producer_node(closed.graph.outputs[0]).unwrap();
    assert!(is_closed(node) && node.inputs.len() == 2);
    planish_ir::verify(&closed).unwrap();
    let plain =
        parse(&format!("{HEADER}g (float[n] x) => (float[n] y) {{ y = Neg (x) }}")).unwrap();
    assert!(matches!(runnable(&plain).unwrap(), Cow::Borrowed(_)));
}
