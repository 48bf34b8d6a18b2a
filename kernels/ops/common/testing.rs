//! Short forms for the tests of operators.

use planish_ir::tensor::Element;
use planish_ir::{DataType, Dim, Tensor};

use crate::Fact;
use crate::ops;
use crate::ops::support::testing::Case;

/// A node of ONNX's own operator `op_type` at opset 18.
pub(crate) fn node(op_type: &str) -> Case {
    Case::new("", op_type, 18)
}

/// A tensor of these elements.
pub(crate) fn tensor<T: Element>(shape: &[usize], values: &[T]) -> Option<Tensor> {
    Some(Tensor::from_vec(shape, values.to_vec()))
}

/// A list of integers.
pub(crate) fn ints(values: &[i64]) -> Option<Tensor> {
    tensor(&[values.len()], values)
}

/// An i64 list whose elements are the sizes written in `dims`.
pub(crate) fn sizes(dims: &[&str]) -> Fact {
    Fact::of_dims(DataType::I64, 1, dims.iter().map(|dim| Dim::parse(dim)).collect())
}

/// An i64 scalar, the size written in `dim`.
pub(crate) fn size(dim: &str) -> Fact {
    Fact::of_dims(DataType::I64, 0, vec![Dim::parse(dim)])
}

/// The one inferred output.
pub(crate) fn inferred(case: &Case, facts: &[Fact]) -> Fact {
    let mut outputs = case.infer(facts).unwrap();
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

/// The shape of the one inferred output, written out.
pub(crate) fn shape(case: &Case, facts: &[Fact]) -> String {
    format!("{:?}", inferred(case, facts).shape.expect("a known rank"))
}

/// The elements of the one inferred output, written out.
pub(crate) fn elements(case: &Case, facts: &[Fact]) -> String {
    format!("{:?}", inferred(case, facts).dims.expect("known elements"))
}

/// The message of an evaluation that fails.
pub(crate) fn error(case: &Case, inputs: &[Option<Tensor>]) -> String {
    let op = ops::find(&case.node.domain, &case.node.op_type).unwrap();
    (op.eval)(&case.view(), inputs).expect_err("an error").to_string()
}

/// The evaluated output, after checking that the fast form agrees.
pub(crate) fn both(case: &Case, inputs: &[Option<Tensor>]) -> Tensor {
    case.assert_kernel_agrees(inputs, &[], 1e-6);
    case.eval(inputs).remove(0)
}
