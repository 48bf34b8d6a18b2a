//! `Gather`, `GatherElements` and `GatherND`: elements at given indices.

use crate::OpDef;

mod cpu;
mod cuda;
mod elements;
mod grad;
mod nd;
mod rows;
#[cfg(test)]
mod tests;

pub(super) use cuda::{axis_of_elements, tuples_of};
pub(super) use elements::sources as element_sources;
pub(super) use nd::start as tuple_start;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Gather", rows::infer, rows::eval)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::gather),
    OpDef::new("GatherElements", elements::infer, elements::eval).with_cuda(cuda::cuda),
    OpDef::new("GatherND", nd::infer, nd::eval).with_cuda(cuda::cuda),
];
