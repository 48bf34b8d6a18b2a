//! What is minimised, and its gradients.

use planish_ir::{DataType, Dim, Model, Node, Tensor, ValueId, ValueType};

use super::{CalibrateError, Student};
use crate::autodiff::differentiate;

/// Where the gradient of the student's output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A further input `target`, what the output should be: the loss is the squared error of each
    /// token over the squared norm of its target, in the mean over tokens. Some tokens' states
    /// are a hundred times as large as the others' and would be all that is learned from else.
    /// The gradients are those of the loss's logarithm (FlatQuant divides the loss by its own
    /// detached value), so that blocks of any error learn at the same rates.
    Output,
    /// A further input `output_gradient`: the gradient of a loss computed elsewhere.
    Gradient,
}

/// A student's graph with loss and gradients.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Inputs: those of the student, then the target; outputs as named below.
    pub model: Model,
    /// Name of the input that [`Target`] describes.
    pub target: String,
    /// Name of the loss, a scalar; for [`Target::Output`] only.
    pub loss: Option<String>,
    /// Name of the gradient of each parameter, of its shape; `None` where the loss does not
    /// depend on it.
    pub gradients: Vec<Option<String>>,
    /// Name of the gradient of the block's input; for [`Target::Gradient`] only.
    pub input_gradient: Option<String>,
}

impl Objective {
    /// Adds loss and gradients to a student.
    ///
    /// # Errors
    /// If something in the block can't be differentiated.
    pub fn new(student: &Student, target: Target) -> Result<Self, CalibrateError> {
        let mut model = student.model.clone();
        let output = student.output;
        let hint = match target {
            Target::Output => "target",
            Target::Gradient => "output_gradient",
        };
        let given = add_input_like(&mut model, hint, output);
        let (loss, seed) = match target {
            Target::Output => {
                let (loss, seed) = relative_error(&mut model, output, given);
                (Some(loss), seed)
            }
            Target::Gradient => (None, given),
        };
        let n_own = model.graph.inputs.len() - 1 - student.parameters.len();
        let mut wrt = model.graph.inputs[n_own..n_own + student.parameters.len()].to_vec();
        if target == Target::Gradient {
            wrt.push(student.input);
        }
        let mut gradients = differentiate(&mut model, &[(output, seed)], &wrt)?;
        let of_input = if target == Target::Gradient { gradients.pop().flatten() } else { None };
        model.graph.outputs = loss.into_iter().chain(gradients.iter().flatten().copied()).collect();
        model.graph.outputs.extend(of_input);
        model.graph.remove_dead();
        let name = |value: ValueId| model.graph.value(value).name.clone();
        Ok(Self {
            target: name(given),
            loss: loss.map(name),
            gradients: gradients.iter().map(|g| g.map(name)).collect(),
            input_gradient: of_input.map(name),
            model,
        })
    }
}

fn add_input_like(model: &mut Model, hint: &str, like: ValueId) -> ValueId {
    let ty = model.graph.value(like).ty.clone();
    let ty = if ty == ValueType::Unknown {
        ValueType::tensor(DataType::F32, ["batch", "sequence", "hidden"].map(Dim::parse).to_vec())
    } else {
        ty
    };
    let value = model.graph.new_value(hint, ty);
    model.graph.inputs.push(value);
    value
}

