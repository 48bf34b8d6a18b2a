//! What is minimised, and its gradients.

use planish_ir::{DataType, Model, Node, ValueId, ValueType};

use super::{CalibrateError, Student};
use crate::autodiff::differentiate;

/// Where the gradient of the student's output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A further input `target`, what the output should be: the loss is the mean squared error,
    /// and the gradients are those of its logarithm (FlatQuant divides the loss by its own
    /// detached value), so that blocks of any magnitude learn at the same rates.
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
                let (loss, seed) = squared_error(&mut model, output, given);
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
        ValueType::tensor(DataType::F32, ["batch", "sequence", "hidden"].map(planish_ir::Dim::parse).to_vec())
    } else {
        ty
    };
    let value = model.graph.new_value(hint, ty);
    model.graph.inputs.push(value);
    value
}

/// The mean squared error, and the gradient of its logarithm with respect to the output.
fn squared_error(model: &mut Model, output: ValueId, target: ValueId) -> (ValueId, ValueId) {
    let graph = &mut model.graph;
    let mut op = |hint: &str, op_type: &str, inputs: &[ValueId]| {
        let node = Node::new(op_type, inputs.iter().copied().map(Some).collect());
        let node = if op_type.starts_with("Reduce") { node.with("keepdims", 0i64) } else { node };
        graph.add_op(hint, node)
    };
    let difference = op("difference", "Sub", &[output, target]);
    let square = op("square", "Mul", &[difference, difference]);
    let loss = op("loss", "ReduceMean", &[square]);
    let sum = op("squared_error", "ReduceSum", &[square]);
    // A block that is met exactly has no direction to go.
    let tiny = graph.add_constant("tiny", planish_ir::Tensor::scalar(f32::MIN_POSITIVE));
    let two = graph.add_constant("two", planish_ir::Tensor::scalar(2f32));
    let mut op = |hint: &str, op_type: &str, inputs: &[ValueId]| {
        graph.add_op(hint, Node::new(op_type, inputs.iter().copied().map(Some).collect()))
    };
    let sum = op("squared_error_floored", "Max", &[sum, tiny]);
    let factor = op("factor", "Div", &[two, sum]);
    (loss, op("output_gradient", "Mul", &[difference, factor]))
}
