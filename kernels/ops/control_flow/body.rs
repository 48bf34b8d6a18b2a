//! A held graph, made ready to run.

use std::collections::{HashMap, HashSet};

use planish_ir::{Graph, Node, NodeId, Tensor, ValueId};

use super::Session;
use crate::{Fact, Kernel, OpDef, OpError, OpNode, ops};

/// Results up to this many elements are computed once and for all if their inputs are constants;
/// larger ones only if they are not much larger than these.
const ALWAYS_FOLDED: usize = 1 << 18;

/// A graph as steps over numbered slots.
pub(super) struct Body {
    steps: Vec<Step>,
    n_slots: usize,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    constants: Vec<(usize, Tensor)>,
    weight_bytes: usize,
}

struct Step {
    form: Form,
    node: Node,
    opset: i64,
    /// Slots of the inputs; `None` for absent ones and for constants that the kernel took in.
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    /// Slots that nothing reads later.
    frees: Vec<usize>,
}

enum Form {
    Fast(Box<dyn Kernel>),
    Reference(&'static OpDef),
    /// Why it can't run; that counts only if it has to.
    Broken(String),
}

impl Body {
    /// Prepares `graph`, which captures nothing, under version `opset` of ONNX's operator set.
    /// `known` are the inputs that are the same in every run.
    ///
    /// # Errors
    /// If the graph has a cycle.
    pub fn new(
        graph: &Graph,
        opset: i64,
        known: &[Option<Tensor>],
        fast: bool,
    ) -> Result<Self, OpError> {
        let mut builder = Builder { graph, opset, fast, ..Builder::default_for(graph) };
        let given = graph.inputs.iter().zip(known);
        builder.constants.extend(given.filter_map(|(v, t)| Some((*v, t.clone()?))));
        builder.build()
    }

    /// Runs it; gives one tensor for each output of the graph.
    ///
    /// # Errors
    /// What went wrong, with the node.
    pub fn run(
        &self,
        session: &mut Session,
        inputs: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let mut slots = vec![None; self.n_slots];
        for (slot, tensor) in self.inputs.iter().zip(inputs) {
            slots[*slot] = tensor.clone();
        }
        for (slot, tensor) in &self.constants {
            slots[*slot] = Some(tensor.clone());
        }
        for step in &self.steps {
            let results =
                step.run(session, &slots).map_err(|error| within(&step.node.describe(), error))?;
            for (slot, tensor) in step.outputs.iter().zip(results) {
                if let Some(slot) = slot {
                    slots[*slot] = Some(tensor);
                }
            }
            step.frees.iter().for_each(|slot| slots[*slot] = None);
        }
        let output = |slot: &usize| slots[*slot].clone();
        let outputs: Option<Vec<Tensor>> = self.outputs.iter().map(output).collect();
        outputs.ok_or_else(|| OpError::unsupported("an output of its graph was not computed"))
    }

    /// Bytes of weights that its kernels hold.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }
}

impl Step {
    fn run(&self, session: &mut Session, slots: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let view = OpNode { node: &self.node, opset: self.opset };
        let read = |slot: &Option<usize>| slot.and_then(|slot| slots[slot].as_ref());
        match (&self.form, session) {
            (Form::Fast(kernel), Some(context)) => {
                kernel.run(context, &self.inputs.iter().map(read).collect::<Vec<_>>())
            }
            (Form::Reference(op), _) => {
                let inputs: Vec<_> = self.inputs.iter().map(|slot| read(slot).cloned()).collect();
                op.evaluate(&view, &inputs)
            }
            (Form::Broken(reason), _) => Err(OpError::unsupported(reason.clone())),
            (Form::Fast(_), None) => Err(OpError::unsupported("it was made for a session")),
        }
    }
}

/// The error of a node within, as one of the node around it.
fn within(node: &str, error: OpError) -> OpError {
    match error {
        OpError::Memory { .. } | OpError::Gpu(_) => error,
        OpError::Shape(message) => OpError::Shape(format!("in its graph, {node}: {message}")),
        other => OpError::Unsupported(format!("in its graph, {node}: {other}")),
    }
}

struct Builder<'a> {
    graph: &'a Graph,
    opset: i64,
    fast: bool,
    constants: HashMap<ValueId, Tensor>,
    slots: HashMap<ValueId, usize>,
    steps: Vec<Step>,
    resident: Vec<(usize, Tensor)>,
    weight_bytes: usize,
}

impl<'a> Builder<'a> {
    fn default_for(graph: &'a Graph) -> Self {
        Self {
            graph,
            opset: 0,
            fast: false,
            constants: HashMap::new(),
            slots: HashMap::new(),
            steps: Vec::new(),
            resident: Vec::new(),
            weight_bytes: 0,
        }
    }

