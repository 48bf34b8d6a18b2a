//! What exporters of language models rarely write comes back as it was.

mod common;

use common::describe::assert_same;
use common::normal::normalise;
use common::proto::*;
use planish_ir::text::{PrintOptions, parse, print, unknown_dim};
use planish_ir::{Attribute, DataType, Dim, Graph, Model, Node, Tensor, ValueType};
use planish_onnx::proto::attribute_proto::AttributeType;
use planish_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, TypeProto, ValueInfoProto, type_proto,
};
use planish_onnx::{ValueInfo, WriteOptions, read_model_bytes, write_model};
use prost::Message;

fn read(proto: &ModelProto) -> Model {
    read_model_bytes(proto.encode_to_vec().into(), None).unwrap()
}

/// The protobuf that we write for a model.
fn write(model: &Model) -> ModelProto {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    write_model(model, &path, &WriteOptions::default()).unwrap();
    ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap()
}

fn assert_survives(proto: &ModelProto) {
    let model = read(proto);
    let (mut before, mut after) = (proto.clone(), write(&model));
    assert_same(&model, &read(&after));
    normalise(&mut before);
    normalise(&mut after);
    assert_eq!(before, after);
    let text = print(&model, &PrintOptions::complete());
    assert_eq!(print(&parse(&text).unwrap(), &PrintOptions::complete()), text);
}

fn props(key: &str) -> Vec<StringStringEntryProto> {
    vec![StringStringEntryProto { key: Some(key.into()), value: Some("value".into()) }]
}

fn every_attribute() -> Vec<AttributeProto> {
    let sparse = SparseTensorProto {
        values: Some(tensor("v", 1, &[1], &[0; 4])),
        indices: Some(tensor("i", 7, &[1], &[0; 8])),
        dims: vec![4],
    };
    let kind = |name, kind| attribute(name, kind);
    vec![
        AttributeProto { f: Some(1.5), ..kind("a", AttributeType::Float) },
        AttributeProto { i: Some(-3), ..kind("b", AttributeType::Int) },
        AttributeProto { s: Some(b"\xfftext"[..].into()), ..kind("c", AttributeType::String) },
        AttributeProto {
            t: Some(tensor("", 22, &[3], &[0x78, 0x0F])),
            ..kind("d", AttributeType::Tensor)
        },
        AttributeProto { floats: vec![0.5, -0.0], ..kind("e", AttributeType::Floats) },
        AttributeProto { ints: vec![i64::MIN, 0], ..kind("f", AttributeType::Ints) },
        AttributeProto {
            strings: vec!["x".into(), "".into()],
            ..kind("g", AttributeType::Strings)
        },
        AttributeProto {
            tensors: vec![tensor("", 9, &[], &[1])],
            ..kind("h", AttributeType::Tensors)
        },
        AttributeProto { sparse_tensor: Some(sparse), ..kind("i", AttributeType::SparseTensor) },
        AttributeProto { tp: Some(sequence()), ..kind("j", AttributeType::TypeProto) },
        kind("k", AttributeType::Ints),
        kind("l", AttributeType::Graphs),
    ]
}

fn sequence() -> TypeProto {
    let element = typed("", 1, &["N"]).r#type.map(Box::new);
    let value =
        type_proto::Value::SequenceType(Box::new(type_proto::Sequence { elem_type: element }));
    TypeProto { denotation: None, value: Some(value) }
}

fn metadata_everywhere(node: &mut NodeProto) {
    node.name = Some("a/node::name".into());
    node.doc_string = Some("what the node does".into());
    node.metadata_props = props("pkg.torch.onnx.name_scopes");
    node.overload = Some("two".into());
    node.domain = Some("org.example".into());
    node.attribute = every_attribute();
}

