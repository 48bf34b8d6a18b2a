//! Changes models at random, so that most of them still can be read: what goes wrong then goes
//! wrong deeper inside than in the protobuf decoder.

mod attributes;
mod nodes;
mod numbers;
mod tensors;
mod types;

use planish_onnx::proto::{GraphProto, ModelProto};

pub use numbers::Random;

/// Changes that are made to one model at most.
const MAX_CHANGES: usize = 4;

/// Makes one to four changes.
pub fn mutate(model: &mut ModelProto, random: &mut Random) {
    for _ in 0..1 + random.below(MAX_CHANGES) {
        if random.one_in(12) {
            change_versions(model, random);
        }
        if let Some(graph) = model.graph.as_mut() {
            change_graph(graph, random);
        }
    }
}

fn change_graph(graph: &mut GraphProto, random: &mut Random) {
    match random.below(10) {
        0..4 => nodes::change(graph, random),
        4..7 => attributes::change(graph, random),
        7..9 => tensors::change(graph, random),
        _ => types::change(graph, random),
    }
}

/// The versions of the operator sets, or of the format.
fn change_versions(model: &mut ModelProto, random: &mut Random) {
    let version = [1, 6, 9, 11, 13, 17, 18, 20, 21, 22, 23, 24][random.below(12)];
    match random.pick_mut(&mut model.opset_import) {
        Some(import) => import.version = Some(version),
        None => model.ir_version = Some(random.integer()),
    }
}
