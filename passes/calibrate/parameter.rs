//! What is learned: tensors with a role.

use planish_ir::Tensor;

/// Index into [`super::Student::parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub usize);

/// The role of a parameter; each has a learning rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParameterKind {
    /// A transform's matrix.
    Matrix,
    /// Logarithms of per-channel scales.
    Scale,
    /// Per-channel shifts.
    Shift,
    /// Clipping of weights, activations or cache: the ratio is the sigmoid of it.
    Clip,
    /// A linear layer's weight itself.
    Weight,
}

impl ParameterKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Matrix, Self::Scale, Self::Shift, Self::Clip, Self::Weight];
}

/// A parameter: an input of the student's graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Name of the graph input.
    pub name: String,
    /// Its role.
    pub kind: ParameterKind,
    /// What it starts from, f32.
    pub initial: Tensor,
}
