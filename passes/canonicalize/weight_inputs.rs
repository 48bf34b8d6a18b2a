//! Initializers that the file lists among the inputs, as exporters did before IR version 4 and can
//! still be told to.

use planish_ir::{Graph, Model, ValueId};

use crate::pass::{PassContext, PassError};

/// Where a matrix is among the inputs that have a default: all of these are initializers, and no
/// inputs any more. A model whose weights the caller gives cannot be quantised.
pub(super) fn settle_weight_inputs(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let has_default = |input: &ValueId| graph.value(*input).constant.is_some();
    let given: Vec<ValueId> = graph.inputs.iter().copied().filter(has_default).collect();
    let Some(weight) = given.iter().find(|input| is_weight(graph, **input)) else {
        return Ok(0);
    };
    let name = &graph.value(*weight).name;
    context.note(format!(
        "{} inputs that have a default, \"{name}\" among them, are weights and no inputs any more",
        given.len()
    ));
    graph.inputs.retain(|input| !given.contains(input));
    Ok(given.len())
}

/// A matrix that is multiplied with or that rows are looked up in.
fn is_weight(graph: &Graph, input: ValueId) -> bool {
    let value = graph.value(input);
    let is_matrix = value.constant.as_ref().is_some_and(|tensor| tensor.shape().len() == 2);
    let reads = |user: &str, index: usize| {
        matches!((user, index), ("MatMul" | "Gemm", 1) | ("Gather" | "Transpose", 0))
    };
    let mut users = graph.users(input).into_iter();
    is_matrix && users.any(|(user, index)| reads(&graph.node(user).op_type, index))
}

#[cfg(test)]
mod tests {
    use planish_ir::text::parse;

    use super::*;

    /// The inputs that are left.
    fn inputs(text: &str) -> Vec<String> {
        let header = "<ir_version: 3, opset_import: [\"\": 13]>\n";
        let mut model = parse(&format!("{header}{text}")).unwrap();
        for input in model.graph.inputs.clone() {
            let value = model.graph.value_mut(input);
            let shape = value.shape().unwrap();
            let sizes: Option<Vec<usize>> = shape.iter().map(planish_ir::Dim::as_usize).collect();
            // What has a size has a default.
            value.constant = sizes.map(|sizes| {
                let n = sizes.iter().product();
                planish_ir::Tensor::from_vec(&sizes, vec![0f32; n])
            });
        }
        settle_weight_inputs(&mut model, &mut PassContext::default()).unwrap();
        let left = model.graph.inputs.iter();
        left.map(|input| model.graph.value(*input).name.clone()).collect()
    }

    #[test]
    fn initializers_among_the_inputs_are_weights() {
        let left = inputs(
            "g (float[B,4] x, float[4,2] weight, float[2] bias) => (float[B,2] y) {
                product = MatMul (x, weight)
                y = Add (product, bias)
            }",
        );
        assert_eq!(left, ["x"]);
    }

    #[test]
    fn an_input_with_a_default_stays_one() {
        let left =
            inputs("g (float[B,4] x, float[2,4] shift) => (float[B,4] y) { y = Add (x, shift) }");
        assert_eq!(left, ["x", "shift"]);
    }
}