fn everything() -> ModelProto {
    let mut custom = node("Unheard", &["x", "", "words"], &["y", "", "z"]);
    metadata_everywhere(&mut custom);
    let mut graph = graph(&[], vec![custom], &[]);
    graph.input = vec![
        typed("x", 1, &["batch", "past + seq", "", "3"]),
        ValueInfoProto { r#type: Some(sequence()), ..untyped("sequence") },
        typed("with_default", 6, &["1"]),
    ];
    graph.output = vec![typed("y", 16, &[]), untyped("z")];
    graph.initializer = vec![
        tensor("with_default", 6, &[1], &[1, 0, 0, 0]),
        TensorProto {
            string_data: vec!["a".into(), b"\xff"[..].into()],
            ..tensor("words", 8, &[2], &[])
        },
        TensorProto {
            doc_string: Some("packed".into()),
            metadata_props: props("origin"),
            ..tensor("codes", 22, &[3], &[0x21, 0x03])
        },
        tensor("empty", 1, &[0, 4], &[]),
    ];
    graph.initializer[3].raw_data = Some(Default::default());
    graph.value_info = vec![ValueInfoProto {
        doc_string: Some("described".into()),
        metadata_props: props("of a value"),
        ..typed("words", 8, &["2"])
    }];
    graph.doc_string = Some("what the graph does".into());
    graph.metadata_props = props("of the graph");
    let mut model = model(graph);
    model.producer_name = Some("a tool".into());
    model.producer_version = Some("1".into());
    model.domain = Some("org.example".into());
    model.model_version = Some(3);
    model.doc_string = Some("what the model does".into());
    model.metadata_props = props("of the model");
    model
        .opset_import
        .push(OperatorSetIdProto { domain: Some("org.example".into()), version: Some(4) });
    model
}

#[test]
fn everything_that_a_graph_can_hold_survives() {
    assert_survives(&everything());
}

#[test]
fn functions_survive() {
    let mut model = everything();
    let reference = AttributeProto {
        ref_attr_name: Some("factor".into()),
        ..attribute("alpha", AttributeType::Float)
    };
    let mut body = node("LeakyRelu", &["in"], &["out"]);
    body.attribute = vec![reference];
    model.functions = vec![FunctionProto {
        name: Some("Unheard".into()),
        domain: Some("org.example".into()),
        overload: Some("two".into()),
        input: vec!["in".into(), "unused".into()],
        output: vec!["out".into()],
        attribute: vec!["factor".into()],
        attribute_proto: vec![AttributeProto {
            i: Some(2),
            ..attribute("axis", AttributeType::Int)
        }],
        node: vec![body],
        doc_string: Some("what the function does".into()),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(23) }],
        value_info: vec![typed("in", 1, &["N"]), typed("out", 1, &["N"])],
        metadata_props: props("of the function"),
    }];
    assert_survives(&model);
    let function = &read(&model).functions[0];
    let node = function.body.node_ids().next().unwrap();
    let alpha = &function.body.node(node).attributes["alpha"];
    assert!(matches!(alpha, Attribute::Ref(name, 1) if name == "factor"));
}

/// `x` and `y` are read two levels below the graph that defines them.
fn nested() -> ModelProto {
    let innermost = GraphProto {
        initializer: vec![tensor("k", 1, &[], &[0; 4])],
        ..graph(&[], vec![node("Sum", &["x", "y", "k", "m"], &["c"])], &["c"])
    };
    let mut inner_if = node("If", &["flag"], &["b"]);
    inner_if.attribute = vec![
        subgraph("else_branch", graph(&[], vec![], &["m"])),
        subgraph("then_branch", innermost),
    ];
    let inner = graph(&[], vec![node("Neg", &["x"], &["m"]), inner_if], &["b"]);
    let mut outer_if = node("If", &["flag"], &["a"]);
    outer_if.attribute =
        vec![subgraph("else_branch", graph(&[], vec![], &["x"])), subgraph("then_branch", inner)];
    model(graph(&["flag", "x"], vec![node("Neg", &["x"], &["y"]), outer_if], &["a"]))
}

#[test]
fn subgraphs_and_what_they_capture_survive() {
    assert_survives(&nested());
    let model = read(&nested());
    let graph = &model.graph;
    let branch = graph.producer_node(graph.outputs[0]).unwrap().attributes["then_branch"].graphs();
    let captured: Vec<&str> =
        branch[0].captures.iter().map(|c| graph.value(c.outer).name.as_str()).collect();
    assert_eq!(captured, ["x", "flag", "y"]);
}

#[test]
fn a_renamed_value_keeps_its_name_in_subgraphs() {
    let mut model = read(&nested());
    let x = model.graph.find_value("x").unwrap();
    // The name that a value of the inner graph has: there it must give way.
    model.graph.rename_value(x, "m").unwrap();
    let back = read(&write(&model));
    assert_eq!(back.graph.value(back.graph.inputs[1]).name, "m");
    let branches = &back.graph.producer_node(back.graph.outputs[0]).unwrap().attributes;
    let then = &branches["then_branch"].graphs()[0];
    let negated = then.find_value("m_1").unwrap();
    assert_eq!(then.producer_node(negated).unwrap().op_type, "Neg");
    let inner = then.producer_node(then.outputs[0]).unwrap();
    let innermost = &inner.attributes["then_branch"].graphs()[0];
    assert!(innermost.captures.iter().any(|c| c.outer == negated));
}

#[test]
fn the_long_name_of_the_default_domain_is_the_short_one() {
    let mut proto = model(graph(&["x"], vec![node("Neg", &["x"], &["y"])], &["y"]));
    proto.opset_import[0].domain = Some("ai.onnx".into());
    proto.graph.as_mut().unwrap().node[0].domain = Some("ai.onnx".into());
    let model = read(&proto);
    assert_eq!(model.opset(""), Some(23));
    assert!(model.graph.producer_node(model.graph.outputs[0]).unwrap().is("Neg"));
}

