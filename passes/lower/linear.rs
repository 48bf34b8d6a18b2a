//! Products with a constant matrix become `planish.Linear`, with their bias.

use planish_ir::{DataType, Model, Node, ValueId};
use planish_kernels::DOMAIN;

use crate::half::is_weight_type;
use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, any, constant, one_of, op};
use crate::rule::{Rewriter, Rule, apply};

/// `MatMul(x, W)` and `MatMul(x, Transpose(W))`, then `Add(·, bias)` if there is one, and `Gemm`.
pub(super) fn lower_linears(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let rules = [
        Rule { name: "linear_with_bias", pattern: with_bias, replace: lower },
        Rule { name: "linear", pattern: product, replace: lower },
        Rule { name: "gemm", pattern: gemm, replace: lower_gemm },
    ];
    apply(model, context, &rules)
}

fn product() -> Pattern {
    let transposed = op("Transpose", [constant("transposed")]).named("transpose");
    one_of([op("MatMul", [any("x"), constant("weight")]), op("MatMul", [any("x"), transposed])])
}

fn with_bias() -> Pattern {
    op("Add", [product().named("product"), constant("bias")])
}

fn gemm() -> Pattern {
    op("Gemm", [any("x"), constant("weight")])
}

fn lower(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let (weight, trans_b) = match found.try_value("transposed") {
        Some(weight) => (weight, true),
        None => (found.value("weight"), false),
    };
    if let Some(transpose) = found.try_value("transpose") {
        check_swaps_matrix(rewriter, transpose)?;
    }
    check_types(rewriter, found.value("x"), weight)?;
    let bias = found.try_value("bias");
    if let Some(bias) = bias {
        check_bias(rewriter, found.value("product"), bias, n_columns(rewriter, weight, trans_b))?;
    }
    Ok(rewriter.add_root(linear(found.value("x"), weight, bias, trans_b)))
}

fn lower_gemm(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let graph = &rewriter.graph;
    let node = graph.producer_node(rewriter.root).ok_or("no node")?;
    let is_one = |name| node.float(name, 1.0) == 1.0;
    if !is_one("alpha") || !is_one("beta") || node.int("transA", 0) != 0 {
        return Err("it scales or transposes its first factor".into());
    }
    let (bias, trans_b) = (node.input(2), node.int("transB", 0) != 0);
    let (x, weight) = (found.value("x"), found.value("weight"));
    check_types(rewriter, x, weight)?;
    if let Some(bias) = bias {
        check_is_row(rewriter, bias, n_columns(rewriter, weight, trans_b))?;
    }
    Ok(rewriter.add_root(linear(x, weight, bias, trans_b)))
}

fn linear(x: ValueId, weight: ValueId, bias: Option<ValueId>, trans_b: bool) -> Node {
    let mut inputs = vec![Some(x), Some(weight)];
    inputs.extend(bias.map(Some));
    Node::new("Linear", inputs).with_domain(DOMAIN).with("trans_b", i64::from(trans_b))
}

fn check_types(rewriter: &Rewriter, x: ValueId, weight: ValueId) -> Result<(), String> {
    let tensor = rewriter.graph.constant(weight).ok_or("the weight is no constant")?;
    if !is_weight_type(tensor.dtype()) || tensor.shape().len() != 2 {
        return Err(format!("the weight is {} {:?}", tensor.dtype(), tensor.shape()));
    }
    match rewriter.facts.get(x).rank() {
        Some(rank) if rank >= 2 => Ok(()),
        _ => Err("the rank of the activation is not known to be at least 2".into()),
    }
}

/// A Transpose that swaps the axes of a matrix.
pub(super) fn check_swaps_matrix(rewriter: &Rewriter, transposed: ValueId) -> Result<(), String> {
    let node = rewriter.graph.producer_node(transposed).ok_or("no node")?;
    match node.ints("perm") {
        None | Some([1, 0]) => Ok(()),
        Some(other) => Err(format!("the weight is permuted by {other:?}")),
    }
}

