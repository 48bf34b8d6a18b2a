//! From a graph to a plan.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use planish_cpu::ThreadPool;
use planish_cuda::{Element, Gpu};
use planish_ir::{Model, Node, Tensor, ValueId};
use planish_kernels::cuda_kernel::upload;
use planish_kernels::{CudaPrepare, GpuTensor};

use super::place::{Place, Places, is_shape};
use super::plan::{Plan, Read, Slot, Step, Work};
use crate::engine::cpu::compile::prepare as prepare_on_host;
use crate::engine::front::{Front, Runnable, Wanted, last_uses, op_name};
use crate::engine::{CompileOptions, EngineError, PlanSummary};

/// Compiles one graph.
pub(super) struct Compiler<'a> {
    front: Front<'a>,
    gpu: &'a Arc<Gpu>,
    element: Element,
    places: Places,
    prefix: Vec<Step>,
    steps: Vec<Step>,
    host_constants: Vec<(Slot, Tensor)>,
    device_constants: Vec<(Slot, GpuTensor)>,
    uploads: BTreeSet<Slot>,
    parameters: BTreeSet<Slot>,
    fallbacks: BTreeMap<String, usize>,
    kernel_bytes: usize,
    /// The profile tells nodes of different shapes apart.
    shows_shapes: bool,
}

impl<'a> Compiler<'a> {
    pub fn new(
        model: &'a Model,
        pool: &'a ThreadPool,
        gpu: &'a Arc<Gpu>,
        element: Element,
    ) -> Result<Self, EngineError> {
        let front = Front::new(model, pool)?;
        Ok(Self {
            places: Places::of_inputs(&model.graph, &front.facts),
            front,
            gpu,
            element,
            prefix: Vec::new(),
            steps: Vec::new(),
            host_constants: Vec::new(),
            device_constants: Vec::new(),
            uploads: BTreeSet::new(),
            parameters: BTreeSet::new(),
            fallbacks: BTreeMap::new(),
            kernel_bytes: 0,
            shows_shapes: tracing::enabled!(tracing::Level::TRACE),
        })
    }

    pub fn compile(mut self, options: &CompileOptions) -> Result<Plan, EngineError> {
        let Wanted { inputs, outputs, carried, nodes } = self.front.wanted(options)?;
        let carried_inputs = carried.iter().map(|(input, _)| input);
        for value in inputs.iter().chain(carried_inputs) {
            self.front.slot(*value);
        }
        for id in nodes {
            if let Some(node) = self.front.unfolded(id)? {
                self.add(&node)?;
            }
        }
        let input_slots = inputs.iter().map(|v| self.front.slot(*v)).collect();
        let is_resident =
            |v: &&ValueId| options.resident.contains(&self.front.graph.value(**v).name);
        let resident: Vec<ValueId> = inputs.iter().filter(is_resident).copied().collect();
        let resident = resident.into_iter().map(|v| self.front.slot(v)).collect();
        let mut output_slots = Vec::new();
        for value in &outputs {
            output_slots.push(self.host_slot(*value));
        }
        let mut carried_slots = Vec::new();
        for (input, output) in &carried {
            carried_slots.push((self.front.slot(*input), self.front.slot(*output)));
        }
        self.free_after_last_use(&output_slots, &carried_slots);
        Ok(Plan {
            element: self.element,
            precision: options.precision,
            recordable: self.fallbacks.is_empty() && carried.is_empty(),
            summary: self.summary(),
            inputs: inputs.iter().map(|v| self.front.io_info(*v)).collect(),
            outputs: outputs.iter().map(|v| self.front.io_info(*v)).collect(),
            prefix: self.prefix,
            steps: self.steps,
            n_slots: self.front.n_slots(),
            host_constants: self.host_constants,
            device_constants: self.device_constants,
            uploads: self.uploads.into_iter().collect(),
            parameters: self.parameters.into_iter().collect(),
            input_slots,
            resident,
            output_slots,
            carried: carried_slots,
            profile: options.profile,
        })
    }

    fn add(&mut self, runnable: &Runnable) -> Result<(), EngineError> {
        let place = self.places.place(runnable);
        let work = self.work(runnable, place)?;
        if matches!(work, Work::Host(_)) && place == Place::Device {
            *self.fallbacks.entry(op_name(runnable.node)).or_default() += 1;
        }
        let step = self.make_step(runnable, work, place)?;
        if place == Place::Prefix { &mut self.prefix } else { &mut self.steps }.push(step);
        Ok(())
    }

    fn work(&self, runnable: &Runnable, place: Place) -> Result<Work, EngineError> {
        let fail = |error| runnable.fail(error);
        if place == Place::Sizes && is_shape(runnable.node) {
            return Ok(Work::Shape(shape_range(runnable.node)));
        }
        if let (Place::Device, Some(make)) = (place, runnable.op.cuda) {
            let prepare = CudaPrepare { gpu: self.gpu, element: self.element };
            let kernel = make(&runnable.view(), &prepare, &runnable.constants).map_err(fail)?;
            if let Some(kernel) = kernel {
                return Ok(Work::Device(kernel));
            }
        }
        Ok(Work::Host(prepare_on_host(runnable).map_err(fail)?))
    }

