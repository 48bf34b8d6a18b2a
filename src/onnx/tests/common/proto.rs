//! Small protobuf messages.

use planish_onnx::proto::attribute_proto::AttributeType;
use planish_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use prost::Message;

/// A model of version 10 around `graph`.
pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(23) }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// A graph that returns what its nodes write first.
pub fn graph(inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    let infos = |names: &[&str]| names.iter().map(|name| untyped(name)).collect();
    GraphProto {
        name: Some("graph".into()),
        input: infos(inputs),
        output: infos(outputs),
        node: nodes,
        ..GraphProto::default()
    }
}

/// A node without attributes.
pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.into()),
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: outputs.iter().map(|s| (*s).to_owned()).collect(),
        ..NodeProto::default()
    }
}

/// A value of which nothing but the name is known.
pub fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() }
}

/// A tensor value; `""` is a dimension without size, digits are a number.
pub fn typed(name: &str, elem_type: i32, dims: &[&str]) -> ValueInfoProto {
    use tensor_shape_proto::dimension::Value;
    let dim = |text: &&str| tensor_shape_proto::Dimension {
        denotation: None,
        value: match text.parse() {
            _ if text.is_empty() => None,
            Ok(size) => Some(Value::DimValue(size)),
            Err(_) => Some(Value::DimParam((*text).to_owned())),
        },
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(elem_type),
        shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(TypeProto { denotation: None, value });
    ValueInfoProto { r#type, ..untyped(name) }
}

/// A tensor with `raw_data`.
pub fn tensor(name: &str, data_type: i32, dims: &[i64], raw: &[u8]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(data_type),
        dims: dims.to_vec(),
        raw_data: (!raw.is_empty()).then(|| raw.to_vec().into()),
        ..TensorProto::default()
    }
}

/// An attribute of type `kind` without a value.
pub fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(kind as i32),
        ..AttributeProto::default()
    }
}

/// A subgraph as an attribute.
pub fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph), ..attribute(name, AttributeType::Graph) }
}

/// The message of the error on reading `proto` without a folder.
pub fn error(proto: &ModelProto) -> String {
    let bytes = proto.encode_to_vec().into();
    planish_onnx::read_model_bytes(bytes, None).unwrap_err().to_string()
}
