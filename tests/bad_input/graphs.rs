//! Graphs that can't be run, or not as decoders.
use std::fs;

use planish_ir::{DataType, Dim, Graph, Model, Node, NodeId, Tensor, TensorType, ValueType};
use planish_onnx::{WriteOptions, write_model};
use planish_runtime::npz::{NpyArray, write_npz};

use crate::support::Bench;

/// The products with a weight, in the order in which they run.
pub fn linears(graph: &Graph) -> Vec<NodeId> {
    let is_linear = |id: &NodeId| {
        let node = graph.node(*id);
        let weight = node.input(1).and_then(|weight| graph.constant(weight));
        node.is("MatMul") && weight.is_some_and(|weight| weight.shape().len() == 2)
    };
    graph.topological_order().unwrap().into_iter().filter(is_linear).collect()
}

/// Puts `op` between the first linear layer and its input.
fn insert(model: &mut Model, op: &str, domain: &str) {
    let linear = linears(&model.graph)[0];
    let x = model.graph.node(linear).input(0);
    let node = Node::new(op, vec![x]).with_domain(domain).with_name("the_culprit");
    let y = model.graph.add_op("y", node);
    model.graph.set_input(linear, 0, Some(y));
}

/// An input for the whole graph.
fn write_ids(bench: &Bench) {
    let ids = ("input_ids".to_owned(), NpyArray::from_i64(&[1, 3], &[1, 2, 3]));
    write_npz(&bench.path("in.npz"), &[ids]).unwrap();
}

fn refused_by_runners(bench: &Bench, parts: &[&str]) {
    write_ids(bench);
    bench.refuses("run m --prompt w1", parts);
    bench.refuses("eval m --text text.txt --context 32", parts);
    bench.refuses("bench m --prefill 2 --decode 1", parts);
    bench.refuses("compare m m --text text.txt --context 32", parts);
    bench.refuses("forward m --inputs in.npz --outputs out.npz", parts);
}

#[test]
fn an_unknown_operator_that_has_to_be_run() {
    for (op, domain) in [("Frobnicate", ""), ("Relu", "com.example")] {
        let bench = Bench::new();
        bench.edit(|model| {
            model.set_opset("com.example", 1);
            insert(model, op, domain);
        });
        let parts = ["m/model.onnx", op, domain, "the_culprit", "no implementation"];
        refused_by_runners(&bench, &parts);
        bench.succeeds("inspect m");
    }
}

#[test]
fn an_unknown_operator_that_nobody_needs() {
    let bench = Bench::new();
    bench.edit(|model| {
        let x = model.graph.inputs[0];
        model.graph.add_op("unused", Node::new("Frobnicate", vec![Some(x)]));
    });
    write_ids(&bench);
    bench.succeeds("forward m --inputs in.npz --outputs out.npz");
    bench.succeeds("run m --prompt w1 --max-new-tokens 2");
    bench.succeeds("quantize m -o out");
    bench.succeeds("run out --prompt w1 --max-new-tokens 2");
}

/// Adds to the input of the first linear layer the greatest element of a tensor of 10¹² zeros
/// that `op` makes.
fn insert_huge(model: &mut Model, op: &str) {
    const N: i64 = 1_000_000_000_000;
    let graph = &mut model.graph;
    let zero = graph.add_constant("zero", Tensor::from_vec(&[1], vec![0f32]));
    let size = graph.add_constant("size", Tensor::from_vec(&[1], vec![N]));
    let scalars = [0.0, N as f32, 1.0].map(Tensor::scalar);
    let inputs = match op {
        "ConstantOfShape" => vec![size],
        "Range" => scalars.into_iter().map(|t| graph.add_constant("bound", t)).collect(),
        "Pad" => {
            let pads = Tensor::from_vec(&[2], vec![0, N]);
            vec![zero, graph.add_constant("pads", pads)]
        }
        _ => vec![zero, size],
    };
    let node = Node::new(op, inputs.into_iter().map(Some).collect()).with_name("the_culprit");
    let huge = graph.add_op("huge", node);
    let greatest = graph.add_op("greatest", Node::new("ReduceMax", vec![Some(huge)]));
    let linear = linears(graph)[0];
    let x = graph.node(linear).input(0);
    let sum = graph.add_op("sum", Node::new("Add", vec![x, Some(greatest)]));
    graph.set_input(linear, 0, Some(sum));
}

#[test]
fn tensors_beyond_all_memory() {
    for op in ["Expand", "Tile", "Pad", "Range", "ConstantOfShape"] {
        let bench = Bench::new();
        bench.edit(|model| insert_huge(model, op));
        let parts = [op, "the_culprit", "GB are needed, more memory than there is"];
        write_ids(&bench);
        bench.refuses("forward m --inputs in.npz --outputs out.npz", &parts);
        bench.succeeds("inspect m");
        // Nothing is run.
        bench.succeeds("quantize m -o out --method rtn");
    }
}

