//! What compiling a graph has in common on all engines: which values and nodes are needed, types,
//! shapes, constants.

use std::collections::{HashMap, HashSet};

use planish_cpu::ThreadPool;
use planish_ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::infer::Facts;
use planish_kernels::{OpDef, OpError, OpNode, ops};

use super::constants::Constants;
use super::facts::infer_leniently;
use super::{CompileOptions, EngineError, IoInfo};

/// Place of a tensor in a session.
pub(super) type Slot = u32;

/// Inputs, outputs and carried values of what is compiled.
pub(super) struct Wanted {
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// As (input, output).
    pub carried: Vec<(ValueId, ValueId)>,
    /// The nodes that outputs depend on, in topological order.
    pub nodes: Vec<NodeId>,
}

/// A graph that is being compiled.
pub(super) struct Front<'a> {
    pub model: &'a Model,
    pub graph: &'a Graph,
    pub pool: &'a ThreadPool,
    pub facts: Facts,
    pub constants: Constants,
    pub n_folded: usize,
    slots: HashMap<ValueId, Slot>,
}

/// A node that has to run.
pub(super) struct Runnable<'a> {
    pub op: &'static OpDef,
    pub node: &'a Node,
    pub opset: i64,
    /// Inputs that are constants.
    pub constants: Vec<Option<Tensor>>,
}

impl<'a> Front<'a> {
    pub fn new(model: &'a Model, pool: &'a ThreadPool) -> Result<Self, EngineError> {
        let facts = infer_leniently(model)
            .map_err(|e| EngineError::Prepare { node: e.node, error: e.error })?;
        Ok(Self {
            model,
            graph: &model.graph,
            pool,
            facts,
            constants: Constants::default(),
            n_folded: 0,
            slots: HashMap::new(),
        })
    }

    pub fn wanted(&self, options: &CompileOptions) -> Result<Wanted, EngineError> {
        let carried = self.carried_values(options)?;
        let outputs = self.output_values(options, &carried)?;
        let targets: Vec<ValueId> =
            outputs.iter().copied().chain(carried.iter().map(|(_, output)| *output)).collect();
        let is_carried: HashSet<ValueId> = carried.iter().map(|(input, _)| *input).collect();
        let inputs = self.graph.inputs.iter().copied().filter(|v| !is_carried.contains(v));
        let inputs = inputs.collect();
        Ok(Wanted { inputs, outputs, carried, nodes: self.needed_nodes(&targets)? })
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

    /// The node, unless its outputs could be computed here and now.
    pub fn unfolded(&mut self, id: NodeId) -> Result<Option<Runnable<'a>>, EngineError> {
        let node = self.graph.node(id);
        let op = find_op(node)?;
        let opset = self.model.opset(&node.domain).unwrap_or(1);
        let view = OpNode { node, opset };
        let constants = self.constants.of_inputs(self.graph, node);
        let fold = |this: &mut Self| -> Result<bool, OpError> {
            Ok(this.constants.take_known(node, &this.facts)
                || this.constants.fold(op, &view, &constants, &this.facts, this.pool)?)
        };
        if fold(self).map_err(|error| EngineError::Prepare { node: node.describe(), error })? {
            self.n_folded += 1;
            return Ok(None);
        }
        Ok(Some(Runnable { op, node, opset, constants }))
    }

    /// Outputs of a node that somebody reads.
    pub fn wanted_outputs(&self, node: &Node) -> Vec<Option<ValueId>> {
        let is_wanted = |v: &ValueId| self.graph.is_output(*v) || !self.graph.users(*v).is_empty();
        node.outputs.iter().map(|output| output.filter(is_wanted)).collect()
    }

    /// The slot of a value.
    pub fn slot(&mut self, value: ValueId) -> Slot {
        let next = self.slots.len() as Slot;
        *self.slots.entry(value).or_insert(next)
    }

    /// The slot of a value that is read, and the constant that has to be in it from now on, if it
    /// is one that nobody read before.
    pub fn readable_slot(&mut self, value: ValueId) -> (Slot, Option<Tensor>) {
        let is_new = !self.slots.contains_key(&value);
        let slot = self.slot(value);
        (slot, self.constants.get(self.graph, value).filter(|_| is_new))
    }

    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }

    pub fn io_info(&self, value: ValueId) -> IoInfo {
        let (fact, value) = (self.facts.get(value), self.graph.value(value));
        let default = value.constant.clone();
        IoInfo { name: value.name.clone(), dtype: fact.dtype, shape: fact.shape, default }
    }
}

impl Runnable<'_> {
    /// The node as operators see it.
    pub fn view(&self) -> OpNode<'_> {
        OpNode { node: self.node, opset: self.opset }
    }

    /// What to say when it can't be made ready.
    pub fn fail(&self, error: OpError) -> EngineError {
        EngineError::Prepare { node: self.node.describe(), error }
    }
}

fn find_op(node: &Node) -> Result<&'static OpDef, EngineError> {
    ops::find(&node.domain, &node.op_type)
        .ok_or_else(|| EngineError::Unimplemented { op: op_name(node), node: node.describe() })
}

/// Operator with its domain.
pub(super) fn op_name(node: &Node) -> String {
    match node.domain.as_str() {
        "" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

/// For each step, given as the slots that it touches: those that no later step touches, slots in
/// `kept` excepted.
pub(super) fn last_uses(
    touched: impl DoubleEndedIterator<Item = Vec<Slot>>,
    kept: &HashSet<Slot>,
) -> Vec<Vec<Slot>> {
    let mut read_later = kept.clone();
    let mut frees: Vec<Vec<Slot>> = touched
        .rev()
        .map(|slots| {
            let mut last: Vec<Slot> =
                slots.into_iter().filter(|slot| read_later.insert(*slot)).collect();
            last.sort_unstable();
            last
        })
        .collect();
    frees.reverse();
    frees
}
