//! From a graph to a plan.

use std::collections::{BTreeMap, HashMap, HashSet};

use planish_cpu::ThreadPool;
use planish_ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::infer::Facts;
use planish_kernels::{OpDef, OpNode, ops};

use super::constants::{Constants, copied};
use super::plan::{Action, Plan, Slot, Step};
use super::weight_bytes::WeightBytes;
use crate::engine::facts::infer_leniently;
use crate::engine::{CompileOptions, EngineError, IoInfo, PlanSummary};

/// Compiles one graph.
pub(super) struct Compiler<'a> {
    model: &'a Model,
    graph: &'a Graph,
    pool: &'a ThreadPool,
    facts: Facts,
    constants: Constants,
    slots: HashMap<ValueId, Slot>,
    steps: Vec<Step>,
    resident: Vec<(Slot, Tensor)>,
    n_folded: usize,
    bytes: WeightBytes,
}

impl<'a> Compiler<'a> {
    pub fn new(model: &'a Model, pool: &'a ThreadPool) -> Result<Self, EngineError> {
        let facts = infer_leniently(model)
            .map_err(|e| EngineError::Prepare { node: e.node, error: e.error })?;
        Ok(Self {
            model,
            graph: &model.graph,
            pool,
            facts,
            constants: Constants::default(),
            slots: HashMap::new(),
            steps: Vec::new(),
            resident: Vec::new(),
            n_folded: 0,
            bytes: WeightBytes::default(),
        })
    }

    pub fn compile(mut self, options: &CompileOptions) -> Result<Plan, EngineError> {
        let carried = self.carried_values(options)?;
        let outputs = self.output_values(options, &carried)?;
        let targets: Vec<ValueId> =
            outputs.iter().copied().chain(carried.iter().map(|(_, output)| *output)).collect();
        let is_carried: HashSet<ValueId> = carried.iter().map(|(input, _)| *input).collect();
        let inputs: Vec<ValueId> =
            self.graph.inputs.iter().copied().filter(|v| !is_carried.contains(v)).collect();
        for value in inputs.iter().chain(&is_carried) {
            self.slot(*value);
        }
        for node in self.needed_nodes(&targets)? {
            self.add_node(node)?;
        }
        let input_slots = inputs.iter().map(|v| self.slot(*v)).collect();
        let output_slots: Vec<Slot> = outputs.iter().map(|v| self.readable_slot(*v)).collect();
        let carried: Vec<(Slot, Slot)> = carried
            .iter()
            .map(|(input, output)| (self.slot(*input), self.readable_slot(*output)))
            .collect();
        let kept = output_slots.iter().copied().chain(carried.iter().flat_map(|(i, o)| [*i, *o]));
        let kept: HashSet<Slot> = kept.chain(self.resident.iter().map(|(slot, _)| *slot)).collect();
        free_after_last_use(&mut self.steps, &kept);
        if self.bytes.can_leave_file(&self.resident) {
            self.resident.iter_mut().for_each(|(_, tensor)| *tensor = copied(tensor));
        }
        Ok(Plan {
            summary: self.summary(),
            inputs: inputs.iter().map(|v| self.io_info(*v)).collect(),
            outputs: outputs.iter().map(|v| self.io_info(*v)).collect(),
            steps: self.steps,
            n_slots: self.slots.len(),
            constants: self.resident,
            input_slots,
            output_slots,
            carried,
            profile: options.profile,
            precision: options.precision,
            buffers: options.buffers.clone(),
        })
    }

    fn carried_values(
        &self,
        options: &CompileOptions,
    ) -> Result<Vec<(ValueId, ValueId)>, EngineError> {
        let pair = |(i, o): &(String, String)| Ok((self.find_input(i)?, self.find_output(o)?));
        options.carried.iter().map(pair).collect()
    }

    fn output_values(
        &self,
        options: &CompileOptions,
        carried: &[(ValueId, ValueId)],
    ) -> Result<Vec<ValueId>, EngineError> {
        match &options.outputs {
            Some(names) => names.iter().map(|name| self.find_output(name)).collect(),
            None => {
                let is_carried = |v: &ValueId| carried.iter().any(|(_, output)| output == v);
                Ok(self.graph.outputs.iter().copied().filter(|v| !is_carried(v)).collect())
            }
        }
    }

    fn find_input(&self, name: &str) -> Result<ValueId, EngineError> {
        let found = self.graph.find_value(name).filter(|v| self.graph.is_input(*v));
        found.ok_or_else(|| EngineError::NoSuchValue { role: "input", name: name.into() })
    }

    fn find_output(&self, name: &str) -> Result<ValueId, EngineError> {
        let found = self.graph.find_value(name).filter(|v| self.graph.is_output(*v));
        found.ok_or_else(|| EngineError::NoSuchValue { role: "output", name: name.into() })
    }

