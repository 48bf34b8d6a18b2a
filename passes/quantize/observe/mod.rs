//! Models with more outputs, that tell what activations are like.

mod hessians;
mod ranges;

#[cfg(test)]
mod tests;

use planish_ir::{DataType, Dim, Graph, Model, ValueId, ValueType};

use crate::sites::SiteId;

pub(super) use hessians::dequantize_activation;
pub use hessians::{add_gram, observe_hessians};
pub use ranges::{CalibrationStats, observe};

/// A model with more outputs.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The model.
    pub model: Model,
    /// The site of each added output and the output's name, in order of the outputs.
    pub outputs: Vec<(SiteId, String)>,
}

/// Makes an f32 value an output of the graph; returns its name.
fn add_output(graph: &mut Graph, id: ValueId, shape: &[usize]) -> String {
    let value = graph.value_mut(id);
    value.ty = ValueType::tensor(DataType::F32, shape.iter().map(|n| Dim::from(*n)).collect());
    value.declared = true;
    let name = value.name.clone();
    graph.outputs.push(id);
    name
}