#[test]
fn tensors_beyond_all_memory_in_a_decoder() {
    let bench = Bench::new();
    bench.edit(|model| insert_huge(model, "Expand"));
    let parts = ["Expand", "the_culprit", "GB are needed, more memory than there is"];
    refused_by_runners(&bench, &parts);
    let smoothquant = "quantize m -o out --method smoothquant --calibration text.txt";
    bench.refuses(smoothquant, &parts);
}

#[test]
fn shapes_that_contradict_each_other() {
    let bench = Bench::new();
    let mut name = String::new();
    bench.edit(|model| {
        let linear = linears(&model.graph)[0];
        let node = model.graph.node(linear).clone();
        name = node.name.clone();
        let wrong = Tensor::from_vec(&[7, 64], vec![0.0f32; 7 * 64]);
        let weight = model.graph.value_mut(node.input(1).unwrap());
        weight.ty = ValueType::Tensor(TensorType::of(&wrong));
        weight.constant = Some(wrong);
    });
    refused_by_runners(&bench, &["m/model.onnx", "MatMul", &name, "7"]);
    bench.refuses("quantize m -o out", &["m/model.onnx", "MatMul", &name, "7"]);
}

/// Looks up a row for every token.
fn embedding_only() -> Model {
    let mut graph = Graph::new("lookup");
    let dims = || vec![Dim::symbol("batch"), Dim::symbol("sequence")];
    let ids = graph.new_value("input_ids", ValueType::tensor(DataType::I64, dims()));
    graph.inputs.push(ids);
    let table = Tensor::from_vec(&[512, 16], vec![0.5f32; 512 * 16]);
    let table = graph.add_constant("table", table);
    let logits = graph.add_op("logits", Node::new("Gather", vec![Some(table), Some(ids)]));
    let shape = [dims(), vec![Dim::from(16usize)]].concat();
    graph.value_mut(logits).ty = ValueType::tensor(DataType::F32, shape);
    graph.outputs.push(logits);
    let mut model = Model { ir_version: 10, graph, ..Model::default() };
    model.set_opset("", 21);
    model
}

#[test]
fn a_graph_without_linear_layers() {
    let bench = Bench::new();
    let path = bench.path("m/model.onnx");
    write_model(&embedding_only(), &path, &WriteOptions::default()).unwrap();
    bench.refuses("quantize m -o out", &["m/model.onnx", "no linear layer"]);
    bench.refuses("quantize m -o out --method rtn", &["m/model.onnx", "no linear layer"]);
}

#[test]
fn a_graph_that_is_no_decoder() {
    let bench = Bench::new();
    let mut model = embedding_only();
    let (ids, graph) = (model.graph.inputs[0], &mut model.graph);
    graph.value_mut(ids).ty = ValueType::tensor(DataType::F32, vec![Dim::from(3usize)]);
    let node = graph.producer(graph.outputs[0]).unwrap().0;
    graph
        .replace_node(node, {
            let outputs = graph.node(node).outputs.clone();
            Node::new("Neg", vec![Some(ids)]).with_outputs(outputs)
        })
        .unwrap();
    graph.value_mut(graph.outputs[0]).ty = ValueType::Unknown;
    write_model(&model, &bench.path("m/model.onnx"), &WriteOptions::default()).unwrap();
    for line in ["run m --prompt w1", "bench m --prefill 2 --decode 1"] {
        bench.refuses(line, &["m/model.onnx", "the graph is no decoder", "token ids"]);
    }
}

#[test]
fn outputs_that_an_operator_does_not_have() {
    let bench = Bench::new();
    bench.edit(|model| {
        // Read as a bound, which may be absent.
        let graph = &mut model.graph;
        let linear = linears(graph)[0];
        let x = graph.node(linear).input(0);
        let node = Node::new("Neg", vec![x]).with_name("the_culprit");
        let outputs = graph.add_op_n("y", node, 2);
        let clip = graph.add_op("clipped", Node::new("Clip", vec![x, Some(outputs[1])]));
        graph.set_input(linear, 0, Some(clip));
    });
    refused_by_runners(&bench, &["m/model.onnx", "Neg", "the_culprit", "more outputs"]);
}

/// A field of a protobuf message: a number and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// `a = Neg(b)`, `b = Neg(a)`, which the writer would refuse.
fn cyclic() -> Vec<u8> {
    let node = |name: &[u8], from: &[u8], to: &[u8]| {
        field(1, &[field(1, from), field(2, to), field(3, name), field(4, b"Neg")].concat())
    };
    let graph = [
        node(b"first", b"b", b"a"),
        node(b"second", b"a", b"b"),
        field(2, b"loop"),
        field(12, &field(1, b"a")),
    ];
    [vec![0x08, 10], field(7, &graph.concat()), field(8, &[0x10, 21])].concat()
}

#[test]
fn a_cyclic_graph() {
    let bench = Bench::new();
    fs::write(bench.path("m/model.onnx"), cyclic()).unwrap();
    let parts = ["m/model.onnx", "cycle", "Neg"];
    refused_by_runners(&bench, &parts);
    bench.refuses("quantize m -o out", &parts);
    bench.refuses("inspect m", &parts);
}
