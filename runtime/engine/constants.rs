//! Constants: those of the file, and those that follow from them at compile time.

use std::collections::HashMap;

use planish_cpu::ThreadPool;
use planish_ir::{DataType, Graph, Node, Tensor, ValueId};
use planish_kernels::buffers::BufferPool;
use planish_kernels::infer::Facts;
use planish_kernels::{CpuContext, OpDef, OpError, OpNode};

/// Results up to this size are always computed at compile time; larger ones only if they are not
/// much larger than what they come from (a transposed weight is, a dequantised one is not).
const ALWAYS_FOLDED: usize = 1 << 20;

/// Constants up to this size are copied, so that they do not keep a mapped file in memory.
pub(in crate::engine) const SMALL: usize = 64 << 10;

/// The tensors of the values that never change.
#[derive(Default)]
pub(super) struct Constants {
    tensors: HashMap<ValueId, Tensor>,
}

impl Constants {
    /// The constant `value`, if it is one, aligned for its element type.
    pub fn get(&mut self, graph: &Graph, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.tensors.get(&value) {
            return Some(tensor.clone());
        }
        let tensor = aligned(graph.constant(value)?);
        self.tensors.insert(value, tensor.clone());
        Some(tensor)
    }

    /// The inputs of a node that are constants.
    pub fn of_inputs(&mut self, graph: &Graph, node: &Node) -> Vec<Option<Tensor>> {
        node.inputs.iter().map(|input| self.get(graph, (*input)?)).collect()
    }

    /// Takes over outputs of a node that shape inference knows. Returns whether it knows them all.
    pub fn take_known(&mut self, node: &Node, facts: &Facts) -> bool {
        let outputs: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        let known = outputs.iter().map(|v| Some((*v, facts.get(*v).constant?)));
        let Some(known) = known.collect::<Option<Vec<_>>>() else { return false };
        self.tensors.extend(known);
        true
    }

    /// Computes the outputs of a node from constant inputs, unless they would be too large.
    /// Returns whether it did.
    pub fn fold(
        &mut self,
        op: &OpDef,
        view: &OpNode,
        inputs: &[Option<Tensor>],
        facts: &Facts,
        pool: &ThreadPool,
    ) -> Result<bool, OpError> {
        let node = view.node;
        let is_constant =
            |(id, t): (&Option<ValueId>, &Option<Tensor>)| id.is_none() || t.is_some();
        if !node.inputs.iter().zip(inputs).all(is_constant) || !is_worthwhile(node, inputs, facts) {
            return Ok(false);
        }
        let results = evaluate(op, view, inputs, pool)?;
        if node.outputs.iter().skip(results.len()).any(Option::is_some) {
            return Ok(false);
        }
        for (value, tensor) in node.outputs.iter().zip(results) {
            self.tensors.extend(value.map(|v| (v, tensor)));
        }
        Ok(true)
    }
}

/// Whether the outputs are known to be small, at least in proportion to the inputs.
fn is_worthwhile(node: &Node, inputs: &[Option<Tensor>], facts: &Facts) -> bool {
    let n_read: usize = inputs.iter().flatten().map(|t| t.bytes().len()).sum();
    let limit = ALWAYS_FOLDED.max(n_read.saturating_mul(2));
    let n_written = node.outputs.iter().flatten().try_fold(0usize, |sum, output| {
        let fact = facts.get(*output);
        let n = fact.shape?.iter().try_fold(1usize, |n, d| n.checked_mul(d.as_usize()?))?;
        sum.checked_add(fact.dtype?.n_bytes(n)?)
    });
    n_written.is_some_and(|n| n <= limit)
}

fn evaluate(
    op: &OpDef,
    view: &OpNode,
    inputs: &[Option<Tensor>],
    pool: &ThreadPool,
) -> Result<Vec<Tensor>, OpError> {
    // What a kernel prepares for constants is not worth it for one run: it sees them as inputs.
    let unknown = vec![None; inputs.len()];
    let Some(kernel) = op.cpu.and_then(|make| make(view, &unknown).ok().flatten()) else {
        return op.evaluate(view, inputs);
    };
    let (buffers, mut caches) = (BufferPool::new(), Vec::new());
    let mut context = CpuContext::new(pool, &buffers, &mut caches);
    let tensors: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    kernel.run(&mut context, &tensors).or_else(|_| op.evaluate(view, inputs))
}

/// The tensor with its bytes aligned for its element type, copied only if they are not, or if
/// they are few: the data in a mapped file may lie anywhere.
fn aligned(tensor: &Tensor) -> Tensor {
    let size = tensor.dtype().bits().div_ceil(8).max(1);
    let is_aligned = (tensor.bytes().as_ptr() as usize).is_multiple_of(size);
    if is_aligned && tensor.bytes().len() > SMALL { tensor.clone() } else { copied(tensor) }
}

/// The tensor in memory of its own.
pub(super) fn copied(tensor: &Tensor) -> Tensor {
    if tensor.dtype() == DataType::String {
        return tensor.clone();
    }
    let Ok(mut buffer) = BufferPool::new().take(tensor.bytes().len()) else {
        return tensor.clone();
    };
    buffer.as_mut::<u8>().copy_from_slice(tensor.bytes());
    let copy = buffer.into_tensor(tensor.dtype(), tensor.shape().to_vec());
    copy.unwrap_or_else(|_| tensor.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_misaligned_and_small_data_is_copied() {
        let bytes = Tensor::from_vec(&[2 * SMALL], vec![7u8; 2 * SMALL]).bytes().clone();
        let odd = usize::from((bytes.as_ptr() as usize).is_multiple_of(4));
        for (offset, n) in [(odd, SMALL / 4 + 1), (1 - odd, 16)] {
            let bytes = bytes.slice(offset..offset + 4 * n);
            let tensor = Tensor::new(DataType::F32, vec![n], bytes).unwrap();
            let moved = aligned(&tensor);
            assert_eq!(moved, tensor);
            assert_ne!(moved.bytes().as_ptr(), tensor.bytes().as_ptr());
        }
        let large = Tensor::from_vec(&[SMALL], vec![0f32; SMALL]);
        assert_eq!(aligned(&large).bytes().as_ptr(), large.bytes().as_ptr());
    }
}
