//! Activations.

use planish_ir::{Model, Node, ValueId};

use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, any, number, one_of, op};
use crate::rule::{Rewriter, Rule, apply};

/// Lifts decomposed activations to `Swish` and `Gelu`.
pub(super) fn lift_activations(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let rules = [
        Rule { name: "lift_swish", pattern: swish_pattern, replace: swish },
        Rule { name: "lift_tanh_gelu", pattern: tanh_gelu_pattern, replace: tanh_gelu },
        Rule { name: "lift_erf_gelu", pattern: erf_gelu_pattern, replace: erf_gelu },
    ];
    apply(model, context, &rules)
}

/// x · σ(x)
fn swish_pattern() -> Pattern {
    any("x") * op("Sigmoid", [any("x")])
}

fn swish(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    Ok(rewriter.add_root(Node::new("Swish", vec![Some(found.value("x"))])))
}

/// ½ · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))), the factors in any order.
fn tanh_gelu_pattern() -> Pattern {
    let cube = number(0.044_715) * any("x").pow(3.0);
    let inner = number(0.797_884_6) * (any("x") + cube);
    // … and with x outside: √(2/π) · x · (1 + 0.044715 · x · x)
    let square = (number(0.044_715) * any("x")) * any("x");
    let outside = (number(0.797_884_6) * any("x")) * (square + number(1.0));
    half_product(op("Tanh", [one_of([inner, outside])]) + number(1.0))
}

fn tanh_gelu(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let node = Node::new("Gelu", vec![Some(found.value("x"))]).with("approximate", "tanh");
    Ok(rewriter.add_root(node))
}

/// ½ · x · (1 + erf(x / √2))
fn erf_gelu_pattern() -> Pattern {
    let scaled = one_of([
        any("x") / number(std::f32::consts::SQRT_2),
        any("x") * number(std::f32::consts::FRAC_1_SQRT_2),
    ]);
    half_product(op("Erf", [scaled]) + number(1.0))
}

fn erf_gelu(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    Ok(rewriter.add_root(Node::new("Gelu", vec![Some(found.value("x"))])))
}

/// ½ · x · `factor`, associated in any way.
fn half_product(factor: Pattern) -> Pattern {
    one_of([
        any("x") * (number(0.5) * factor.clone()),
        (any("x") * number(0.5)) * factor.clone(),
        (any("x") * factor) * number(0.5),
    ])
}
