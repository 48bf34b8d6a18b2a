//! A compiled graph: steps over numbered slots, some on the host, most on the device.

use planish_cuda::Element;
use planish_ir::Tensor;
use planish_kernels::{CudaKernel, GpuTensor, ProductPrecision};

use crate::engine::cpu::plan::Action;
use crate::engine::{IoInfo, PlanSummary};

pub(super) use crate::engine::front::Slot;

/// What a step runs.
pub(super) enum Work {
    /// A kernel of the device.
    Device(Box<dyn CudaKernel>),
    /// A node on the CPU.
    Host(Action),
    /// The sizes of a tensor, wherever it is: `Shape` without reading it.
    Shape(std::ops::Range<i64>),
}

/// Where a step reads an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Host(Slot),
    Device(Slot),
}

impl Read {
    pub fn slot(self) -> Slot {
        match self {
            Self::Host(slot) | Self::Device(slot) => slot,
        }
    }
}

/// One node, ready to run.
pub(super) struct Step {
    pub work: Work,
    /// Operator with its domain, for the profile.
    pub op: String,
    /// What to call the node in a message.
    pub node: String,
    /// Inputs; `None` for absent ones and for constants that the kernel took in.
    pub inputs: Vec<Option<Read>>,
    /// Slots of the outputs; `None` for those that nobody reads.
    pub outputs: Vec<Option<Slot>>,
    /// Slots that this step is the last to read.
    pub frees: Vec<Slot>,
}

/// A compiled graph.
pub(super) struct Plan {
    pub element: Element,
    /// What large products are computed in.
    pub precision: ProductPrecision,
    /// Steps that follow from inputs in host memory; they run first.
    pub prefix: Vec<Step>,
    /// All other steps.
    pub steps: Vec<Step>,
    pub n_slots: usize,
    /// Constants that steps read in host memory.
    pub host_constants: Vec<(Slot, Tensor)>,
    /// Constants that steps read on the device.
    pub device_constants: Vec<(Slot, GpuTensor)>,
    /// Values in host memory, constants excepted, that later steps read on the device.
    pub uploads: Vec<Slot>,
    /// Values in host memory, constants excepted, that later steps read there: a recording is
    /// valid only while they do not change.
    pub parameters: Vec<Slot>,
    pub inputs: Vec<IoInfo>,
    pub input_slots: Vec<Slot>,
    /// Those of inputs whose memory is the same in every run.
    pub resident: Vec<Slot>,
    pub outputs: Vec<IoInfo>,
    pub output_slots: Vec<Slot>,
    /// Slots of carried inputs and of the outputs that feed them.
    pub carried: Vec<(Slot, Slot)>,
    /// All steps can be recorded: no node has to run on the CPU between those of the device.
    pub recordable: bool,
    pub profile: bool,
    pub summary: PlanSummary,
}
