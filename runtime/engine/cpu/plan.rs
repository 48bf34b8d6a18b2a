//! A compiled graph: steps over numbered slots.

use planish_ir::{Node, Tensor};
use planish_kernels::buffers::BufferPool;
use planish_kernels::{CpuContext, Kernel, OpDef, OpError, OpNode, ProductPrecision};

use crate::engine::{IoInfo, PlanSummary};

pub(super) use crate::engine::front::Slot;

/// What a step runs.
pub(in crate::engine) enum Action {
    /// The operator's fast form.
    Fast(Box<dyn Kernel>),
    /// Its reference evaluation.
    Reference { op: &'static OpDef, node: Box<Node>, opset: i64 },
}

/// One node, ready to run.
pub(super) struct Step {
    pub action: Action,
    /// Operator with its domain, for the profile.
    pub op: String,
    /// What to call the node in a message.
    pub node: String,
    /// Slots of the inputs; `None` for absent ones and for constants that the kernel took in.
    pub inputs: Vec<Option<Slot>>,
    /// Slots of the outputs; `None` for those that nobody reads.
    pub outputs: Vec<Option<Slot>>,
    /// Slots that this step is the last to read.
    pub frees: Vec<Slot>,
}

/// A compiled graph.
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub n_slots: usize,
    /// Constants that steps read.
    pub constants: Vec<(Slot, Tensor)>,
    pub inputs: Vec<IoInfo>,
    pub input_slots: Vec<Slot>,
    pub outputs: Vec<IoInfo>,
    pub output_slots: Vec<Slot>,
    /// Slots of carried inputs and of the outputs that feed them.
    pub carried: Vec<(Slot, Slot)>,
    pub profile: bool,
    /// See [`crate::engine::CompileOptions::precision`].
    pub precision: ProductPrecision,
    /// See [`crate::engine::CompileOptions::buffers`].
    pub buffers: Option<BufferPool>,
    pub summary: PlanSummary,
}

impl Action {
    /// Runs it on the tensors in `slots`; gives one tensor for each output of the node.
    pub fn run(
        &self,
        context: &mut CpuContext,
        slots: &[Option<Tensor>],
        inputs: &[Option<Slot>],
    ) -> Result<Vec<Tensor>, OpError> {
        let read = |slot: &Option<Slot>| slot.and_then(|s| slots[s as usize].as_ref());
        match self {
            Self::Fast(kernel) if inputs.len() <= N_ON_STACK => {
                let mut tensors = [None; N_ON_STACK];
                for (tensor, slot) in tensors.iter_mut().zip(inputs) {
                    *tensor = read(slot);
                }
                kernel.run(context, &tensors[..inputs.len()])
            }
            Self::Fast(kernel) => kernel.run(context, &inputs.iter().map(read).collect::<Vec<_>>()),
            Self::Reference { op, node, opset } => {
                let tensors: Vec<_> = inputs.iter().map(|slot| read(slot).cloned()).collect();
                op.evaluate(&OpNode { node, opset: *opset }, &tensors)
            }
        }
    }
}

/// Inputs of a node that are gathered without allocating.
const N_ON_STACK: usize = 16;
