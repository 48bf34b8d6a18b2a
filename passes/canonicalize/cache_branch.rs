//! Decoders whose two forms, without and with a cache, are the branches of one `If`.
//!
//! Some exports have an input that says which of the two is to run. The branch with a cache does
//! the work of the other where an empty cache is one of its cases, which is found out by running
//! both; where it is not, both stay.

use std::collections::HashMap;

use planish_cpu::ThreadPool;
use planish_ir::{DataType, Dim, Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::buffers::BufferPool;
use planish_kernels::infer::{Facts, closed};
use planish_kernels::{CpuContext, Kernel, OpNode, ops};

use crate::interpret::Interpreter;
use crate::pass::{PassContext, PassError};

/// How far results may differ, relative to the largest.
const TOLERANCE: f32 = 1e-3;
/// Sequences, positions of the whole prompt, and of its first piece.
const SIZES: (usize, usize, usize) = (2, 5, 2);

/// Settles the conditions by which a graph input chooses between decoders without and with a
/// cache, where the latter does the work of both.
pub(super) fn settle_cache_branch(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let mut n_rewrites = 0;
    for id in model.graph.node_ids().collect::<Vec<_>>() {
        let Some(switch) = cache_switch(&model.graph, id) else { continue };
        let facts = context.infer(model)?;
        let what = model.graph.node(id).describe();
        let input = model.graph.value(switch.input).name.clone();
        match check(model, &facts, id, &switch) {
            Ok(()) => {
                let condition = Tensor::from_bools(&[], &[switch.cached]);
                let condition = model.graph.add_constant("cached", condition);
                model.graph.set_input(id, 0, Some(condition));
                n_rewrites += 1;
                context.note(format!(
                    "{what}: the branch with a cache is taken, whatever \"{input}\" says: with an \
                     empty cache it gives what the other gives"
                ));
            }
            Err(reason) => context.note(format!("{what}: both branches stay: {reason}")),
        }
    }
    Ok(n_rewrites)
}

/// How a graph input chooses a branch.
struct Switch {
    input: ValueId,
    /// The condition with which the branch with a cache runs.
    cached: bool,
    /// The inputs with the cache, which only that branch reads.
    caches: Vec<ValueId>,
}

/// The switch of the node `id`, if it is an `If` whose condition is a graph input and of whose
/// branches one alone reads caches.
fn cache_switch(graph: &Graph, id: NodeId) -> Option<Switch> {
    let node = graph.node(id);
    let input = source(graph, node.input(0).filter(|_| node.is("If"))?);
    if !graph.is_input(input) {
        return None;
    }
    let caches = |name: &str| -> Option<Vec<ValueId>> {
        let branch = node.attributes.get(name)?.graphs().first()?;
        let outer = graph.inputs.iter().copied().filter(|input| is_cache(graph, *input));
        Some(outer.filter(|v| branch.captures.iter().any(|c| c.outer == *v)).collect())
    };
    let (yes, no) = (caches("then_branch")?, caches("else_branch")?);
    let cached = !yes.is_empty();
    let caches = if cached { yes } else { no.clone() };
    (cached == no.is_empty()).then_some(Switch { input, cached, caches })
}

/// What a condition was before its type or shape changed.
fn source(graph: &Graph, value: ValueId) -> ValueId {
    let same = ["Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape"];
    match graph.producer_node(value).filter(|node| same.iter().any(|op| node.is(op))) {
        Some(node) => node.input(0).map_or(value, |input| source(graph, input)),
        None => value,
    }
}

fn is_cache(graph: &Graph, value: ValueId) -> bool {
    let value = graph.value(value);
    value.dtype().is_some_and(DataType::is_float) && value.shape().is_some_and(|s| s.len() == 4)
}

/// Whether the branch with a cache gives what the other does, and so does a prompt in two pieces.
fn check(model: &Model, facts: &Facts, id: NodeId, switch: &Switch) -> Result<(), String> {
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let probe = Probe { graph: &model.graph, facts, opset: &opset, switch };
    let node = closed(model.graph.node(id));
    let op = ops::find("", "If").ok_or("there is no If")?;
    let view = OpNode { node: &node, opset: opset("") };
    // Not told which inputs are constants, the kernel packs none of them: it runs thrice at most.
    let unknown = vec![None; node.inputs.len()];
    let kernel = op.cpu.and_then(|make| make(&view, &unknown).ok().flatten());
    let run = Run { node: &node, kernel: kernel.ok_or("it can't be prepared")?, probe: &probe };
    let (_, length, first) = SIZES;
    let without = run.outputs(0, length, !switch.cached, &[])?;
    let whole = run.outputs(0, length, switch.cached, &[])?;
    compare(&without, &whole, 0).map_err(|e| format!("the one with an empty cache {e}"))?;
    let before = run.outputs(0, first, switch.cached, &[])?;
    let caches: Vec<Tensor> = before.into_iter().filter(|t| t.shape().len() == 4).collect();
    let rest = run.outputs(first, length - first, switch.cached, &caches)?;
    compare(&whole, &rest, first).map_err(|e| format!("that with a cache {e} in two pieces"))
}

/// Compares outputs: caches, and others from position `from` on.
fn compare(expected: &[Tensor], actual: &[Tensor], from: usize) -> Result<(), String> {
    for (expected, actual) in expected.iter().zip(actual) {
        let fails = |error: planish_ir::TensorError| error.to_string();
        let (a, b) = (expected.to_f32_vec().map_err(fails)?, actual.to_f32_vec().map_err(fails)?);
        let a = match expected.shape() {
            [_, length, width] => a
                .chunks(length * width)
                .flat_map(|sequence| &sequence[from.min(*length) * width..])
                .copied()
                .collect(),
            _ => a,
        };
        let largest = a.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * largest;
        if a.len() != b.len() || !a.iter().zip(&b).all(close) {
            return Err("gives another result".into());
        }
    }
    Ok(())
}

/// The node, ready to run for sizes of choice.
struct Run<'a> {
    node: &'a Node,
    kernel: Box<dyn Kernel>,
    probe: &'a Probe<'a>,
}

