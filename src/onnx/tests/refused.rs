//! Files that are no models are refused with a message that says why.

mod common;

use common::proto::*;
use planish_onnx::proto::attribute_proto::AttributeType;
use planish_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeDeviceConfigurationProto, NodeProto,
    SparseTensorProto, TensorAnnotation, TensorProto, TrainingInfoProto,
};
use planish_onnx::{find_model, read_model};

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "\"{message}\" does not say \"{part}\"");
    }
}

fn error_of_graph(graph: GraphProto) -> String {
    error(&model(graph))
}

fn error_of_tensor(tensor: TensorProto) -> String {
    let initializer = vec![TensorProto { name: Some("w".into()), ..tensor }];
    error_of_graph(GraphProto { initializer, ..graph(&[], vec![], &["w"]) })
}

#[test]
fn files_of_another_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.onnx");
    let cases: [(&[u8], &str); 5] = [
        (b"", "it is empty"),
        (b"This is a text, not a model.", "damaged"),
        (b"PK\x03\x04 a zip archive", "damaged"),
        (&[0x08, 0x0A], "it holds no graph"),
        (&[0x3A, 0x00], "which version"),
    ];
    for (bytes, reason) in cases {
        std::fs::write(&path, bytes).unwrap();
        let message = read_model(&path).unwrap_err().to_string();
        assert_says(&message, &["x.onnx is not an ONNX file", reason]);
    }
}

#[test]
fn files_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.onnx");
    assert_says(&read_model(&path).unwrap_err().to_string(), &["can't read", "x.onnx"]);
    let message = read_model(folder.path()).unwrap_err().to_string();
    assert_says(&message, &["not a regular file"]);
}

#[test]
fn a_truncated_file() {
    let bytes = std::fs::read(&common::tiny_models()[0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.onnx");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_says(&read_model(&path).unwrap_err().to_string(), &["cut.onnx", "cut short"]);
}

#[test]
fn the_model_of_a_folder_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    assert_says(&find_model(root).unwrap_err().to_string(), &["holds no .onnx file"]);
    std::fs::write(root.join("b.onnx"), b"").unwrap();
    assert_eq!(find_model(root).unwrap(), root.join("b.onnx"));
    std::fs::write(root.join("a.onnx"), b"").unwrap();
    let message = find_model(root).unwrap_err().to_string();
    assert_says(&message, &["name one of its files: a.onnx, b.onnx"]);
    std::fs::write(root.join("model.onnx"), b"").unwrap();
    assert_eq!(find_model(root).unwrap(), root.join("model.onnx"));
    assert_eq!(find_model(&root.join("a.onnx")).unwrap(), root.join("a.onnx"));
    let absent = find_model(&root.join("absent")).unwrap_err().to_string();
    assert_says(&absent, &["there is no model at", "absent"]);
}

#[test]
fn of_a_decoder_in_two_files_the_one_with_a_cache_is_found() {
    let forms =
        [("decode.onnx", "prefill.onnx"), ("decoder_with_past_model.onnx", "decoder_model.onnx")];
    for (with_cache, without) in forms {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join(without), b"").unwrap();
        assert_eq!(find_model(root).unwrap(), root.join(without));
        std::fs::write(root.join(with_cache), b"").unwrap();
        assert_eq!(find_model(root).unwrap(), root.join(with_cache));
        std::fs::write(root.join("other.onnx"), b"").unwrap();
        assert_eq!(find_model(root).unwrap(), root.join(with_cache));
        std::fs::write(root.join("model.onnx"), b"").unwrap();
        assert_eq!(find_model(root).unwrap(), root.join("model.onnx"));
    }
}

#[test]
fn graphs_that_do_not_fit_together() {
    let neg = |from: &str, to: &str| node("Neg", &[from], &[to]);
    let undefined = error_of_graph(graph(&["x"], vec![neg("ghost", "y")], &["y"]));
    assert_says(&undefined, &["Neg reads the value \"ghost\", which nothing defines"]);
    let output = error_of_graph(graph(&["x"], vec![], &["y"]));
    assert_says(&output, &["outputs", "\"y\""]);
    let twice = error_of_graph(graph(&["x"], vec![neg("x", "y"), neg("x", "y")], &["y"]));
    assert_says(&twice, &["\"y\" is defined twice", "Neg"]);
    let shadow = error_of_graph(graph(&["x"], vec![neg("x", "x")], &["x"]));
    assert_says(&shadow, &["\"x\" is defined twice"]);
    let inputs = error_of_graph(graph(&["x", "x"], vec![], &[]));
    assert_says(&inputs, &["\"x\" is defined twice", "input"]);
    let cycle = error_of_graph(graph(&[], vec![neg("a", "b"), neg("b", "a")], &["a"]));
    assert_says(&cycle, &["cycle"]);
    assert_says(&error_of_graph(graph(&[""], vec![], &[])), &["input without a name"]);
    let same = vec![tensor("w", 1, &[], &[0; 4]), tensor("w", 1, &[], &[0; 4])];
    let initializers = GraphProto { initializer: same, ..graph(&[], vec![], &["w"]) };
    assert_says(&error_of_graph(initializers), &["\"w\" is defined twice"]);
}

