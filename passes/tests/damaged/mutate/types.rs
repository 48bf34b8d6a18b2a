//! Types of inputs, outputs and values in between.

use planish_onnx::proto::tensor_shape_proto::Dimension;
use planish_onnx::proto::tensor_shape_proto::dimension::Value;
use planish_onnx::proto::type_proto::Value as Type;
use planish_onnx::proto::{GraphProto, ValueInfoProto};

use super::Random;

/// Sizes as exporters and others write them.
const TEXTS: [&str; 14] = [
    "B",
    "S",
    "batch_size",
    "B*S",
    "past + S",
    "a - a",
    "2*(a + b)",
    "(a)//(0)",
    "(a*b)//(a)",
    "max(a, b)",
    "9223372036854775807 + 1",
    "-1",
    "((((((a))))))",
    "a*a*a*a*a*a*a*a",
];

/// Changes the type of one value.
pub fn change(graph: &mut GraphProto, random: &mut Random) {
    let values: &mut Vec<ValueInfoProto> = match random.below(3) {
        0 => &mut graph.output,
        1 => &mut graph.value_info,
        _ => &mut graph.input,
    };
    let Some(ty) = random.pick_mut(values).and_then(|info| info.r#type.as_mut()) else { return };
    let Some(Type::TensorType(tensor)) = ty.value.as_mut() else { return };
    match random.below(6) {
        0 => tensor.elem_type = Some(random.below(30) as i32),
        1 => tensor.shape = None,
        _ => {
            let shape = tensor.shape.get_or_insert_with(Default::default);
            random.change_list(&mut shape.dim, size);
        }
    }
}

fn size(random: &mut Random) -> Dimension {
    let value = match random.below(3) {
        0 => Value::DimValue(random.integer()),
        _ => Value::DimParam(TEXTS[random.below(TEXTS.len())].to_owned()),
    };
    Dimension { value: Some(value), ..Dimension::default() }
}