/// The mean over tokens of ‖y − t‖² / ‖t‖², and the gradient of its logarithm with respect to y.
fn relative_error(model: &mut Model, output: ValueId, target: ValueId) -> (ValueId, ValueId) {
    let graph = &mut model.graph;
    let last = graph.add_constant("last_axis", Tensor::from_vec(&[1], vec![-1i64]));
    // A token without any signal counts little; a block that is met exactly has no direction.
    let tiny = graph.add_constant("tiny", Tensor::scalar(1e-20f32));
    let two = graph.add_constant("two", Tensor::scalar(2f32));
    let mut op = |hint: &str, op_type: &str, inputs: &[ValueId]| {
        let node = Node::new(op_type, inputs.iter().copied().map(Some).collect());
        let all = op_type.starts_with("Reduce") && inputs.len() == 1;
        graph.add_op(hint, if all { node.with("keepdims", 0i64) } else { node })
    };
    let difference = op("difference", "Sub", &[output, target]);
    let mut squared_norm = |x: ValueId| {
        let square = op("square", "Mul", &[x, x]);
        let sum = op("squared_norm", "ReduceSum", &[square, last]);
        op("squared_norm", "Max", &[sum, tiny])
    };
    let (error, signal) = (squared_norm(difference), squared_norm(target));
    let ratio = op("relative_error", "Div", &[error, signal]);
    let loss = op("loss", "ReduceMean", &[ratio]);
    let sum = op("sum", "ReduceSum", &[ratio]);
    let divisor = op("divisor", "Mul", &[signal, sum]);
    let factor = op("factor", "Div", &[two, divisor]);
    (loss, op("output_gradient", "Mul", &[difference, factor]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::autodiff::{block, check};
    use crate::calibrate::{Initial, Online, StudentOptions};
    use crate::testing::TinyDecoder;
    use crate::transform::Random;

    fn student(bits: &str) -> (Student, HashMap<ValueId, Tensor>) {
        let (block, mut inputs) = block::small(TinyDecoder::default());
        let options = StudentOptions {
            bits: bits.parse().unwrap(),
            group_size: None,
            online: Online::Kronecker,
            scales: true,
            shifts: false,
            weights: true,
            gradual: None,
        };
        let student = Student::new(&block, &options, &mut Initial::new(3)).unwrap();
        let graph = &student.model.graph;
        let first = graph.inputs.len() - student.parameters.len();
        for (value, parameter) in graph.inputs[first..].iter().zip(&student.parameters) {
            inputs.insert(*value, parameter.initial.clone());
        }
        (student, inputs)
    }

    fn value(model: &Model, name: &str) -> ValueId {
        let mut values = model.graph.value_ids();
        values.find(|v| model.graph.value(*v).name == name).unwrap()
    }

    fn random_like(like: &Tensor, seed: u64) -> Tensor {
        let mut random = Random::new(seed);
        let data = (0..like.n_elements()).map(|_| random.normal() as f32).collect();
        Tensor::from_vec(like.shape(), data)
    }

    fn floats(tensor: &Tensor) -> Vec<f64> {
        tensor.to_f32_vec().unwrap().into_iter().map(f64::from).collect()
    }

    /// The mean over rows of ‖y − t‖² / ‖t‖².
    fn plain_loss(y: &[f64], t: &[f64], n: usize) -> f64 {
        let row = |(y, t): (&[f64], &[f64])| {
            let error: f64 = y.iter().zip(t).map(|(y, t)| (y - t).powi(2)).sum();
            error / t.iter().map(|t| t * t).sum::<f64>()
        };
        y.chunks(n).zip(t.chunks(n)).map(row).sum::<f64>() / (y.len() / n) as f64
    }

    #[test]
    fn the_loss_is_the_relative_error_of_the_output() {
        let (student, mut inputs) = student("w4a4kv4");
        let objective = Objective::new(&student, Target::Output).unwrap();
        planish_ir::verify(&objective.model).unwrap();
        assert!(objective.gradients.iter().all(Option::is_some) && objective.gradients.len() > 20);
        let y = check::evaluate(&student.model, &inputs, &[student.output]).unwrap().remove(0);
        let t = random_like(&y, 2);
        inputs.insert(value(&objective.model, &objective.target), t.clone());
        let loss = value(&objective.model, objective.loss.as_ref().unwrap());
        let loss = check::evaluate(&objective.model, &inputs, &[loss]).unwrap().remove(0);
        let wanted = plain_loss(&floats(&y), &floats(&t), *y.shape().last().unwrap());
        assert!(loss.shape().is_empty() || loss.n_elements() == 1);
        assert!((floats(&loss)[0] / wanted - 1.0).abs() < 1e-5, "{loss:?} {wanted}");
    }

    #[test]
    fn the_gradient_is_that_of_the_losss_logarithm() {
        let mut model = Model::default();
        model.set_opset("", 21);
        let ty = ValueType::tensor(DataType::F32, [2usize, 3, 4].map(Dim::from).to_vec());
        let y = model.graph.new_value("y", ty.clone());
        let t = model.graph.new_value("t", ty);
        model.graph.inputs = vec![y, t];
        let (_, gradient) = relative_error(&mut model, y, t);
        let shape = Tensor::from_vec(&[2, 3, 4], vec![0.0f32; 24]);
        let (y_data, t_data) = (random_like(&shape, 4), random_like(&shape, 5));
        let inputs = HashMap::from([(y, y_data.clone()), (t, t_data.clone())]);
        let gradient = check::evaluate(&model, &inputs, &[gradient]).unwrap().remove(0);
        let (y, t) = (floats(&y_data), floats(&t_data));
        for (i, actual) in floats(&gradient).into_iter().enumerate() {
            let log_loss = |offset: f64| {
                let mut y = y.clone();
                y[i] += offset;
                plain_loss(&y, &t, 4).ln()
            };
            let slope = (log_loss(1e-5) - log_loss(-1e-5)) / 2e-5;
            assert!((actual - slope).abs() < 1e-5, "{i}: {actual} {slope}");
        }
    }

    #[test]
    fn the_gradient_of_the_input_is_the_slope() {
        let (student, mut inputs) = student("w16a16kv16");
        let objective = Objective::new(&student, Target::Gradient).unwrap();
        planish_ir::verify(&objective.model).unwrap();
        assert_eq!((objective.gradients.len(), &objective.loss), (0, &None));
        let x = inputs[&student.input].clone();
        let seed = random_like(&x, 6);
        inputs.insert(value(&objective.model, &objective.target), seed.clone());
        let gradient = value(&objective.model, objective.input_gradient.as_ref().unwrap());
        let gradient = check::evaluate(&objective.model, &inputs, &[gradient]).unwrap().remove(0);
        assert_eq!(gradient.shape(), x.shape());
        let loss = |i: usize, offset: f32| {
            let mut data = x.to_f32_vec().unwrap();
            data[i] += offset;
            let mut inputs = inputs.clone();
            inputs.insert(student.input, Tensor::from_vec(x.shape(), data));
            let y = check::evaluate(&student.model, &inputs, &[student.output]).unwrap().remove(0);
            floats(&y).iter().zip(floats(&seed)).map(|(y, g)| y * g).sum::<f64>()
        };
        let slope = |i, h: f32| (loss(i, h) - loss(i, -h)) / (2.0 * f64::from(h));
        let gradient = floats(&gradient);
        let largest = gradient.iter().fold(0.0f64, |max, g| max.max(g.abs()));
        for i in (0..gradient.len()).step_by(11) {
            // Richardson's extrapolation takes the error of order h² out.
            let h = 1.0 / 128.0;
            let slope = (4.0 * slope(i, h) - slope(i, 2.0 * h)) / 3.0;
            assert!((gradient[i] - slope).abs() < 5e-3 * largest, "{i}: {} {slope}", gradient[i]);
        }
    }
}
