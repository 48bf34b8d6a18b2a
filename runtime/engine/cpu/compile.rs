//! From a graph to a plan.

use std::collections::{BTreeMap, HashSet};

use planish_cpu::ThreadPool;
use planish_ir::{Model, Tensor, ValueId};
use planish_kernels::OpError;

use super::plan::{Action, Plan, Slot, Step};
use super::weight_bytes::WeightBytes;
use crate::engine::constants::copied;
use crate::engine::front::{Front, Runnable, Wanted, last_uses, op_name};
use crate::engine::{CompileOptions, EngineError, PlanSummary};

/// Compiles one graph.
pub(super) struct Compiler<'a> {
    front: Front<'a>,
    steps: Vec<Step>,
    resident: Vec<(Slot, Tensor)>,
    bytes: WeightBytes,
}

impl<'a> Compiler<'a> {
    pub fn new(model: &'a Model, pool: &'a ThreadPool) -> Result<Self, EngineError> {
        let front = Front::new(model, pool)?;
        Ok(Self { front, steps: Vec::new(), resident: Vec::new(), bytes: WeightBytes::default() })
    }

    pub fn compile(mut self, options: &CompileOptions) -> Result<Plan, EngineError> {
        let Wanted { inputs, outputs, carried, nodes } = self.front.wanted(options)?;
        let carried_inputs = carried.iter().map(|(input, _)| input);
        for value in inputs.iter().chain(carried_inputs) {
            self.front.slot(*value);
        }
        for id in nodes {
            if let Some(node) = self.front.unfolded(id)? {
                let step = self.make_step(&node)?;
                self.steps.push(step);
            }
        }
        let input_slots = inputs.iter().map(|v| self.front.slot(*v)).collect();
        let output_slots: Vec<Slot> = outputs.iter().map(|v| self.readable_slot(*v)).collect();
        let carried: Vec<(Slot, Slot)> = carried
            .iter()
            .map(|(input, output)| (self.front.slot(*input), self.readable_slot(*output)))
            .collect();
        let kept = output_slots.iter().copied().chain(carried.iter().flat_map(|(i, o)| [*i, *o]));
        let kept: HashSet<Slot> = kept.chain(self.resident.iter().map(|(slot, _)| *slot)).collect();
        free_after_last_use(&mut self.steps, &kept);
        if self.bytes.can_leave_file(&self.resident) {
            self.resident.iter_mut().for_each(|(_, tensor)| *tensor = copied(tensor));
        }
        Ok(Plan {
            summary: self.summary(),
            inputs: inputs.iter().map(|v| self.front.io_info(*v)).collect(),
            outputs: outputs.iter().map(|v| self.front.io_info(*v)).collect(),
            steps: self.steps,
            n_slots: self.front.n_slots(),
            constants: self.resident,
            input_slots,
            output_slots,
            carried,
            profile: options.profile,
            precision: options.precision,
            buffers: options.buffers.clone(),
        })
    }

    fn make_step(&mut self, runnable: &Runnable) -> Result<Step, EngineError> {
        let node = runnable.node;
        let action = prepare(runnable).map_err(|error| runnable.fail(error))?;
        let owned = |index| match &action {
            Action::Fast(kernel) => kernel.owns_input(index),
            Action::Reference { .. } => false,
        };
        let read = |(index, value): (usize, &Option<ValueId>)| {
            value.filter(|_| !owned(index)).map(|v| self.readable_slot(v))
        };
        let inputs = node.inputs.iter().enumerate().map(read).collect();
        let wanted = self.front.wanted_outputs(node);
        let outputs = wanted.into_iter().map(|output| output.map(|v| self.front.slot(v))).collect();
        if let Action::Fast(kernel) = &action {
            let owned = (0..node.inputs.len()).filter(|i| kernel.owns_input(*i));
            let owned = owned.filter_map(|i| runnable.constants[i].clone());
            self.bytes.add_kernel(kernel.weight_bytes(), &owned.collect::<Vec<_>>());
        }
        let (op, node) = (op_name(node), node.describe());
        Ok(Step { action, op, node, inputs, outputs, frees: Vec::new() })
    }

    /// The slot of a value that is read; a constant becomes resident in it.
    fn readable_slot(&mut self, value: ValueId) -> Slot {
        let (slot, constant) = self.front.readable_slot(value);
        self.resident.extend(constant.map(|tensor| (slot, tensor)));
        slot
    }

    fn summary(&self) -> PlanSummary {
        let mut fallbacks: BTreeMap<String, usize> = BTreeMap::new();
        let is_slow = |step: &&Step| matches!(step.action, Action::Reference { .. });
        for step in self.steps.iter().filter(is_slow) {
            *fallbacks.entry(step.op.clone()).or_default() += 1;
        }
        let resident = self.resident.iter().map(|(_, tensor)| tensor);
        PlanSummary {
            steps: self.steps.len(),
            folded: self.front.n_folded,
            fallbacks: fallbacks.into_iter().collect(),
            weight_bytes: self.bytes.total(resident) as u64,
        }
    }
}

/// The node's fast form if it has one, its reference evaluation if not.
pub(in crate::engine) fn prepare(runnable: &Runnable) -> Result<Action, OpError> {
    let kernel = match runnable.op.cpu {
        Some(make) => make(&runnable.view(), &runnable.constants)?,
        None => None,
    };
    let reference = || Action::Reference {
        op: runnable.op,
        node: Box::new(runnable.node.clone()),
        opset: runnable.opset,
    };
    Ok(kernel.map_or_else(reference, Action::Fast))
}

/// Notes at every step the slots that no later step reads, those in `kept` excepted.
fn free_after_last_use(steps: &mut [Step], kept: &HashSet<Slot>) {
    let touched = steps
        .iter()
        .map(|step| step.inputs.iter().chain(&step.outputs).flatten().copied().collect());
    let frees = last_uses(touched, kept);
    for (step, frees) in steps.iter_mut().zip(frees) {
        step.frees = frees;
    }
}
