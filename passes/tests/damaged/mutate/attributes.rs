//! Attributes of nodes.

use planish_onnx::proto::attribute_proto::AttributeType;
use planish_onnx::proto::{AttributeProto, GraphProto};

use super::{Random, tensors};

/// Integers that operators of the vocabulary have.
const INTEGERS: [&str; 20] = [
    "axis",
    "keepdims",
    "to",
    "num_heads",
    "q_num_heads",
    "kv_num_heads",
    "is_causal",
    "rotary_embedding_dim",
    "interleaved",
    "transA",
    "transB",
    "allowzero",
    "batch_dims",
    "block_size",
    "bits",
    "num_outputs",
    "exclusive",
    "start",
    "end",
    "head_size",
];
/// Lists of integers that they have.
const LISTS: [&str; 8] = ["axes", "perm", "split", "starts", "ends", "pads", "shape", "value_ints"];
/// Floats that they have.
const FLOATS: [&str; 6] = ["epsilon", "alpha", "beta", "scale", "softcap", "clip_max"];

/// Changes one attribute, or adds or removes one.
pub fn change(graph: &mut GraphProto, random: &mut Random) {
    let with: Vec<usize> =
        (0..graph.node.len()).filter(|i| !graph.node[*i].attribute.is_empty()).collect();
    let any = random.below(graph.node.len());
    let chosen = random.pick(&with).copied().filter(|_| !random.one_in(4)).unwrap_or(any);
    let Some(node) = graph.node.get_mut(chosen) else { return };
    match random.below(6) {
        0 => node.attribute.push(new(random)),
        1 if !node.attribute.is_empty() => {
            node.attribute.remove(random.below(node.attribute.len()));
        }
        _ => match random.pick_mut(&mut node.attribute) {
            Some(attribute) => change_value(attribute, random),
            None => node.attribute.push(new(random)),
        },
    }
}

fn new(random: &mut Random) -> AttributeProto {
    let mut attribute = AttributeProto::default();
    let (kind, names): (_, &[&str]) = match random.below(4) {
        0 => (AttributeType::Ints, &LISTS),
        1 => (AttributeType::Float, &FLOATS),
        _ => (AttributeType::Int, &INTEGERS),
    };
    attribute.name = random.pick(names).map(|name| (*name).to_owned());
    attribute.r#type = Some(kind as i32);
    change_value(&mut attribute, random);
    attribute
}

fn change_value(attribute: &mut AttributeProto, random: &mut Random) {
    if random.one_in(20) {
        attribute.r#type = Some(random.below(16) as i32);
    }
    match attribute.r#type() {
        AttributeType::Int => attribute.i = Some(random.integer()),
        AttributeType::Float => attribute.f = Some(random.float()),
        AttributeType::Ints => random.change_list(&mut attribute.ints, Random::integer),
        AttributeType::Floats => random.change_list(&mut attribute.floats, Random::float),
        AttributeType::Tensor => {
            if let Some(tensor) = attribute.t.as_mut() {
                tensors::change_tensor(tensor, random);
            }
        }
        AttributeType::Graph => {
            if let Some(graph) = attribute.g.as_mut() {
                super::change_graph(graph, random);
            }
        }
        AttributeType::String => {
            let texts = [&b""[..], b"both", b"add", b"max", b"tanh", b"equation", b"\xff\xfe"];
            attribute.s = random.pick(&texts).map(|text| bytes::Bytes::from_static(text));
        }
        _ => {}
    }
}
