//! What a model computes, before and after.

use planish_ir::text::{PrintOptions, print};
use planish_ir::{Model, Tensor, ValueId};
use planish_passes::interpret::Interpreter;

use crate::inputs::{Sizes, inputs};

/// Largest difference relative to the largest element of an output: passes may add up in another
/// order, and norms and quotients make small differences larger.
const TOLERANCE: f32 = 1e-4;

/// Sizes to evaluate with.
const SIZES: [Sizes; 2] =
    [Sizes { batch: 2, sequence: 3, past: 2 }, Sizes { batch: 1, sequence: 1, past: 0 }];

/// Outputs by name, for each of the sizes.
pub struct Results(Vec<Vec<(String, Tensor)>>);

impl Results {
    /// Evaluates the model by the operators' reference forms.
    pub fn of(model: &Model) -> Result<Self, String> {
        SIZES.iter().map(|sizes| evaluate(model, *sizes)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether another model computes the same.
    ///
    /// # Panics
    /// With `what`, the difference and the text of the model if not.
    pub fn assert_of(&self, model: &Model, what: &str) {
        let compared = Self::of(model).and_then(|other| self.compare(&other, TOLERANCE));
        if let Err(difference) = compared {
            panic!("{what}: {difference}\n{}", text_of(model));
        }
    }

    /// Compares to within a difference relative to the largest element of each output.
    pub fn compare(&self, other: &Self, tolerance: f32) -> Result<(), String> {
        for (expected, actual) in self.0.iter().zip(&other.0) {
            if expected.len() != actual.len() {
                return Err(format!("{} outputs became {}", expected.len(), actual.len()));
            }
            for ((name, expected), (other, actual)) in expected.iter().zip(actual) {
                if name != other {
                    return Err(format!("the output {name} became {other}"));
                }
                same(expected, actual, tolerance).map_err(|e| format!("the output {name} {e}"))?;
            }
        }
        Ok(())
    }

    /// Whether all numbers are finite, and not all zero: others say nothing.
    pub fn say_something(&self) -> bool {
        let mut outputs = self.0.iter().flatten().map(|(_, t)| t.to_f32_vec().unwrap());
        outputs.all(|x| x.iter().all(|x| x.is_finite() && x.abs() < 1e4))
    }
}

pub fn text_of(model: &Model) -> String {
    print(&model.graph, &PrintOptions { max_elements: 4, value_info: false, types: true })
}

fn evaluate(model: &Model, sizes: Sizes) -> Result<Vec<(String, Tensor)>, String> {
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let graph = &model.graph;
    let mut interpreter = Interpreter::new(graph, &opset, inputs(graph, sizes));
    let output = |id: &ValueId| Ok((graph.value(*id).name.clone(), interpreter.value(*id)?));
    graph.outputs.iter().map(output).collect()
}

fn same(expected: &Tensor, actual: &Tensor, tolerance: f32) -> Result<(), String> {
    if (expected.dtype(), expected.shape()) != (actual.dtype(), actual.shape()) {
        let (a, b) = (actual.dtype(), actual.shape());
        return Err(format!("was {} {:?} and is {a} {b:?}", expected.dtype(), expected.shape()));
    }
    let read = |t: &Tensor| t.to_f32_vec().map_err(|e| e.to_string());
    let (expected, actual) = (read(expected)?, read(actual)?);
    let largest = expected.iter().fold(1e-2f32, |m, x| m.max(x.abs()));
    for (i, (e, a)) in expected.iter().zip(&actual).enumerate() {
        let is_close = (e - a).abs() <= tolerance * largest;
        if !is_close {
            return Err(format!("was {e} and is {a} at {i}"));
        }
    }
    Ok(())
}