    fn build(mut self) -> Result<Body, OpError> {
        let graph = self.graph;
        for input in &graph.inputs {
            self.slot(*input);
        }
        let order = graph.topological_order().map_err(|e| OpError::shape(e.to_string()))?;
        for id in order {
            if !self.fold(id) {
                self.add_step(id);
            }
        }
        let outputs: Vec<usize> = graph.outputs.iter().map(|v| self.readable_slot(*v)).collect();
        let mut body = Body {
            inputs: graph.inputs.iter().map(|v| self.slots[v]).collect(),
            n_slots: self.slots.len(),
            outputs,
            steps: self.steps,
            constants: self.resident,
            weight_bytes: self.weight_bytes,
        };
        body.free_after_last_use();
        Ok(body)
    }

    fn slot(&mut self, value: ValueId) -> usize {
        let next = self.slots.len();
        *self.slots.entry(value).or_insert(next)
    }

    fn constant(&self, value: ValueId) -> Option<Tensor> {
        self.constants.get(&value).or_else(|| self.graph.constant(value)).cloned()
    }

    fn constants_of(&self, node: &Node) -> Vec<Option<Tensor>> {
        node.inputs.iter().map(|input| input.and_then(|v| self.constant(v))).collect()
    }

    /// The slot of a value that is read; a constant is in it from the start.
    fn readable_slot(&mut self, value: ValueId) -> usize {
        let slot = self.slot(value);
        if let Some(tensor) = self.constant(value)
            && !self.resident.iter().any(|(known, _)| *known == slot)
        {
            self.resident.push((slot, tensor));
        }
        slot
    }

    /// Computes a node whose inputs are all constants. Returns whether it did.
    fn fold(&mut self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        let (Some(op), constants) = (find(node), self.constants_of(node)) else { return false };
        let all_known = node.inputs.iter().zip(&constants).all(|(v, t)| v.is_none() || t.is_some());
        let view = self.view(node);
        if !all_known || !is_worthwhile(op, &view, &constants) {
            return false;
        }
        let Ok(results) = op.evaluate(&view, &constants) else { return false };
        let outputs = node.outputs.iter().zip(results);
        self.constants.extend(outputs.filter_map(|(v, t)| Some(((*v)?, t))));
        true
    }

    fn view<'b>(&self, node: &'b Node) -> OpNode<'b> {
        OpNode { node, opset: if node.domain.is_empty() { self.opset } else { 1 } }
    }

    fn add_step(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let constants = self.constants_of(node);
        let view = self.view(node);
        let form = self.form(&view, &constants);
        let owned = |index: usize| match &form {
            Form::Fast(kernel) => kernel.owns_input(index),
            _ => false,
        };
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (index, input) in node.inputs.iter().enumerate() {
            inputs.push(input.filter(|_| !owned(index)).map(|v| self.readable_slot(v)));
        }
        if let Form::Fast(kernel) = &form {
            self.weight_bytes += kernel.weight_bytes();
        }
        let outputs = node.outputs.iter().map(|v| v.map(|v| self.slot(v))).collect();
        let (node, opset) = (node.clone(), view.opset);
        self.steps.push(Step { form, node, opset, inputs, outputs, frees: Vec::new() });
    }

    fn form(&self, view: &OpNode, constants: &[Option<Tensor>]) -> Form {
        let Some(op) = find(view.node) else {
            return Form::Broken("there is no implementation of it".into());
        };
        match op.cpu.filter(|_| self.fast).map(|make| make(view, constants)) {
            Some(Ok(Some(kernel))) => Form::Fast(kernel),
            Some(Err(error)) => Form::Broken(error.to_string()),
            Some(Ok(None)) | None => Form::Reference(op),
        }
    }
}

impl Body {
    fn free_after_last_use(&mut self) {
        let kept = self.outputs.iter().chain(self.constants.iter().map(|(slot, _)| slot));
        let mut read_later: HashSet<usize> = kept.copied().collect();
        for step in self.steps.iter_mut().rev() {
            let touched = step.inputs.iter().chain(&step.outputs).flatten().copied();
            step.frees = touched.filter(|slot| read_later.insert(*slot)).collect();
        }
    }
}

fn find(node: &Node) -> Option<&'static OpDef> {
    ops::find(&node.domain, &node.op_type)
}

/// Whether all outputs are known to be small, at least in proportion to the inputs.
fn is_worthwhile(op: &OpDef, view: &OpNode, inputs: &[Option<Tensor>]) -> bool {
    let fact = |t: &Option<Tensor>| t.as_ref().map_or_else(Fact::absent, Fact::of_constant);
    let Ok(outputs) = (op.infer)(view, &inputs.iter().map(fact).collect::<Vec<_>>()) else {
        return false;
    };
    let n_read: usize = inputs.iter().flatten().map(Tensor::n_elements).sum();
    let limit = ALWAYS_FOLDED.max(n_read.saturating_mul(2));
    let size = |fact: &Fact| {
        let shape = fact.shape.as_ref()?;
        shape.iter().try_fold(1usize, |n, dim| n.checked_mul(dim.as_usize()?))
    };
    outputs.iter().all(|fact| size(fact).is_some_and(|n| n <= limit))
}
