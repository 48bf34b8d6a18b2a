//! What tests of the exports in `models/` share.

use std::collections::HashMap;
use std::path::Path;

use planish_ir::{DataType, Model, Tensor, ValueId};
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;
use planish_passes::sites::Layout;

/// The model in a file, in canonical form.
pub fn canonical(path: &Path) -> Model {
    let mut model = planish_onnx::read_model(path).unwrap();
    canonicalize(&mut model, &mut PassManager::new()).unwrap();
    model
}

/// The inputs for a short prompt on an empty cache.
pub fn prompt(model: &Model) -> HashMap<ValueId, Tensor> {
    const SEQUENCE: usize = 4;
    let graph = &model.graph;
    let tensor = |input: &ValueId| {
        let value = graph.value(*input);
        let name = value.name.as_str();
        if value.dtype() == Some(DataType::F32) {
            let size = |axis: usize| value.shape().unwrap()[axis].as_usize();
            let heads = size(1).unwrap();
            let channels = size(3).or(head_size(model, *input)).unwrap();
            return Tensor::from_vec(&[1, heads, 0, channels], Vec::<f32>::new());
        }
        let element = |i: usize| match name {
            "input_ids" => 3 + 11 * i as i64,
            "position_ids" => i as i64,
            _ => 1,
        };
        Tensor::from_vec(&[1, SEQUENCE], (0..SEQUENCE).map(element).collect())
    };
    graph.inputs.iter().map(|v| (*v, tensor(v))).collect()
}

/// Where the export leaves the head size open: what the attention that reads the cache has, or, where
/// something lies between the two, any.
fn head_size(model: &Model, cache: ValueId) -> Option<usize> {
    let reader = model.graph.users(cache).first().map(|(reader, _)| *reader);
    let layout = Layout::new(model).ok()?;
    let reads = layout.attentions.iter().find(|attention| Some(attention.node) == reader);
    reads.or(layout.attentions.first()).map(|attention| attention.head_size)
}
