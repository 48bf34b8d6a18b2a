//! Gradients of whole graphs compared with finite differences of their reference evaluation.

use std::collections::HashMap;

use planish_ir::{DataType, Model, Tensor, ValueId};

use super::differentiate;
use crate::interpret::Interpreter;
use crate::transform::Random;

/// How gradients are checked. The scalar is the sum of all floating-point outputs, each element
/// weighted at random.
pub(crate) struct Check {
    /// The distance of the points of the central differences; a second pair twice as far away
    /// takes the error of order step² out (Richardson).
    pub(crate) step: f32,
    /// The largest difference, relative to the largest element of the gradient (or to 0.05).
    pub(crate) tolerance: f64,
    /// How many elements of each gradient are checked, spread evenly.
    pub(crate) samples: usize,
}

impl Default for Check {
    fn default() -> Self {
        Self { step: 1.0 / 64.0, tolerance: 2e-3, samples: 40 }
    }
}

/// Compares the gradients with respect to `wrt` with finite differences, as [`Check::run`].
pub(crate) fn check_gradients(
    model: &Model,
    inputs: &HashMap<ValueId, Tensor>,
    wrt: &[ValueId],
) -> Result<(), String> {
    Check::default().run(model, inputs, wrt)
}

impl Check {
    /// Compares the gradients with respect to `wrt` (inputs, constants or results of nodes, f32)
    /// with finite differences for the given inputs; the error names the worst element.
    pub(crate) fn run(
        &self,
        model: &Model,
        inputs: &HashMap<ValueId, Tensor>,
        wrt: &[ValueId],
    ) -> Result<(), String> {
        let outputs = evaluate(model, inputs, &model.graph.outputs)?;
        let weights = random_weights(&outputs);
        let at = evaluate(model, inputs, wrt)?;
        let gradients = gradients(model, inputs, &weights, wrt)?;
        for ((value, x), gradient) in wrt.iter().zip(&at).zip(gradients) {
            let name = &model.graph.value(*value).name;
            let gradient = match gradient {
                Some(gradient) if gradient.shape() == x.shape() => floats(&gradient)?,
                Some(gradient) => {
                    let (shape, wanted) = (gradient.shape(), x.shape());
                    return Err(format!("the gradient of \"{name}\" is {shape:?}, not {wanted:?}"));
                }
                None => vec![0.0; x.n_elements()],
            };
            let slope = |i| self.slope(model, inputs, &weights, (*value, x), i);
            self.compare(name, &gradient, slope)?;
        }
        Ok(())
    }

    /// Compares elements of a gradient with the slopes there.
    fn compare(
        &self,
        name: &str,
        gradient: &[f64],
        slope: impl Fn(usize) -> Result<f64, String>,
    ) -> Result<(), String> {
        let largest = gradient.iter().fold(0.05f64, |max, x| max.max(x.abs()));
        let stride = gradient.len().div_ceil(self.samples).max(1);
        for i in (0..gradient.len()).step_by(stride) {
            let (actual, expected) = (gradient[i], slope(i)?);
            // So that NaN is a difference.
            let agree = (actual - expected).abs() <= self.tolerance * largest;
            if !agree {
                return Err(format!(
                    "the gradient of \"{name}\" is {actual} at element {i}, the slope {expected} \
                     (largest gradient {largest})"
                ));
            }
        }
        Ok(())
    }

    /// The slope of the scalar along element `i` of a value that is `x`.
    fn slope(
        &self,
        model: &Model,
        inputs: &HashMap<ValueId, Tensor>,
        weights: &[Option<Vec<f64>>],
        (value, x): (ValueId, &Tensor),
        i: usize,
    ) -> Result<f64, String> {
        let loss = |offset: f32| {
            let mut data = x.to_f32_vec().map_err(|error| error.to_string())?;
            data[i] += offset;
            let mut inputs = inputs.clone();
            inputs.insert(value, Tensor::from_vec(x.shape(), data));
            let outputs = evaluate(model, &inputs, &model.graph.outputs)?;
            scalar(&outputs, weights)
        };
        let central = |step: f32| -> Result<f64, String> {
            Ok((loss(step)? - loss(-step)?) / (2.0 * f64::from(step)))
        };
        Ok((4.0 * central(self.step)? - central(2.0 * self.step)?) / 3.0)
    }
}

/// The gradients of the scalar, by the graph that [`differentiate`] makes.
fn gradients(
    model: &Model,
    inputs: &HashMap<ValueId, Tensor>,
    weights: &[Option<Vec<f64>>],
    wrt: &[ValueId],
) -> Result<Vec<Option<Tensor>>, String> {
    let mut model = model.clone();
    let outputs = evaluate(&model, inputs, &model.graph.outputs)?;
    let mut seeds = Vec::new();
    for ((value, tensor), weights) in
        model.graph.outputs.clone().into_iter().zip(outputs).zip(weights)
    {
        let Some(weights) = weights else { continue };
        let data = weights.iter().map(|w| *w as f32).collect();
        let seed = Tensor::from_vec(tensor.shape(), data);
        seeds.push((value, model.graph.add_constant("seed", seed)));
    }
    let gradients = differentiate(&mut model, &seeds, wrt).map_err(|error| error.to_string())?;
    planish_ir::verify(&model).map_err(|error| format!("{error:?}"))?;
    let value = |gradient: Option<ValueId>| match gradient {
        Some(gradient) => Ok(Some(evaluate(&model, inputs, &[gradient])?.remove(0))),
        None => Ok(None),
    };
    gradients.into_iter().map(value).collect()
}

/// The values of `targets`; those among `known` are taken as they are, whatever computes them.
pub(crate) fn evaluate(
    model: &Model,
    known: &HashMap<ValueId, Tensor>,
    targets: &[ValueId],
) -> Result<Vec<Tensor>, String> {
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let mut interpreter = Interpreter::new(&model.graph, &opset, known.clone());
    targets.iter().map(|target| interpreter.value(*target)).collect()
}

/// Weights for the elements of each output, none for outputs that are not f32.
fn random_weights(outputs: &[Tensor]) -> Vec<Option<Vec<f64>>> {
    let mut random = Random::new(11);
    let mut weights = |tensor: &Tensor| -> Vec<f64> {
        (0..tensor.n_elements()).map(|_| f64::from(random.normal() as f32)).collect()
    };
    outputs.iter().map(|t| (t.dtype() == DataType::F32).then(|| weights(t))).collect()
}

fn scalar(outputs: &[Tensor], weights: &[Option<Vec<f64>>]) -> Result<f64, String> {
    let mut sum = 0.0;
    for (tensor, weights) in outputs.iter().zip(weights) {
        let Some(weights) = weights else { continue };
        sum += floats(tensor)?.iter().zip(weights).map(|(y, w)| y * w).sum::<f64>();
    }
    Ok(sum)
}

fn floats(tensor: &Tensor) -> Result<Vec<f64>, String> {
    let values = tensor.to_f32_vec().map_err(|error| error.to_string())?;
    Ok(values.into_iter().map(f64::from).collect())
}