#[test]
fn tensors_that_do_not_fit() {
    assert_says(&error_of_tensor(tensor("", 1, &[2], &[0; 7])), &["\"w\"", "needs 8", "has 7"]);
    assert_says(&error_of_tensor(tensor("", 1, &[-2], &[0; 8])), &["negative size"]);
    assert_says(&error_of_tensor(tensor("", 99, &[], &[0; 8])), &["number 99"]);
    assert_says(&error_of_tensor(tensor("", 0, &[], &[0; 8])), &["number 0"]);
    let huge = [i64::MAX, i64::MAX];
    assert_says(&error_of_tensor(tensor("", 1, &huge, &[])), &["more elements than"]);
    assert_says(&error_of_tensor(tensor("", 8, &[1 << 40], &[])), &["\"w\""]);
    let out = TensorProto { int32_data: vec![300], ..tensor("", 2, &[1], &[]) };
    assert_says(&error_of_tensor(out), &["300", "does not fit"]);
    let out = TensorProto { uint64_data: vec![1 << 32], ..tensor("", 12, &[1], &[]) };
    assert_says(&error_of_tensor(out), &["4294967296"]);
    let mut segment = tensor("", 1, &[1], &[0; 4]);
    segment.segment = Some(Default::default());
    assert_says(&error_of_tensor(segment), &["segments"]);
    let clash = GraphProto {
        initializer: vec![tensor("w", 1, &[2], &[0; 8])],
        value_info: vec![typed("w", 1, &["3"])],
        ..graph(&[], vec![], &["w"])
    };
    assert_says(&error_of_graph(clash), &["\"w\" is not of its type"]);
    let mut unknown = graph(&[], vec![], &[]);
    unknown.input = vec![typed("x", 77, &[])];
    assert_says(&error_of_graph(unknown), &["the value \"x\"", "number 77"]);
}

fn error_of_attributes(attribute: Vec<AttributeProto>) -> String {
    let op = NodeProto { attribute, name: Some("n".into()), ..node("Op", &[], &["y"]) };
    error_of_graph(graph(&[], vec![op], &["y"]))
}

#[test]
fn attributes_that_say_nothing() {
    let int = || attribute("a", AttributeType::Int);
    assert_says(&error_of_attributes(vec![int(), int()]), &["Op \"n\"", "\"a\"", "given twice"]);
    assert_says(&error_of_attributes(vec![attribute("t", AttributeType::Tensor)]), &["no tensor"]);
    assert_says(&error_of_attributes(vec![attribute("g", AttributeType::Graph)]), &["no graph"]);
    let unknown = AttributeProto { r#type: Some(40), ..int() };
    assert_says(&error_of_attributes(vec![unknown]), &["type number 40"]);
    let nothing = attribute("a", AttributeType::Undefined);
    assert_says(&error_of_attributes(vec![nothing]), &["no type and no value"]);
}

#[test]
fn what_the_graph_cannot_hold() {
    let sparse = GraphProto {
        sparse_initializer: vec![SparseTensorProto::default()],
        ..graph(&[], vec![], &[])
    };
    assert_says(&error_of_graph(sparse), &["the graph \"graph\"", "sparse initializers"]);
    let annotated = GraphProto {
        quantization_annotation: vec![TensorAnnotation::default()],
        ..graph(&[], vec![], &[])
    };
    assert_says(&error_of_graph(annotated), &["quantisation annotations"]);
    let mut training = model(graph(&[], vec![], &[]));
    training.training_info = vec![TrainingInfoProto::default()];
    assert_says(&error(&training), &["training information"]);
    let mut placed = node("Op", &[], &["y"]);
    placed.device_configurations = vec![NodeDeviceConfigurationProto::default()];
    assert_says(&error_of_graph(graph(&[], vec![placed], &[])), &["Op", "multi-device"]);
}

#[test]
fn functions_that_are_wrong() {
    let function = || FunctionProto {
        name: Some("F".into()),
        domain: Some("d".into()),
        ..FunctionProto::default()
    };
    let mut twice = model(graph(&[], vec![], &[]));
    twice.functions = vec![function(), function()];
    assert_says(&error(&twice), &["d.F", "twice"]);
    let mut open = model(graph(&[], vec![], &[]));
    open.functions =
        vec![FunctionProto { node: vec![node("Neg", &["ghost"], &["y"])], ..function() }];
    assert_says(&error(&open), &["ghost"]);
}

/// Subgraphs deeper than protobuf readers follow are an error, not a stack overflow.
#[test]
fn endless_nesting() {
    let mut inner = graph(&[], vec![], &[]);
    for _ in 0..60 {
        let mut holder = node("If", &[], &[]);
        holder.attribute = vec![subgraph("then_branch", inner)];
        inner = graph(&[], vec![holder], &[]);
    }
    assert_says(&error_of_graph(inner), &["recursion limit"]);
}