/// The bias is a row of as many columns as the product, and nobody else reads the product.
pub(super) fn check_bias(
    rewriter: &Rewriter,
    product: ValueId,
    bias: ValueId,
    n: usize,
) -> Result<(), String> {
    if rewriter.graph.users(product).len() != 1 || rewriter.graph.is_output(product) {
        return Err("the product without bias is read too".into());
    }
    check_is_row(rewriter, bias, n)
}

fn check_is_row(rewriter: &Rewriter, bias: ValueId, n: usize) -> Result<(), String> {
    match rewriter.graph.constant(bias) {
        Some(bias) if bias.shape() == [n] && bias.dtype() == DataType::F32 => Ok(()),
        Some(bias) => Err(format!("the bias is {} {:?}", bias.dtype(), bias.shape())),
        None => Err("the bias is no constant".into()),
    }
}

fn n_columns(rewriter: &Rewriter, weight: ValueId, trans_b: bool) -> usize {
    let shape = rewriter.graph.constant(weight).map_or(&[][..], |t| t.shape());
    shape.get(usize::from(!trans_b)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use planish_ir::Tensor;

    use super::super::testing::{Lowered, lowered};
    use super::*;

    fn matrix(rows: usize, columns: usize) -> Tensor {
        Tensor::from_vec(&[rows, columns], vec![0.5f32; rows * columns])
    }

    fn run(build: impl FnOnce(&mut planish_ir::Graph, ValueId) -> ValueId) -> Lowered {
        lowered(lower_linears, &[("x", &["b", "s", "4"])], |graph, x| build(graph, x[0]))
    }

    #[test]
    fn a_product_takes_its_bias_along() {
        let lowered = run(|graph, x| {
            let w = graph.add_constant("w", matrix(4, 3));
            let b = graph.add_constant("b", Tensor::from_vec(&[3], vec![1f32; 3]));
            let y = graph.add_op("y", Node::new("MatMul", vec![Some(x), Some(w)]));
            graph.add_op("z", Node::new("Add", vec![Some(b), Some(y)]))
        });
        assert_eq!(lowered.ops(), ["planish.Linear"]);
        let node = lowered.node("Linear");
        assert_eq!((node.inputs.len(), node.int("trans_b", -1)), (3, 0));
    }

    #[test]
    fn a_transposed_table_is_read_in_place() {
        let lowered = run(|graph, x| {
            let w = graph.add_constant("w", matrix(3, 4));
            let t = graph.add_op("t", Node::new("Transpose", vec![Some(w)]));
            graph.add_op("y", Node::new("MatMul", vec![Some(x), Some(t)]))
        });
        assert_eq!(lowered.ops(), ["planish.Linear"]);
        assert_eq!(lowered.node("Linear").int("trans_b", -1), 1);
    }

    #[test]
    fn a_product_that_is_read_without_its_bias_keeps_both() {
        let lowered = run(|graph, x| {
            let w = graph.add_constant("w", matrix(4, 3));
            let b = graph.add_constant("b", Tensor::from_vec(&[3], vec![1f32; 3]));
            let y = graph.add_op("y", Node::new("MatMul", vec![Some(x), Some(w)]));
            let z = graph.add_op("z", Node::new("Add", vec![Some(y), Some(b)]));
            graph.add_op("u", Node::new("Mul", vec![Some(y), Some(z)]))
        });
        assert_eq!(lowered.ops(), ["planish.Linear", "Add", "Mul"]);
    }

    #[test]
    fn a_product_of_two_activations_is_left_alone() {
        let lowered = run(|graph, x| {
            let t = graph
                .add_op("t", Node::new("Transpose", vec![Some(x)]).with("perm", vec![0, 2, 1]));
            graph.add_op("y", Node::new("MatMul", vec![Some(x), Some(t)]))
        });
        assert_eq!(lowered.ops(), ["Transpose", "MatMul"]);
    }
}
