//! `ArgMax`, `ArgMin` and `TopK`: where the largest and smallest elements are.

use crate::OpDef;

mod arg;
mod cuda;
mod order;
#[cfg(test)]
mod tests;
mod top_k;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("ArgMax", arg::infer, arg::eval).with_cuda(cuda::cuda),
    OpDef::new("ArgMin", arg::infer, arg::eval).with_cuda(cuda::cuda),
    OpDef::new("TopK", top_k::infer, top_k::eval).with_cuda(cuda::cuda),
];
