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
