//! What is behind the last block, with the KL divergence of its logits to those of a teacher.

use planish_ir::{DataType, Dim, Model, Node, Tensor, ValueId, ValueType};

use super::{BlockModel, CalibrateError};
use crate::autodiff::differentiate;

/// The final norm and the head as a graph that compares logits.
///
/// For hidden states `[1, tokens, hidden]` and the teacher's logits `[1, tokens, vocabulary]` it
/// gives the sum over tokens of KL(teacher ‖ student), and the gradient of that sum with respect
/// to the hidden states.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Inputs: `hidden`, those from outside, `teacher_logits`; outputs: the sum `[1]`, then the
    /// gradient.
    pub model: Model,
    /// Name of the input of hidden states.
    pub hidden: String,
    /// Name of the input of the teacher's logits.
    pub teacher: String,
}

impl Divergence {
    /// Adds the divergence and its gradient to `tail`, a cut from the last block's output to the
    /// logits.
    ///
    /// # Errors
    /// If the tail can't be differentiated.
    pub fn new(tail: &BlockModel) -> Result<Self, CalibrateError> {
        let mut model = tail.model.clone();
        let logits = tail.output;
        let shape = vec![Dim::symbol("batch"), Dim::symbol("sequence"), Dim::symbol("vocabulary")];
        let ty = match &model.graph.value(logits).ty {
            ValueType::Unknown => ValueType::tensor(DataType::F32, shape),
            known => known.clone(),
        };
        let teacher = model.graph.new_value("teacher_logits", ty);
        model.graph.inputs.push(teacher);
        let (divergence, seed) = divergence(&mut model, logits, teacher);
        let gradients = differentiate(&mut model, &[(logits, seed)], &[tail.input])?;
        model.graph.outputs = [Some(divergence), gradients[0]].into_iter().flatten().collect();
        model.graph.remove_dead();
        let name = |value: ValueId| model.graph.value(value).name.clone();
        Ok(Self { hidden: name(tail.input), teacher: name(teacher), model })
    }
}

/// Σ KL(softmax(t) ‖ softmax(s)) over all rows, and its gradient softmax(s) − softmax(t) with
/// respect to s.
fn divergence(model: &mut Model, student: ValueId, teacher: ValueId) -> (ValueId, ValueId) {
    let graph = &mut model.graph;
    let last = graph.add_constant("last_axis", Tensor::from_vec(&[1], vec![-1i64]));
    let mut op = |op_type: &str, inputs: &[ValueId]| {
        let node = Node::new(op_type, inputs.iter().copied().map(Some).collect());
        graph.add_op(&format!("kl_{}", op_type.to_lowercase()), node)
    };
    // log softmax, through the largest logit so that no exponential overflows.
    let mut log_softmax = |x: ValueId| {
        let largest = op("ReduceMax", &[x, last]);
        let shifted = op("Sub", &[x, largest]);
        let exponentials = op("Exp", &[shifted]);
        let sum = op("ReduceSum", &[exponentials, last]);
        let log_sum = op("Log", &[sum]);
        let probabilities = op("Div", &[exponentials, sum]);
        (op("Sub", &[shifted, log_sum]), probabilities)
    };
    let ((log_s, s), (log_t, t)) = (log_softmax(student), log_softmax(teacher));
    let difference = op("Sub", &[log_t, log_s]);
    let terms = op("Mul", &[t, difference]);
    let sum = Node::new("ReduceSum", vec![Some(terms)]).with("keepdims", 0i64);
    let seed = op("Sub", &[s, t]);
    (graph.add_op("kl_divergence", sum), seed)
}