#[test]
fn nodes_are_written_in_order() {
    let nodes = vec![node("Neg", &["m"], &["y"]), node("Abs", &["x"], &["m"])];
    let written = write(&read(&model(graph(&["x"], nodes, &["y"]))));
    let ops: Vec<&str> = written.graph.as_ref().unwrap().node.iter().map(|n| n.op_type()).collect();
    assert_eq!(ops, ["Abs", "Neg"]);
}

#[test]
fn typed_fields_become_bytes() {
    let cases: Vec<(TensorProto, Vec<u8>)> = vec![
        (
            TensorProto { float_data: vec![1.0], ..tensor("t", 1, &[1], &[]) },
            vec![0, 0, 0x80, 0x3F],
        ),
        (
            TensorProto { float_data: vec![0.0, 1.0], ..tensor("t", 14, &[1], &[]) },
            vec![0, 0, 0, 0, 0, 0, 0x80, 0x3F],
        ),
        (
            TensorProto { double_data: vec![1.0], ..tensor("t", 11, &[1], &[]) },
            1f64.to_le_bytes().into(),
        ),
        (
            TensorProto { int64_data: vec![-2], ..tensor("t", 7, &[1], &[]) },
            (-2i64).to_le_bytes().into(),
        ),
        (TensorProto { uint64_data: vec![7], ..tensor("t", 12, &[1], &[]) }, vec![7, 0, 0, 0]),
        (TensorProto { uint64_data: vec![u64::MAX], ..tensor("t", 13, &[1], &[]) }, vec![255; 8]),
        (
            TensorProto { int32_data: vec![-2], ..tensor("t", 6, &[1], &[]) },
            vec![254, 255, 255, 255],
        ),
        (TensorProto { int32_data: vec![-2], ..tensor("t", 5, &[1], &[]) }, vec![254, 255]),
        (TensorProto { int32_data: vec![-2, 3], ..tensor("t", 3, &[2], &[]) }, vec![254, 3]),
        (TensorProto { int32_data: vec![200], ..tensor("t", 2, &[1], &[]) }, vec![200]),
        (TensorProto { int32_data: vec![0x3C00], ..tensor("t", 10, &[1], &[]) }, vec![0, 0x3C]),
        (TensorProto { int32_data: vec![0x3F80], ..tensor("t", 16, &[1], &[]) }, vec![0x80, 0x3F]),
        (TensorProto { int32_data: vec![1, 0], ..tensor("t", 9, &[2], &[]) }, vec![1, 0]),
        (
            TensorProto { int32_data: vec![0xF8, 0x07], ..tensor("t", 22, &[3], &[]) },
            vec![0xF8, 0x07],
        ),
    ];
    for (proto, expected) in cases {
        let mut file = graph(&[], vec![], &["t"]);
        file.initializer = vec![proto];
        let model = read(&model(file));
        let tensor = model.graph.constant(model.graph.outputs[0]).unwrap();
        assert_eq!(tensor.bytes().as_ref(), expected, "{}", tensor.dtype());
    }
}

#[test]
fn an_initializer_can_be_an_input_as_well() {
    let model = read(&everything());
    let graph = &model.graph;
    let id = graph.find_value("with_default").unwrap();
    assert!(graph.is_input(id) && graph.value(id).constant.is_some());
}

#[test]
fn constants_in_function_bodies_become_nodes() {
    let mut body = Graph::new("Half");
    let x = body.new_value("x", Default::default());
    body.inputs.push(x);
    let half = body.add_constant("half", Tensor::scalar(0.5f32));
    let y = body.add_op("y", Node::new("Mul", vec![Some(x), Some(half)]));
    body.outputs.push(y);
    let function = planish_ir::Function {
        name: "Half".into(),
        domain: "org.example".into(),
        body,
        ..Default::default()
    };
    let model = Model { ir_version: 10, functions: vec![function], ..Model::default() };
    let back = read(&write(&model));
    let body = &back.functions[0].body;
    let node = body.producer_node(body.find_value("half").unwrap()).unwrap();
    assert_eq!(node.attributes["value"].as_tensor().unwrap().dtype(), DataType::F32);
}

#[test]
fn inferred_types_are_written_on_demand() {
    let nodes = vec![node("Neg", &["x"], &["m"]), node("Neg", &["m"], &["y"])];
    let mut model = read(&model(graph(&["x"], nodes, &["y"])));
    let m = model.graph.find_value("m").unwrap();
    let dims = vec![Dim::parse("a + b"), unknown_dim(0)];
    model.graph.value_mut(m).ty = ValueType::tensor(DataType::F32, dims);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    for (value_info, expected) in
        [(ValueInfo::Declared, vec![]), (ValueInfo::All, vec![typed("m", 1, &["a + b", ""])])]
    {
        let options = WriteOptions { value_info, ..WriteOptions::default() };
        write_model(&model, &path, &options).unwrap();
        let written = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
        assert_eq!(written.graph.unwrap().value_info, expected);
    }
}