    /// The nodes that `targets` depend on, in topological order.
    fn needed_nodes(&self, targets: &[ValueId]) -> Result<Vec<NodeId>, EngineError> {
        let mut needed = HashSet::new();
        let mut pending: Vec<ValueId> = targets.to_vec();
        while let Some(value) = pending.pop() {
            let Some((node, _)) = self.graph.producer(value) else { continue };
            if needed.insert(node) {
                pending.extend(self.graph.inputs_and_captures(node));
            }
        }
        let order = self.graph.topological_order()?;
        Ok(order.into_iter().filter(|node| needed.contains(node)).collect())
    }

    fn add_node(&mut self, id: NodeId) -> Result<(), EngineError> {
        let node = self.graph.node(id);
        let op = find_op(node)?;
        let view = OpNode { node, opset: self.model.opset(&node.domain).unwrap_or(1) };
        let inputs = self.constants.of_inputs(self.graph, node);
        let fail = |error| EngineError::Prepare { node: node.describe(), error };
        if self.constants.take_known(node, &self.facts)
            || self.constants.fold(op, &view, &inputs, &self.facts, self.pool).map_err(fail)?
        {
            self.n_folded += 1;
            return Ok(());
        }
        let action = prepare(op, &view, &inputs).map_err(fail)?;
        let step = self.make_step(node, action);
        self.steps.push(step);
        Ok(())
    }

    fn make_step(&mut self, node: &Node, action: Action) -> Step {
        let owned = |index| match &action {
            Action::Fast(kernel) => kernel.owns_input(index),
            Action::Reference { .. } => false,
        };
        let read = |(index, value): (usize, &Option<ValueId>)| {
            value.filter(|_| !owned(index)).map(|v| self.readable_slot(v))
        };
        let inputs = node.inputs.iter().enumerate().map(read).collect();
        let is_wanted = |v: &ValueId| self.graph.is_output(*v) || !self.graph.users(*v).is_empty();
        let wanted: Vec<_> = node.outputs.iter().map(|output| output.filter(is_wanted)).collect();
        let outputs = wanted.into_iter().map(|output| output.map(|v| self.slot(v))).collect();
        if let Action::Fast(kernel) = &action {
            let is_owned = |index: &usize| kernel.owns_input(*index);
            let owned = (0..node.inputs.len()).filter(is_owned).filter_map(|i| node.input(i));
            let constants = &mut self.constants;
            let owned = owned.filter_map(|v| constants.get(self.graph, v));
            self.bytes.add_kernel(kernel.weight_bytes(), &owned.collect::<Vec<_>>());
        }
        let (op, node) = (op_name(node), node.describe());
        Step { action, op, node, inputs, outputs, frees: Vec::new() }
    }

    /// The slot of a value.
    fn slot(&mut self, value: ValueId) -> Slot {
        let next = self.slots.len() as Slot;
        *self.slots.entry(value).or_insert(next)
    }

    /// The slot of a value that is read; a constant becomes resident in it.
    fn readable_slot(&mut self, value: ValueId) -> Slot {
        let is_new = !self.slots.contains_key(&value);
        let slot = self.slot(value);
        if let Some(tensor) = self.constants.get(self.graph, value).filter(|_| is_new) {
            self.resident.push((slot, tensor));
        }
        slot
    }

    fn io_info(&self, value: ValueId) -> IoInfo {
        let (fact, value) = (self.facts.get(value), self.graph.value(value));
        let default = value.constant.clone();
        IoInfo { name: value.name.clone(), dtype: fact.dtype, shape: fact.shape, default }
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
            folded: self.n_folded,
            fallbacks: fallbacks.into_iter().collect(),
            weight_bytes: self.bytes.total(resident) as u64,
        }
    }
}

fn find_op(node: &Node) -> Result<&'static OpDef, EngineError> {
    ops::find(&node.domain, &node.op_type)
        .ok_or_else(|| EngineError::Unimplemented { op: op_name(node), node: node.describe() })
}

/// The node's fast form if it has one, its reference evaluation if not.
fn prepare(
    op: &'static OpDef,
    view: &OpNode,
    inputs: &[Option<Tensor>],
) -> Result<Action, planish_kernels::OpError> {
    let kernel = match op.cpu {
        Some(make) => make(view, inputs)?,
        None => None,
    };
    Ok(kernel.map_or_else(|| reference(op, view), Action::Fast))
}

fn reference(op: &'static OpDef, view: &OpNode) -> Action {
    Action::Reference { op, node: Box::new(view.node.clone()), opset: view.opset }
}

/// Operator with its domain.
fn op_name(node: &Node) -> String {
    match node.domain.as_str() {
        "" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

/// Notes at every step the slots that no later step reads, those in `kept` excepted.
fn free_after_last_use(steps: &mut [Step], kept: &HashSet<Slot>) {
    let mut read_later = kept.clone();
    for step in steps.iter_mut().rev() {
        let touched = step.inputs.iter().chain(&step.outputs).flatten();
        let mut frees: Vec<Slot> = touched.copied().filter(|s| read_later.insert(*s)).collect();
        frees.sort_unstable();
        step.frees = frees;
    }
}
