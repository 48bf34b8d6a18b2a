//! Products with a dequantised matrix become `planish.WeightOnlyMatMul`, which reads the codes.

use planish_ir::{DataType, Model, Node, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::linear::{check_bias, check_swaps_matrix};
use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, any, constant, one_of, op};
use crate::rule::{Rewriter, Rule, apply};

/// `MatMul(x, DequantizeLinear(codes, scale))`, with a `Transpose` of the weight or without, then
/// `Add(·, bias)` if there is one. Codes are INT4 or INT8 without zero point; scales are one a
/// column, or one a block of rows and column.
pub(super) fn lower_weight_only(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let rules = [
        Rule { name: "weight_only_with_bias", pattern: with_bias, replace: lower },
        Rule { name: "weight_only", pattern: product, replace: lower },
    ];
    apply(model, context, &rules)
}

fn product() -> Pattern {
    let weight = || op("DequantizeLinear", [constant("codes"), constant("scale")]).named("weight");
    one_of([
        op("MatMul", [any("x"), weight()]),
        op("MatMul", [any("x"), op("Transpose", [weight()]).named("transpose")]),
    ])
}

fn with_bias() -> Pattern {
    op("Add", [product().named("product"), constant("bias")])
}

fn lower(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let trans_b = found.try_value("transpose").is_some();
    if let Some(transpose) = found.try_value("transpose") {
        check_swaps_matrix(rewriter, transpose)?;
    }
    let graph = &rewriter.graph;
    let node = graph.producer_node(found.value("weight")).ok_or("no node")?;
    let zero_point = node.input(2).map(|v| graph.constant(v).ok_or("the zero point varies"));
    if zero_point.transpose()?.is_some_and(|zero| !is_zero(zero)) {
        return Err("the weight has a zero point".into());
    }
    let codes = found.constant(graph, "codes");
    let scale = Scale::new(node, codes, found.constant(graph, "scale"), trans_b)?;
    if let Some(bias) = found.try_value("bias") {
        check_bias(rewriter, found.value("product"), bias, scale.n)?;
    }
    let scales = rewriter.constant("weight_scale", scale.tensor);
    let mut inputs = vec![Some(found.value("x")), Some(found.value("codes")), Some(scales)];
    inputs.extend(found.try_value("bias").map(Some));
    let node = Node::new("WeightOnlyMatMul", inputs)
        .with_domain(DOMAIN)
        .with("trans_b", i64::from(trans_b))
        .with("block_size", scale.block_size);
    Ok(rewriter.add_root(node))
}

fn is_zero(tensor: &Tensor) -> bool {
    tensor.to_i64_vec().is_ok_and(|codes| codes.iter().all(|code| *code == 0))
}

/// The scales in the layout of `WeightOnlyMatMul`.
struct Scale {
    /// `[N]`, or `[K / block_size, N]`.
    tensor: Tensor,
    /// 0 for one scale a column.
    block_size: i64,
    /// Columns.
    n: usize,
}

impl Scale {
    fn new(node: &Node, codes: &Tensor, scale: &Tensor, trans_b: bool) -> Result<Self, String> {
        let &[rows, columns] = codes.shape() else {
            return Err(format!("the codes have the shape {:?}", codes.shape()));
        };
        if !matches!(codes.dtype(), DataType::I4 | DataType::I8) || scale.dtype() != DataType::F32 {
            return Err(format!("{} codes with {} scales", codes.dtype(), scale.dtype()));
        }
        let (k, n) = if trans_b { (columns, rows) } else { (rows, columns) };
        let k_axis = i64::from(trans_b);
        let axis = node.int("axis", 1).rem_euclid(2);
        let block_size = node.int("block_size", 0);
        let values = scale.to_f32_vec().map_err(|e| e.to_string())?;
        match scale.shape() {
            [] | [1] if block_size == 0 => Ok(Self::per_column(vec![values[0]; n])),
            [count] if block_size == 0 && *count == n && axis != k_axis => {
                Ok(Self::per_column(values))
            }
            [a, b] if block_size > 0 && axis == k_axis && k.is_multiple_of(block_size as usize) => {
                let n_blocks = k / block_size as usize;
                let (tensor, expected) = match trans_b {
                    true => (turned(&values, n, n_blocks), [n, n_blocks]),
                    false => (values, [n_blocks, n]),
                };
                if [*a, *b] != expected {
                    return Err(format!("the scales have the shape {:?}", scale.shape()));
                }
                Ok(Self { tensor: Tensor::from_vec(&[n_blocks, n], tensor), block_size, n })
            }
            other => {
                Err(format!("the scales {other:?} are neither per column nor per block of rows"))
            }
        }
    }

    fn per_column(values: Vec<f32>) -> Self {
        let n = values.len();
        Self { tensor: Tensor::from_vec(&[n], values), block_size: 0, n }
    }
}

/// The transpose of a matrix of `columns` columns; `values` unchanged if it is none.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    if values.len() != rows * columns {
        return values.to_vec();
    }
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Lowered, lowered};
    use super::*;

    fn run(
        codes: Tensor,
        scale: Tensor,
        transpose: bool,
        attributes: impl FnOnce(Node) -> Node,
    ) -> Lowered {
        lowered(lower_weight_only, &[("x", &["b", "s", "4"])], |graph, x| {
            let codes = graph.add_constant("codes", codes);
            let scale = graph.add_constant("scale", scale);
            let node = Node::new("DequantizeLinear", vec![Some(codes), Some(scale)]);
            let mut weight = graph.add_op("w", attributes(node));
            if transpose {
                weight = graph.add_op("t", Node::new("Transpose", vec![Some(weight)]));
            }
            graph.add_op("y", Node::new("MatMul", vec![Some(x[0]), Some(weight)]))
        })
    }

    fn scales(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..n).map(|i| i as f32).collect())
    }

    #[test]
    fn codes_with_a_scale_a_column_stay_packed() {
        let codes = Tensor::from_int4_codes(&[4, 3], &[1; 12]);
        let lowered = run(codes, scales(&[3]), false, |node| node.with("axis", 1i64));
        assert_eq!(lowered.ops(), ["planish.WeightOnlyMatMul"]);
        assert_eq!(lowered.node("WeightOnlyMatMul").int("block_size", -1), 0);
    }

    #[test]
    fn scales_of_blocks_follow_the_transpose() {
        let codes = Tensor::from_int4_codes(&[3, 4], &[1; 12]);
        let lowered = run(codes, scales(&[3, 2]), true, |node| {
            node.with("axis", 1i64).with("block_size", 2i64)
        });
        let node = lowered.node("WeightOnlyMatMul");
        assert_eq!((node.int("block_size", -1), node.int("trans_b", -1)), (2, 1));
        let scale = lowered.model.graph.constant(node.input(2).unwrap()).unwrap();
        assert_eq!(scale.to_f32_vec().unwrap(), [0., 2., 4., 1., 3., 5.]);
    }

    #[test]
    fn scales_along_the_rows_are_left_alone() {
        let codes = Tensor::from_int4_codes(&[4, 4], &[1; 16]);
        let lowered = run(codes, scales(&[4]), false, |node| node.with("axis", 0i64));
        assert_eq!(lowered.ops(), ["DequantizeLinear", "MatMul"]);
    }
}
