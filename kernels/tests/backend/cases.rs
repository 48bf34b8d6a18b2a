//! Reading the cases.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use planish_ir::{Attribute, DataType, Graph, Node, Tensor, ValueType};
use serde_json::Value;

/// One node with inputs and the outputs that it must give.
pub struct Case {
    pub name: String,
    pub node: Node,
    pub opset: i64,
    pub inputs: Vec<Option<Tensor>>,
    pub outputs: Vec<Option<Tensor>>,
    pub rtol: f64,
    pub atol: f64,
}

/// Runs a script that writes cases with these arguments; returns the list and the tensors' bytes.
pub fn script(name: &str, arguments: &[&str]) -> (Vec<Value>, Bytes) {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = std::env::var("PLANISH_PYTHON_ORACLE").unwrap_or_else(|_| "python3".into());
    let status = Command::new(python)
        .arg(root.join("tests/python").join(name))
        .arg(dir.path())
        .args(arguments)
        .status()
        .expect("the Python interpreter starts");
    assert!(status.success(), "{name} failed");
    let blob = Bytes::from(std::fs::read(dir.path().join("cases.bin")).unwrap());
    let text = std::fs::read(dir.path().join("cases.json")).unwrap();
    (serde_json::from_slice(&text).unwrap(), blob)
}

/// The cases of the operators named.
pub fn load(ops: &[&str]) -> Vec<Case> {
    let (list, blob) = script("onnx_backend_cases.py", ops);
    list.iter().filter_map(|value| case(value, &blob)).collect()
}

/// `None` if an element type is one that tensors do not have.
fn case(value: &Value, blob: &Bytes) -> Option<Case> {
    let tensors = |key: &str| -> Option<Vec<Option<Tensor>>> {
        let list = value[key].as_array()?.iter();
        list.map(|t| if t.is_null() { Some(None) } else { read_tensor(t, blob).map(Some) })
            .collect()
    };
    let (inputs, outputs) = (tensors("inputs")?, tensors("outputs")?);
    let mut graph = Graph::new("case");
    let mut ids = |tensors: &[Option<Tensor>]| {
        let id = |t: &Option<Tensor>| t.as_ref().map(|_| graph.new_value("v", ValueType::Unknown));
        tensors.iter().map(id).collect::<Vec<_>>()
    };
    let mut node = Node::new(text(&value["op"]), ids(&inputs))
        .with_domain(text(&value["domain"]))
        .with_outputs(ids(&outputs));
    for (name, attribute) in value["attributes"].as_object()? {
        node.attributes.insert(name.clone(), read_attribute(attribute, blob)?);
    }
    let (rtol, atol) = (value["rtol"].as_f64()?, value["atol"].as_f64()?);
    let opset = value["opset"].as_i64()?;
    Some(Case { name: text(&value["name"]), node, opset, inputs, outputs, rtol, atol })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A tensor by its reference into the bytes; `None` for element types that there are none of.
pub fn read_tensor(value: &Value, blob: &Bytes) -> Option<Tensor> {
    let dtype = DataType::from_onnx(value["dtype"].as_i64()? as i32)?;
    let shape = value["shape"].as_array()?.iter().map(|d| Some(d.as_u64()? as usize)).collect();
    let shape: Option<Vec<usize>> = shape;
    if let Some(strings) = value["strings"].as_array() {
        let strings = strings.iter().map(|s| Bytes::from(text(s))).collect();
        return Tensor::from_strings(shape?, strings).ok();
    }
    let offset = value["offset"].as_u64()? as usize;
    let size = value["size"].as_u64()? as usize;
    Tensor::new(dtype, shape?, blob.slice(offset..offset + size)).ok()
}

fn read_attribute(value: &Value, blob: &Bytes) -> Option<Attribute> {
    let (kind, value) = value.as_object()?.iter().next()?;
    let string = |v: &Value| Bytes::from(text(v));
    Some(match kind.as_str() {
        "f" => Attribute::Float(float(value)),
        "i" => Attribute::Int(value.as_i64()?),
        "s" => Attribute::String(string(value)),
        "t" => Attribute::Tensor(read_tensor(value, blob)?),
        "fs" => Attribute::Floats(value.as_array()?.iter().map(float).collect()),
        "is" => Attribute::Ints(value.as_array()?.iter().filter_map(Value::as_i64).collect()),
        _ => Attribute::Strings(value.as_array()?.iter().map(string).collect()),
    })
}

fn float(value: &Value) -> f32 {
    value.as_f64().unwrap_or(f64::NAN) as f32
}
