//! The graphs of small real exports, run node by node: against ONNX Runtime's outputs, and every
//! value against its inferred shape.

#[allow(dead_code)]
mod backend;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use backend::cases::{read_tensor, script};
use backend::compare::difference;
use planish_cpu::ThreadPool;
use planish_ir::{Dim, Graph, Model, NodeId, Tensor, ValueId};
use planish_kernels::buffers::BufferPool;
use planish_kernels::infer::{Facts, infer};
use planish_kernels::{CpuContext, OpNode, ops};
use planish_onnx::read_model;

/// Largest difference of a logit from ONNX Runtime's.
const ATOL: f64 = 2e-4;

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
    let mut models: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // The caches of a GroupQueryAttention belong to a session, which nothing here has.
        .filter(|path| !path.to_string_lossy().ends_with("-genai"))
        .map(|path| path.join("model.onnx"))
        .collect();
    models.sort();
    models
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Reference,
    Fast,
}

#[test]
fn models_agree_with_onnx_runtime() {
    let paths = models();
    let arguments: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let (cases, blob) = script("onnx_model_cases.py", &arguments);
    assert_eq!(cases.len(), paths.len());
    for (path, case) in paths.iter().zip(&cases) {
        let model = read_model(path).unwrap();
        let tensors = |key: &str| -> HashMap<String, Tensor> {
            let list = case[key].as_object().unwrap().iter();
            list.map(|(name, t)| (name.clone(), read_tensor(t, &blob).unwrap())).collect()
        };
        let (inputs, outputs) = (tensors("inputs"), tensors("outputs"));
        for form in [Form::Reference, Form::Fast] {
            let values = run(&model, &inputs, form);
            for (name, expected) in &outputs {
                let actual = &values[&model.graph.find_value(name).unwrap()];
                let problem = difference(actual, expected, 1e-3, ATOL);
                assert_eq!(problem, None, "{} in {path:?}, {form:?}", name);
            }
            check_shapes(&model.graph, &infer(&model).unwrap(), &values);
        }
        println!("{}", path.display());
    }
}

fn run(model: &Model, inputs: &HashMap<String, Tensor>, form: Form) -> HashMap<ValueId, Tensor> {
    let graph = &model.graph;
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    for id in graph.value_ids() {
        let value = graph.value(id);
        let known = value.constant.as_ref().or_else(|| inputs.get(&value.name));
        values.extend(known.map(|tensor| (id, tensor.clone())));
    }
    for id in graph.topological_order().unwrap() {
        let outputs = run_node(model, id, &values, form);
        let node = graph.node(id);
        let written = node.outputs.iter().zip(outputs);
        values.extend(written.filter_map(|(id, tensor)| Some(((*id)?, tensor))));
    }
    values
}

fn run_node(
    model: &Model,
    id: NodeId,
    values: &HashMap<ValueId, Tensor>,
    form: Form,
) -> Vec<Tensor> {
    let node = model.graph.node(id);
    let op = ops::find(&node.domain, &node.op_type).unwrap();
    let view = OpNode { node, opset: model.opset(&node.domain).unwrap() };
    let inputs: Vec<Option<Tensor>> =
        node.inputs.iter().map(|id| id.map(|id| values[&id].clone())).collect();
    let fail = |error| panic!("{}: {error}", node.describe());
    if form == Form::Fast
        && let Some(cpu) = op.cpu
    {
        let constants: Vec<Option<Tensor>> =
            node.inputs.iter().map(|id| model.graph.constant((*id)?).cloned()).collect();
        if let Some(kernel) = cpu(&view, &constants).unwrap_or_else(fail) {
            let (pool, buffers) = (ThreadPool::new(2), BufferPool::new());
            let mut caches = Vec::new();
            let mut context = CpuContext::new(&pool, &buffers, &mut caches);
            let is_resident = |i: usize| constants[i].is_none() || !kernel.owns_input(i);
            let inputs: Vec<Option<&Tensor>> =
                (0..inputs.len()).map(|i| inputs[i].as_ref().filter(|_| is_resident(i))).collect();
            let fail = |error| panic!("{}: {error}", node.describe());
            return kernel.run(&mut context, &inputs).unwrap_or_else(fail);
        }
    }
    (op.eval)(&view, &inputs).unwrap_or_else(|error| panic!("{}: {error}", node.describe()))
}

/// The sizes that the script gives the symbols.
fn binding(symbol: &str) -> Option<i64> {
    match symbol {
        "batch" | "batch_size" => Some(2),
        "past_sequence_length" => Some(3),
        "sequence_length" => Some(4),
        "total_sequence_length" => Some(7),
        _ => None,
    }
}

fn check_shapes(graph: &Graph, facts: &Facts, values: &HashMap<ValueId, Tensor>) {
    for (id, tensor) in values {
        let name = &graph.value(*id).name;
        let fact = facts.get(*id);
        let shape: Option<Vec<i64>> = fact.shape.iter().flatten().map(value_of).collect();
        let sizes: Vec<i64> = tensor.shape().iter().map(|size| *size as i64).collect();
        // How many tokens go to an expert follows from the data: such a size has a symbol of its own.
        let depends_on_data = format!("{:?} {:?}", fact.shape, fact.dims).contains('$');
        if depends_on_data {
            assert_eq!(fact.rank(), Some(sizes.len()), "{name}: inferred {:?}", fact.shape);
            continue;
        }
        assert_eq!(shape, Some(sizes), "{name}: inferred {:?}", fact.shape);
        assert_eq!(fact.dtype, Some(tensor.dtype()), "{name}");
        if let Some(dims) = &fact.dims {
            let elements: Option<Vec<i64>> = dims.iter().map(value_of).collect();
            assert_eq!(elements, tensor.to_i64_vec().ok(), "{name}: elements {dims:?}");
        }
    }
}

fn value_of(dim: &Dim) -> Option<i64> {
    dim.eval(&binding)
}
