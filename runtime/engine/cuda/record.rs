//! Recorded runs.
//!
//! A recorded run of values works in two pools. What it leaves behind, its outputs and what it was
//! given, is its own; everything between comes from a pool that all such recordings of an engine
//! share, since no two of them run at the same time.

use planish_cuda::{CapturedGraph, DevicePtr, MemoryPool};
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
    /// Where resident inputs are.
    resident: Vec<Option<DevicePtr>>,
    parameters: Vec<Option<Tensor>>,
}

impl Key {
    pub fn new(plan: &Plan, slots: &Slots) -> Self {
        Self {
            uploads: plan.uploads.iter().map(|s| slots.kind(*s)).collect(),
            resident: plan
                .resident
                .iter()
                .map(|s| slots.on_device(*s).map(GpuTensor::ptr))
                .collect(),
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
    /// Where what is given goes before each replay.
    pub uploads: Vec<Upload>,
    /// What stands in the output slots after a replay.
    pub outputs: Vec<Option<Value>>,
    /// Positions that the run appends to the caches.
    pub appended: usize,
    /// Positions that the caches had room for: the grids reach so far.
    pub capacity: usize,
    /// What the graph copies from host memory.
    pub _copied: Vec<Vec<u8>>,
    /// Where its own memory comes from; no one else may use it while the recording lives.
    pub pool: MemoryPool,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.uploads.clear();
        self.outputs.clear();
        // What is started from now on runs after the last replay.
        self.pool.give_back();
    }
}

/// Where a value goes before each replay.
pub(super) struct Upload {
    pub slot: Slot,
    pub to: GpuTensor,
    /// What was written there last from host memory.
    pub written: Option<Tensor>,
}

impl Recording {
    /// Whether it can stand in for a run after `n_past` positions.
    pub fn holds_for(&self, key: &Key, n_past: usize, capacity: Option<usize>) -> bool {
        let has_room = capacity
            .is_none_or(|now| now == self.capacity && n_past + self.appended <= self.capacity);
        self.key == *key && has_room
    }
}
