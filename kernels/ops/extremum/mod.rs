//! `ArgMax`, `ArgMin` and `TopK`: where the largest and smallest elements are.

use crate::OpDef;

mod arg;
mod order;
#[cfg(test)]
mod tests;
mod top_k;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("ArgMax", arg::infer, arg::eval),
    OpDef::new("ArgMin", arg::infer, arg::eval),
    OpDef::new("TopK", top_k::infer, top_k::eval),
];
