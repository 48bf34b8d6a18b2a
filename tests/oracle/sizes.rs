//! Numbers for the sizes that an export leaves open, and inputs of these sizes.

use std::collections::HashMap;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{DimLike, ToDim};

use crate::OracleError;

/// How many tokens there are, in a batch of one.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Tokens in the cache.
    pub past: usize,
    /// New tokens.
    pub sequence: usize,
}

impl Sizes {
    /// The number that a symbol of an export stands for, told by its name.
    fn of_symbol(&self, name: &str) -> Option<usize> {
        let is = |part: &str| name.contains(part);
        match () {
            () if is("batch") => Some(1),
            () if is("total") => Some(self.past + self.sequence),
            () if is("past") => Some(self.past),
            () if is("seq") => Some(self.sequence),
            () => None,
        }
    }

    /// Puts the numbers in the place of the symbols in all declared shapes.
    pub fn fix(&self, model: &mut InferenceModel) -> TractResult<()> {
        let mut numbers = HashMap::new();
        for symbol in model.symbols.all_symbols() {
            if let Some(number) = self.of_symbol(&symbol.to_string()) {
                numbers.insert(symbol, number.to_dim());
            }
        }
        model.set_symbols(&numbers)
    }

    /// The content of the model's input at `index`: the tokens, their positions, a padding mask
    /// that keeps all, or an empty cache.
    pub fn input(
        &self,
        model: &InferenceModel,
        index: usize,
        ids: &[i64],
    ) -> Result<Tensor, OracleError> {
        let (name, shape) = describe(model, index);
        let total = self.past + self.sequence;
        let end = (self.past + ids.len()) as i64;
        let positions: Vec<i64> = (self.past as i64..end).collect();
        let row = |values: &[i64]| Tensor::from_shape(&[1, values.len()], values);
        let tensor = match (name.as_str(), shape.as_deref()) {
            ("input_ids", Some([1, _])) => row(ids),
            ("position_ids", Some([1, _])) => row(&positions),
            ("attention_mask", Some([1, _])) => row(&vec![1; total]),
            (_, Some(cache @ [1, _, past, _])) if *past == self.past => Tensor::zero::<f32>(cache),
            _ => return Err(unknown(model, index, name)),
        };
        tensor.map_err(|_| unknown(model, index, name))
    }
}

/// The name of an input and its shape, if that is wholly known.
fn describe(model: &InferenceModel, index: usize) -> (String, Option<Vec<usize>>) {
    let Some(outlet) = model.inputs.get(index) else { return Default::default() };
    let name = model.node(outlet.node).name.clone();
    let shape = model.outlet_fact(*outlet).ok().and_then(|fact| fact.shape.concretize());
    let numbers = |dims: TVec<TDim>| dims.iter().map(|d| d.to_usize().ok()).collect();
    (name, shape.and_then(numbers))
}

fn unknown(model: &InferenceModel, index: usize, name: String) -> OracleError {
    let shape = model.input_fact(index).map(|fact| format!("{:?}", fact.shape));
    OracleError::Input { name, shape: shape.unwrap_or_default() }
}
