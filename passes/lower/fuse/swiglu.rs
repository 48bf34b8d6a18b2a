//! `Mul(Swish(gate), up)` becomes `planish.SwiGLU`.

use planish_ir::{Model, Node, ValueId};
use planish_kernels::DOMAIN;

use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, any, op};
use crate::rule::{Rewriter, Rule, apply};

pub(in crate::lower) fn fuse_swiglu(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let pattern = || op("Swish", [any("gate")]).named("swish") * any("up");
    apply(model, context, &[Rule { name: "swiglu", pattern, replace: fuse }])
}

fn fuse(rewriter: &mut Rewriter, found: &Match) -> Result<ValueId, String> {
    let (gate, up, swish) = (found.value("gate"), found.value("up"), found.value("swish"));
    let node = rewriter.graph.producer_node(swish).ok_or("no node")?;
    if node.float("alpha", 1.0) != 1.0 {
        return Err("its Swish has a factor".into());
    }
    if rewriter.graph.users(swish).len() != 1 || rewriter.graph.is_output(swish) {
        return Err("its Swish is read by others too".into());
    }
    let shape = |value| rewriter.facts.get(value).shape;
    if shape(gate).is_none() || shape(gate) != shape(up) {
        return Err("gate and up are not surely of one shape".into());
    }
    Ok(rewriter.add_root(Node::new("SwiGLU", vec![Some(gate), Some(up)]).with_domain(DOMAIN)))
}

#[cfg(test)]
mod tests {
    use planish_ir::Attribute;

    use super::super::super::testing::lowered;
    use super::*;

    fn ops(alpha: f32, up: &[&str]) -> Vec<String> {
        let inputs = [("gate", &["b", "s", "8"][..]), ("up", up)];
        lowered(fuse_swiglu, &inputs, |graph, x| {
            let swish = Node::new("Swish", vec![Some(x[0])]).with("alpha", Attribute::Float(alpha));
            let swish = graph.add_op("swish", swish);
            graph.add_op("y", Node::new("Mul", vec![Some(x[1]), Some(swish)]))
        })
        .ops()
    }

    #[test]
    fn gate_and_up_become_one_step() {
        assert_eq!(ops(1.0, &["b", "s", "8"]), ["planish.SwiGLU"]);
    }

    #[test]
    fn other_factors_and_broadcasts_are_left_alone() {
        assert_eq!(ops(1.7, &["b", "s", "8"]), ["Swish", "Mul"]);
        assert_eq!(ops(1.0, &["b", "s", "1"]), ["Swish", "Mul"]);
    }
}
