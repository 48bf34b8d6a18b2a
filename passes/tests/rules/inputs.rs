//! Inputs for a graph, told by their names and types.

use std::collections::HashMap;

use planish_ir::{DataType, Dim, Graph, Tensor, ValueId};

use super::weights::random;

/// Numbers for the symbols B (batch), S (new tokens), P (tokens in the cache) and T = P + S.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub batch: usize,
    pub sequence: usize,
    pub past: usize,
}

impl Sizes {
    fn symbol(&self, name: &str) -> Option<i64> {
        let size = match name {
            "B" => self.batch,
            "S" => self.sequence,
            "P" => self.past,
            "T" => self.past + self.sequence,
            _ => return None,
        };
        i64::try_from(size).ok()
    }

    fn of(&self, dim: &Dim) -> usize {
        let size = dim.eval(&|symbol| self.symbol(symbol));
        usize::try_from(size.unwrap_or_else(|| panic!("no size for {dim}"))).unwrap()
    }
}

/// Random floats; for integers `position_ids`, `attention_mask` (which hides one key) and
/// `full_mask` (none), else token ids below 8; for bools whether a key is seen.
pub fn inputs(graph: &Graph, sizes: Sizes) -> HashMap<ValueId, Tensor> {
    graph.inputs.iter().map(|id| (*id, input(graph, *id, sizes))).collect()
}

fn input(graph: &Graph, id: ValueId, sizes: Sizes) -> Tensor {
    let value = graph.value(id);
    let ty = value.ty.as_tensor().expect("an input has a tensor type");
    let shape: Vec<usize> =
        ty.shape.as_ref().expect("an input has a shape").iter().map(|d| sizes.of(d)).collect();
    let n: usize = shape.iter().product();
    let width = shape.last().copied().unwrap_or(1).max(1);
    let is_seen = |i: usize| i % width != 1;
    let integer = |i: usize| match value.name.as_str() {
        "position_ids" => sizes.past + i % width,
        "attention_mask" => usize::from(is_seen(i)),
        "full_mask" => 1,
        _ => (i * i * 5 + i * 3 + 1) % 8,
    };
    match ty.dtype {
        Some(DataType::F32) => Tensor::from_vec(&shape, random(&value.name, n)),
        Some(DataType::F16) => {
            let values = random(&value.name, n).into_iter().map(half::f16::from_f32);
            Tensor::from_vec(&shape, values.collect())
        }
        Some(DataType::I64) => {
            Tensor::from_vec(&shape, (0..n).map(|i| integer(i) as i64).collect())
        }
        Some(DataType::I32) => {
            Tensor::from_vec(&shape, (0..n).map(|i| integer(i) as i32).collect())
        }
        Some(DataType::Bool) => {
            Tensor::from_bools(&shape, &(0..n).map(is_seen).collect::<Vec<_>>())
        }
        other => panic!("no data of type {other:?} for \"{}\"", value.name),
    }
}
