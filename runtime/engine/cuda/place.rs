//! Where nodes run.

use std::collections::HashSet;

use planish_ir::{DataType, Graph, Node, Tensor, ValueId};
use planish_kernels::infer::Facts;

use crate::engine::front::Runnable;

/// A constant from this size on is read where the device's memory is; what is computed from smaller
/// ones and positions costs nothing on the host.
const LARGE: usize = 8 << 20;

/// Where a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the host, before the device starts.
    Prefix,
    /// On the host, from sizes of tensors on the device.
    Sizes,
    /// On the device, if it has a form there.
    Device,
}

/// Which values are not in host memory before the device starts.
#[derive(Default)]
pub(super) struct Places {
    on_device: HashSet<ValueId>,
    from_sizes: HashSet<ValueId>,
}

impl Places {
    /// Inputs of floats go to the device, those of integers are looked at on the host first.
    pub fn of_inputs(graph: &Graph, facts: &Facts) -> Self {
        let is_float = |v: &ValueId| facts.get(*v).dtype.is_none_or(|dtype| dtype.is_float());
        let on_device = graph.inputs.iter().copied().filter(is_float).collect();
        Self { on_device, from_sizes: HashSet::new() }
    }

    /// Where a node runs; its outputs are there from now on.
    pub fn place(&mut self, runnable: &Runnable) -> Place {
        let node = runnable.node;
        let place = self.place_of(runnable);
        let outputs = node.outputs.iter().flatten().copied();
        match place {
            Place::Prefix => {}
            Place::Sizes => self.from_sizes.extend(outputs),
            Place::Device => self.on_device.extend(outputs),
        }
        place
    }

    fn place_of(&self, runnable: &Runnable) -> Place {
        let node = runnable.node;
        let reads = |values: &HashSet<ValueId>| {
            node.inputs.iter().flatten().any(|value| values.contains(value))
        };
        let is_large = runnable.constants.iter().flatten().any(|t| t.bytes().len() >= LARGE);
        if is_shape(node) && reads(&self.on_device) {
            Place::Sizes
        } else if reads(&self.on_device) || is_large || looks_up(runnable) {
            Place::Device
        } else if reads(&self.from_sizes) {
            Place::Sizes
        } else {
            Place::Prefix
        }
    }

    /// Whether the value is in host memory before the device starts.
    pub fn is_early(&self, value: ValueId) -> bool {
        !self.on_device.contains(&value) && !self.from_sizes.contains(&value)
    }
}

/// Whether rows of a table are looked up: what begins with embeddings belongs to the device, while
/// angles that are computed from positions keep all their digits on the host.
fn looks_up(runnable: &Runnable) -> bool {
    let table = runnable.constants.first().and_then(Option::as_ref);
    let is_table = |t: &Tensor| {
        let is_index = matches!(t.dtype(), DataType::I64 | DataType::I32 | DataType::Bool);
        t.shape().len() > 1 && !is_index
    };
    runnable.node.op_type.starts_with("Gather") && table.is_some_and(is_table)
}

/// `Shape`, which never reads its input.
pub(super) fn is_shape(node: &Node) -> bool {
    node.domain.is_empty() && node.op_type == "Shape"
}
