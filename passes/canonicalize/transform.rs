//! Transforms between activations and weights, written as products.

use planish_ir::{Model, Node, Tensor, ValueId};
use planish_kernels::DOMAIN;

use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, any, constant, one_of, op};
use crate::rule::{Rewriter, Rule, apply};

/// Lifts `Reshape` to matrices, products with constant square factors, and `Reshape` back to
/// `Transform`, `TransformLeft` and `TransformHeads`.
pub(super) fn lift_transforms(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let rules = [
        Rule { name: "lift_transform", pattern: both, replace: transform },
        Rule { name: "lift_transform_left", pattern: left, replace: transform_left },
        Rule { name: "lift_transform_heads", pattern: heads, replace: transform_heads },
    ];
    let n_rewrites = apply(model, context, &rules)?;
    if n_rewrites > 0 {
        model.set_opset(DOMAIN, 1);
    }
    Ok(n_rewrites)
}

fn rows() -> Pattern {
    op("Reshape", [any("x"), constant("shape")]).named("rows")
}

fn both() -> Pattern {
    let right_first = op("MatMul", [constant("left"), op("MatMul", [rows(), constant("right")])]);
    let left_first = op("MatMul", [op("MatMul", [constant("left"), rows()]), constant("right")]);
    op("Reshape", [one_of([right_first, left_first]), constant("back")])
}

fn left() -> Pattern {
    op("Reshape", [op("MatMul", [constant("left"), rows()]), constant("back")])
}

fn heads() -> Pattern {
    op("Reshape", [op("MatMul", [rows(), constant("right")]), constant("back")])
}

/// The last two sizes of the rows, if they make up the last axis of x, which comes back.
fn sizes(rewriter: &Rewriter, found: &Match) -> Result<[usize; 2], String> {
    let (x, rows) = (found.value("x"), found.value("rows"));
    let shape = |value: ValueId| rewriter.facts.get(value).shape.unwrap_or_default();
    let (whole, split, back) = (shape(x), shape(rows), shape(rewriter.root));
    let leading = whole.len().saturating_sub(1);
    let fits = leading > 0
        && whole == back
        && split.len() == leading + 2
        && split[..leading] == whole[..leading];
    let last = |from_end: usize| split.get(split.len().wrapping_sub(from_end))?.as_usize();
    match (last(2), last(1)) {
        (Some(n1), Some(n2)) if fits => Ok([n1, n2]),
        _ => Err("its rows are no matrices of the channels".into()),
    }
}

/// A constant f32 matrix with `n` rows and columns.
fn square<'a>(
    rewriter: &'a Rewriter,
    found: &Match,
    name: &str,
    n: usize,
) -> Result<&'a Tensor, String> {
    let tensor = found.constant(rewriter.graph, name);
    let fits = tensor.shape() == [n, n] && tensor.dtype() == planish_ir::DataType::F32;
    if fits { Ok(tensor) } else { Err(format!("a factor has the shape {:?}", tensor.shape())) }
}

/// The left factor as the operator wants it: transposed.
fn left_factor(rewriter: &mut Rewriter, found: &Match, n: usize) -> Result<ValueId, String> {
    let data = square(rewriter, found, "left", n)?.to_f32_vec().map_err(|e| e.to_string())?;
    let turned = (0..n * n).map(|i| data[i % n * n + i / n]).collect();
    let name = rewriter.name(found.value("left"));
    Ok(rewriter.constant(&format!("{name}_turned"), Tensor::from_vec(&[n, n], turned)))
}

fn transform(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let [n1, n2] = sizes(rewriter, found)?;
    square(rewriter, found, "right", n2)?;
    let left = left_factor(rewriter, found, n1)?;
    let inputs = vec![Some(found.value("x")), Some(left), Some(found.value("right"))];
    Ok(rewriter.add_root(Node::new("Transform", inputs).with_domain(DOMAIN)))
}

fn transform_left(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let [n1, _] = sizes(rewriter, found)?;
    let left = left_factor(rewriter, found, n1)?;
    let inputs = vec![Some(found.value("x")), Some(left)];
    Ok(rewriter.add_root(Node::new("TransformLeft", inputs).with_domain(DOMAIN)))
}

fn transform_heads(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let [_, n2] = sizes(rewriter, found)?;
    square(rewriter, found, "right", n2)?;
    let inputs = vec![Some(found.value("x")), Some(found.value("right"))];
    Ok(rewriter.add_root(Node::new("TransformHeads", inputs).with_domain(DOMAIN)))
}
