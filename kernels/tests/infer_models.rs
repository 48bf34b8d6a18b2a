//! Inference over the graphs of real exports.

use std::path::{Path, PathBuf};

use planish_ir::{Dim, Graph, Model, Node, ValueId};
use planish_kernels::infer::{Facts, infer};
use planish_onnx::read_model;

/// Operators whose rewriting relies on known shapes.
const SHAPED: [&str; 10] = [
    "MatMul",
    "Gemm",
    "Reshape",
    "Slice",
    "Transpose",
    "Expand",
    "Concat",
    "Softmax",
    "Gather",
    "Add",
];

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// Reads a graph whose weights may lie in a file that is absent: one of zeros stands in.
fn read(folder: &Path) -> Model {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("model.onnx"), copy.path().join("model.onnx")).unwrap();
    let data = folder.join("model.onnx.data");
    let stand_in = std::fs::File::create(copy.path().join("model.onnx.data")).unwrap();
    if data.exists() {
        std::fs::copy(data, copy.path().join("model.onnx.data")).unwrap();
    } else {
        stand_in.set_len(1 << 30).unwrap();
    }
    read_model(&copy.path().join("model.onnx")).unwrap()
}

fn infer_from_inputs(model: &mut Model) -> Facts {
    // Declarations of inner values would hide what inference does not find out by itself.
    let graph = &mut model.graph;
    for value in graph.value_ids().collect::<Vec<_>>() {
        if !graph.is_input(value) && graph.value(value).constant.is_none() {
            graph.value_mut(value).ty = planish_ir::ValueType::Unknown;
        }
    }
    infer(model).unwrap()
}

fn is_known(dim: &Dim) -> bool {
    dim.symbols().iter().all(|symbol| !symbol.contains("unknown_"))
}

fn problems(graph: &Graph, node: &Node, facts: &Facts) -> Vec<String> {
    let values = node.inputs.iter().chain(&node.outputs).flatten();
    let problem = |value: &ValueId| {
        let name = &graph.value(*value).name;
        match facts.shape(*value) {
            None => Some(format!("{}: {name} has no rank", node.describe())),
            Some(shape) if !shape.iter().all(is_known) => {
                Some(format!("{}: {name} is {shape:?}", node.describe()))
            }
            Some(_) => None,
        }
    };
    values.filter_map(problem).collect()
}

fn check(folder: &Path) {
    let mut model = read(folder);
    let facts = infer_from_inputs(&mut model);
    let graph = &model.graph;
    let order = graph.topological_order().unwrap();
    let nodes = order.into_iter().map(|id| graph.node(id));
    let shaped = nodes.filter(|node| SHAPED.iter().any(|name| node.is(name)));
    let problems: Vec<String> = shaped.flat_map(|node| problems(graph, node, &facts)).collect();
    for output in &graph.outputs {
        println!("{}: {:?}", graph.value(*output).name, facts.shape(*output));
    }
    assert!(problems.is_empty(), "{folder:?}: {}\n{}", problems.len(), problems.join("\n"));
}

macro_rules! models {
    ($($test:ident: $folder:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            check(&models().join($folder));
        })*
    };
}

models! {
    smollm2_optimum: "smollm2/optimum",
    smollm2_dynamo18: "smollm2/dynamo18",
    smollm2_dynamo23: "smollm2/dynamo23",
    smollm2_genai: "smollm2/genai",
    llama_optimum: "tiny/llama-optimum",
    llama_dynamo18: "tiny/llama-dynamo18",
    llama_dynamo23: "tiny/llama-dynamo23",
    qwen2_optimum: "tiny/qwen2-optimum",
    qwen2_dynamo18: "tiny/qwen2-dynamo18",
    qwen2_genai: "tiny/qwen2-genai",
    gpt2_optimum: "tiny/gpt2-optimum",
    gpt2_dynamo18: "tiny/gpt2-dynamo18",
    phi3_optimum: "tiny/phi3-optimum",
    phi3_dynamo23: "tiny/phi3-dynamo23",
    gemma2_dynamo18: "tiny/gemma2-dynamo18",
}
