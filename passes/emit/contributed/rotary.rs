//! Tables of rotary embeddings: angles of every position, computed once.

use std::collections::{HashMap, HashSet};

use planish_ir::{DataType, Dim, Graph, Model, Tensor, ValueId};
use planish_kernels::infer::Facts;

use super::DecoderInputs;
use crate::interpret::Interpreter;

/// Where the formula is tried again, to see that it depends on positions alone: tokens in the
/// cache, and new ones.
const TRIED_AGAIN: (usize, usize) = (5, 3);

/// Computes what a graph makes of positions.
pub(super) struct Tables<'a> {
    pub(super) model: &'a Model,
    pub(super) facts: &'a Facts,
    pub(super) inputs: &'a DecoderInputs,
    /// Positions that there are to be rows for.
    pub(super) n_positions: usize,
}

impl Tables<'_> {
    /// The rows of `value`, `[batch, sequence, width]`, for the positions from 0 on:
    /// `[positions, width]`. There are fewer rows where the graph itself has a table of fewer.
    ///
    /// # Errors
    /// A sentence that says why there is no such table: the value depends on more than positions.
    pub(super) fn table(&self, value: ValueId) -> Result<Tensor, String> {
        let limit = fewest_rows(&self.model.graph, value);
        let (again_past, again_new) = TRIED_AGAIN;
        let n = limit.map_or(self.n_positions, |rows| rows.min(self.n_positions));
        let rows = self.rows(value, 0, n)?;
        let width = rows.len() / n.max(1);
        if n >= again_past + again_new {
            let again = self.rows(value, again_past, again_new)?;
            let expected = &rows[again_past * width..(again_past + again_new) * width];
            let agree = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
            if again.len() != expected.len() || !again.iter().zip(expected).all(agree) {
                let name = &self.model.graph.value(value).name;
                return Err(format!("\"{name}\" is no function of the position alone"));
            }
        }
        Ok(Tensor::from_vec(&[n, width], rows))
    }

    /// The value for one sequence of `new` tokens after `past` others.
    fn rows(&self, value: ValueId, past: usize, new: usize) -> Result<Vec<f32>, String> {
        let graph = &self.model.graph;
        let opset = |domain: &str| self.model.opset(domain).unwrap_or(1);
        let mut known = HashMap::new();
        for input in &graph.inputs {
            known.extend(self.content(*input, past, new).map(|tensor| (*input, tensor)));
        }
        let tensor = Interpreter::new(graph, &opset, known).value(value)?;
        match tensor.shape() {
            [1, n, _] | [n, _] if *n == new => tensor.to_f32_vec().map_err(|e| e.to_string()),
            shape => Err(format!("\"{}\" has the shape {shape:?}", graph.value(value).name)),
        }
    }

    /// What an input holds; nothing where its role is not known.
    fn content(&self, input: ValueId, past: usize, new: usize) -> Option<Tensor> {
        let fact = self.facts.get(input);
        if let Some([_, heads, _, size]) = fact.shape.as_deref() {
            // Only how long it is can matter to angles.
            let known = |dim: &Dim| dim.as_usize().unwrap_or(1);
            let shape = vec![1, known(heads), past, known(size)];
            let n_bytes = fact.dtype?.n_bytes(shape.iter().product())?;
            return Tensor::new(fact.dtype?, shape, vec![0u8; n_bytes].into()).ok();
        }
        let values: Vec<i64> = if self.inputs.mask == Some(input) {
            vec![1; past + new]
        } else if self.inputs.positions == Some(input) || self.inputs.tokens == input {
            (past as i64..(past + new) as i64).collect()
        } else {
            return None;
        };
        let shape = [1, values.len()];
        match fact.dtype? {
            DataType::I64 => Some(Tensor::from_vec(&shape, values)),
            DataType::I32 => {
                Some(Tensor::from_vec(&shape, values.iter().map(|v| *v as i32).collect()))
            }
            DataType::Bool => {
                let bools: Vec<bool> = values.iter().map(|v| *v != 0).collect();
                Some(Tensor::from_bools(&shape, &bools))
            }
            _ => None,
        }
    }
}

/// Rows of the smallest table that something which leads to `value` selects from.
fn fewest_rows(graph: &Graph, value: ValueId) -> Option<usize> {
    let mut fewest: Option<usize> = None;
    let mut seen = HashSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        let Some((id, _)) = graph.producer(value).filter(|(id, _)| seen.insert(*id)) else {
            continue;
        };
        let node = graph.node(id);
        let table = node.input(0).filter(|_| node.is("Gather") && node.int("axis", 0) == 0);
        let shape = table.and_then(|table| graph.constant(table)).map(|t| t.shape().to_vec());
        if let Some([rows, _, ..]) = shape.as_deref() {
            fewest = Some(fewest.map_or(*rows, |n| n.min(*rows)));
        }
        open.extend(graph.inputs_and_captures(id));
    }
    fewest
}
