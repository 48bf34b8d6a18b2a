//! Recorded runs.

use planish_cuda::{CapturedGraph, MemoryPool};
use planish_ir::{DataType, Tensor};
use planish_kernels::GpuTensor;
use planish_kernels::cuda_kernel::Value;

use super::plan::{Plan, Slot};
use super::slots::Slots;

/// Runs with more tokens than this are not recorded: launching takes no noticeable part of them.
const MOST_TOKENS: usize = 64;

/// What must be the same for a recording to hold.
#[derive(PartialEq, Clone)]
pub(super) struct Key {
    uploads: Vec<Option<(DataType, Vec<usize>)>>,
    parameters: Vec<Option<Tensor>>,
}

impl Key {
    pub fn new(plan: &Plan, slots: &Slots) -> Self {
        let kind = |tensor: &Tensor| (tensor.dtype(), tensor.shape().to_vec());
        Self {
            uploads: plan.uploads.iter().map(|s| slots.on_host(*s).map(kind)).collect(),
            parameters: plan.parameters.iter().map(|s| slots.on_host(*s).cloned()).collect(),
        }
    }

    /// Token ids of the run: as many positions as it may append, if not more.
    pub fn n_tokens(&self) -> usize {
        let integers = self.uploads.iter().flatten().filter(|(dtype, _)| dtype.is_integer());
        let sizes = integers.map(|(_, shape)| shape.iter().product());
        sizes.max().unwrap_or(usize::MAX)
    }

    /// Whether a run of this kind is worth recording.
    pub fn is_short(&self) -> bool {
        self.n_tokens() <= MOST_TOKENS
    }
}

/// A recorded run, with the memory that it works in.
pub(super) struct Recording {
    pub key: Key,
    pub graph: CapturedGraph,
    /// Where values of the prefix go before each replay.
    pub uploads: Vec<(Slot, GpuTensor)>,
    /// What stands in the output slots after a replay.
    pub outputs: Vec<Option<Value>>,
    /// Positions that the run appends to the caches.
    pub appended: usize,
    /// Positions that the caches had room for: the grids reach so far.
    pub capacity: usize,
    /// Where the run's memory comes from; no one else may use it while the recording lives.
    pub _pool: MemoryPool,
}

impl Recording {
    /// Whether it can stand in for a run after `n_past` positions.
    pub fn holds_for(&self, key: &Key, n_past: usize, capacity: Option<usize>) -> bool {
        let has_room = capacity
            .is_none_or(|now| now == self.capacity && n_past + self.appended <= self.capacity);
        self.key == *key && has_room
    }
}