    fn make_step(
        &mut self,
        runnable: &Runnable,
        work: Work,
        place: Place,
    ) -> Result<Step, EngineError> {
        let node = runnable.node;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (index, value) in node.inputs.iter().enumerate() {
            let Some(value) = value.filter(|_| !owns(&work, index)) else {
                inputs.push(None);
                continue;
            };
            let read = if reads_on_device(&work, index) {
                Read::Device(self.device_slot(value).map_err(|error| runnable.fail(error))?)
            } else {
                Read::Host(self.host_slot(value))
            };
            self.note_crossing(value, read, place, &work);
            inputs.push(Some(read));
        }
        if let Work::Device(kernel) = &work {
            self.kernel_bytes += kernel.weight_bytes();
        }
        let wanted = self.front.wanted_outputs(node);
        let outputs = wanted.into_iter().map(|output| output.map(|v| self.front.slot(v))).collect();
        let op = if self.shows_shapes { self.with_shapes(node) } else { op_name(node) };
        let node = node.describe();
        Ok(Step { work, op, node, inputs, outputs, frees: Vec::new() })
    }

    /// The operator with the shapes of its inputs, for the profile.
    fn with_shapes(&self, node: &Node) -> String {
        let shape = |value: &ValueId| match self.front.facts.get(*value).shape {
            Some(shape) => format!(" {shape:?}"),
            None => " ?".to_owned(),
        };
        let shapes: String = node.inputs.iter().flatten().map(shape).collect();
        op_name(node) + &shapes
    }

    /// Notes what a later step reads of the values that are ready before the device starts.
    fn note_crossing(&mut self, value: ValueId, read: Read, place: Place, work: &Work) {
        let is_constant = self.front.constants.get(self.front.graph, value).is_some();
        let is_given = self.front.graph.is_input(value) || self.places.is_early(value);
        if place == Place::Prefix || is_constant || !is_given {
            return;
        }
        match read {
            Read::Device(slot) => self.uploads.insert(slot),
            Read::Host(slot) => !matches!(work, Work::Shape(_)) && self.parameters.insert(slot),
        };
    }

    /// The slot of a value that is read in host memory.
    fn host_slot(&mut self, value: ValueId) -> Slot {
        let slot = self.front.slot(value);
        let known = self.host_constants.iter().any(|(other, _)| *other == slot);
        if let Some(tensor) = self.front.constants.get(self.front.graph, value).filter(|_| !known) {
            self.host_constants.push((slot, tensor));
        }
        slot
    }

    /// The slot of a value that is read on the device.
    fn device_slot(&mut self, value: ValueId) -> Result<Slot, planish_kernels::OpError> {
        let slot = self.front.slot(value);
        let known = self.device_constants.iter().any(|(other, _)| *other == slot);
        if let Some(tensor) = self.front.constants.get(self.front.graph, value).filter(|_| !known) {
            self.device_constants.push((slot, upload(self.gpu, &tensor, self.element)?));
        }
        Ok(slot)
    }

    fn free_after_last_use(&mut self, outputs: &[Slot], carried: &[(Slot, Slot)]) {
        let host = self.host_constants.iter().map(|(slot, _)| *slot);
        let device = self.device_constants.iter().map(|(slot, _)| *slot);
        // What the prefix computes is small, and read again by the next run's recording.
        let early = self.prefix.iter().flat_map(|step| step.outputs.iter().flatten().copied());
        let kept: HashSet<Slot> = outputs
            .iter()
            .copied()
            .chain(carried.iter().flat_map(|(input, output)| [*input, *output]))
            .chain(host)
            .chain(device)
            .chain(early)
            .collect();
        let touched = self.steps.iter().map(|step| {
            let inputs = step.inputs.iter().flatten().map(|read| read.slot());
            inputs.chain(step.outputs.iter().flatten().copied()).collect()
        });
        let frees = last_uses(touched, &kept);
        for (step, frees) in self.steps.iter_mut().zip(frees) {
            step.frees = frees;
        }
    }

    fn summary(&self) -> PlanSummary {
        let constants = self.device_constants.iter().map(|(_, tensor)| tensor.n_bytes());
        PlanSummary {
            steps: self.prefix.len() + self.steps.len(),
            folded: self.front.n_folded,
            fallbacks: self.fallbacks.clone().into_iter().collect(),
            weight_bytes: (self.kernel_bytes + constants.sum::<usize>()) as u64,
        }
    }
}

fn owns(work: &Work, index: usize) -> bool {
    use crate::engine::cpu::plan::Action;
    match work {
        Work::Device(kernel) => kernel.owns_input(index),
        Work::Host(Action::Fast(kernel)) => kernel.owns_input(index),
        Work::Host(Action::Reference { .. }) | Work::Shape(_) => false,
    }
}

fn reads_on_device(work: &Work, index: usize) -> bool {
    matches!(work, Work::Device(kernel) if !kernel.reads_on_host(index))
}

/// The axes that a `Shape` node gives, as its attributes say.
fn shape_range(node: &Node) -> std::ops::Range<i64> {
    node.int("start", 0)..node.int("end", i64::MAX)
}