impl Run<'_> {
    /// The outputs of the branch that `condition` chooses.
    fn outputs(
        &self,
        past: usize,
        length: usize,
        condition: bool,
        caches: &[Tensor],
    ) -> Result<Vec<Tensor>, String> {
        let inputs = self.probe.inputs(past, length, condition, caches)?;
        let mut interpreter = Interpreter::new(self.probe.graph, self.probe.opset, inputs);
        let given: Result<Vec<Option<Tensor>>, String> =
            self.node.inputs.iter().map(|v| v.map(|v| interpreter.value(v)).transpose()).collect();
        let mut given = given?;
        given[0] = Some(Tensor::from_bools(&[], &[condition]));
        let (pool, buffers, mut kv) = (ThreadPool::new(0), BufferPool::new(), Vec::new());
        let mut context = CpuContext::new(&pool, &buffers, &mut kv);
        let given: Vec<Option<&Tensor>> = given.iter().map(Option::as_ref).collect();
        self.kernel.run(&mut context, &given).map_err(|error| error.to_string())
    }
}

/// Makes inputs of the graph.
struct Probe<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    opset: &'a dyn Fn(&str) -> i64,
    switch: &'a Switch,
}

impl Probe<'_> {
    fn inputs(
        &self,
        past: usize,
        length: usize,
        condition: bool,
        caches: &[Tensor],
    ) -> Result<HashMap<ValueId, Tensor>, String> {
        let own = self.graph.inputs.iter().copied().filter(|v| self.graph.constant(*v).is_none());
        own.map(|v| Ok((v, self.input(v, past, length, condition, caches)?))).collect()
    }

    fn input(
        &self,
        value: ValueId,
        past: usize,
        length: usize,
        condition: bool,
        caches: &[Tensor],
    ) -> Result<Tensor, String> {
        let name = &self.graph.value(value).name;
        let fact = self.facts.get(value);
        if value == self.switch.input {
            let shape = vec![1usize; fact.rank().unwrap_or(0)];
            return integers(fact.dtype, &shape, vec![i64::from(condition)], name);
        }
        if let Some(index) = self.switch.caches.iter().position(|cache| *cache == value) {
            return match caches.get(index) {
                Some(cache) => Ok(cache.clone()),
                None => self.empty_cache(value),
            };
        }
        let batch = SIZES.0;
        if self.is_mask(value) {
            let n = batch * (past + length);
            return integers(fact.dtype, &[batch, past + length], vec![1; n], name);
        }
        let content = (0..batch * length).map(|i| (past + i % length.max(1)) as i64).collect();
        integers(fact.dtype, &[batch, length], content, name)
    }

    fn empty_cache(&self, value: ValueId) -> Result<Tensor, String> {
        let shape = self.facts.shape(value).unwrap_or_default();
        let [_, heads, _, size] = shape else { return Err("a cache has no four axes".into()) };
        let known = heads.as_usize().zip(size.as_usize());
        let (heads, size) = known.ok_or("the size of its caches is not known")?;
        Ok(Tensor::from_vec(&[SIZES.0, heads, 0, size], Vec::<f32>::new()))
    }

    /// A matrix of another width than the other inputs': the attention mask. Where all are of one
    /// width, the one that is called so.
    fn is_mask(&self, value: ValueId) -> bool {
        let width = |v: ValueId| self.facts.get(v).dim(1).cloned();
        let others = self
            .graph
            .inputs
            .iter()
            .copied()
            .filter(|v| *v != value && self.facts.get(*v).rank() == Some(2));
        let widths: Vec<Option<Dim>> = others.map(width).collect();
        let is_called_so = self.graph.value(value).name.contains("mask");
        let differs = widths.iter().all(|other| *other != width(value));
        is_called_so || (widths.len() > 1 && differs)
    }
}

/// A tensor of whole numbers of an integer type.
fn integers(
    dtype: Option<DataType>,
    shape: &[usize],
    values: Vec<i64>,
    name: &str,
) -> Result<Tensor, String> {
    match dtype {
        Some(DataType::I64) => Ok(Tensor::from_vec(shape, values)),
        Some(DataType::I32) => {
            Ok(Tensor::from_vec(shape, values.into_iter().map(|v| v as i32).collect()))
        }
        Some(DataType::Bool) => {
            Ok(Tensor::from_bools(shape, &values.iter().map(|v| *v != 0).collect::<Vec<_>>()))
        }
        _ => Err(format!("no input \"{name}\" can be made to try it")),
    }
}
