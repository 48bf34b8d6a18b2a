//! Times forward and backward of a plain Llama block, as learning runs it: gradients of its input and
//! of all its weights, which are inputs of the graph, as they change from step to step.
//!
//!     cargo bench -p planish-runtime --bench block [-- THREADS [RIVAL...]]
//!
//! RIVAL is a command that times the same in the same run, such as
//! `python benches/torch_block.py` with PyTorch.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use planish_ir::{DataType, Dim, Graph, Model, Tensor, ValueId, ValueType};
use planish_kernels::ProductPrecision;
use planish_kernels::buffers::BufferPool;
use planish_models::synthetic::{FloatType, LlamaShape, generate};
use planish_passes::PassManager;
use planish_passes::autodiff::differentiate;
use planish_passes::calibrate::{BlockModel, cut_block};
use planish_passes::canonicalize::canonicalize;
use planish_passes::sites::Layout;
use planish_runtime::engine::cpu::CpuEngine;
use planish_runtime::engine::{CompileOptions, Engine, Value};

/// The block of SmolLM2-135M.
const SHAPE: LlamaShape = LlamaShape {
    hidden: 576,
    layers: 1,
    heads: 9,
    kv_heads: 3,
    head_size: 64,
    intermediate: 1536,
    vocabulary: 1024,
    ..LlamaShape::LLAMA_3_8B
};
const BATCH: usize = 4;
const LENGTH: usize = 256;
const REPEATS: usize = 30;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    // Cargo adds an option of its own.
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let threads = arguments.next().map_or(Ok(2), |n| n.parse())?;
    let rival: Vec<String> = arguments.collect();
    let folder = tempfile::tempdir()?;
    let block = block(&folder.path().join("llama"))?;
    let operations = operations(&block.model.graph);
    println!("{BATCH} x {LENGTH} tokens, {:.1} GFLOP, {threads} threads", operations * 1e-9);
    for (name, precision) in [("f32", ProductPrecision::F32), ("bf16", ProductPrecision::BF16)] {
        let seconds = time(&block, threads, precision)?;
        report(&format!("planish, products in {name}"), operations, seconds);
    }
    if let [program, rest @ ..] = &rival[..] {
        let sizes = [BATCH, LENGTH, threads, REPEATS].map(|n| n.to_string());
        let output = Command::new(program).args(rest).args(sizes).output()?;
        let text = String::from_utf8(output.stdout)?;
        for line in text.lines() {
            let (name, seconds) = line.rsplit_once(' ').ok_or("the rival printed no time")?;
            report(name, operations, seconds.parse()?);
        }
    }
    Ok(())
}

fn report(name: &str, operations: f64, seconds: f64) {
    println!("{name:<28} {:>8.2} ms {:>8.1} GFLOP/s", seconds * 1e3, operations / seconds * 1e-9);
}

fn block(folder: &Path) -> Result<BlockModel, Error> {
    generate(&SHAPE, FloatType::F32, 0, folder, &mut |_| {})?;
    let mut model = planish_onnx::read_model(&folder.join("model.onnx"))?;
    canonicalize(&mut model, &mut PassManager::new())?;
    let layout = Layout::new(&model)?;
    Ok(cut_block(&model, &layout, 0)?)
}

/// Products with weights once forward and twice backward, and attention's two likewise, of which causal
/// masking leaves half. What is computed anew is not counted.
fn operations(graph: &Graph) -> f64 {
    let weights = graph.value_ids().filter_map(|v| graph.constant(v));
    let weights: usize = weights.filter(|t| t.shape().len() == 2).map(Tensor::n_elements).sum();
    let attention = SHAPE.heads * SHAPE.head_size * LENGTH;
    6.0 * (BATCH * LENGTH) as f64 * (weights + attention) as f64
}

/// Median seconds of a step.
fn time(block: &BlockModel, threads: usize, precision: ProductPrecision) -> Result<f64, Error> {
    let engine = CpuEngine::new(threads);
    let mut model = block.model.clone();
    let values = inputs(&mut model, block);
    let is_learned = |v: &ValueId| !block.outside.contains(v);
    let wrt: Vec<ValueId> = model.graph.inputs.iter().copied().filter(is_learned).collect();
    let seed = random_input(&mut model, "output_gradient", &[BATCH, LENGTH, SHAPE.hidden]);
    let gradients = differentiate(&mut model, &[(block.output, seed.0)], &wrt)?;
    model.graph.outputs.extend(gradients.into_iter().flatten());
    let buffers = Some(BufferPool::keeping(1 << 30));
    let options = CompileOptions { precision, buffers, ..CompileOptions::default() };
    let executable = engine.compile(&model, &options)?;
    let mut session = executable.session();
    let values: Vec<Value> = values.into_iter().chain([seed.1]).map(Value::Host).collect();
    let mut times = Vec::with_capacity(REPEATS);
    for step in 0..REPEATS + 3 {
        let start = Instant::now();
        session.run_values(&values)?;
        // The first ones warm up.
        if step >= 3 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Makes weights inputs, behind those that the block has; returns values for all.
fn inputs(model: &mut Model, block: &BlockModel) -> Vec<Tensor> {
    let mut values = Vec::new();
    for value in model.graph.inputs.clone() {
        let channels = if value == block.input { SHAPE.hidden } else { SHAPE.head_size / 2 };
        let sizes = [BATCH, LENGTH, channels];
        model.graph.value_mut(value).ty =
            ValueType::tensor(DataType::F32, sizes.map(Dim::from).to_vec());
        values.push(random(&sizes));
    }
    for value in model.graph.value_ids().collect::<Vec<_>>() {
        let is_weight = |t: &&Tensor| t.dtype() == DataType::F32 && !t.shape().is_empty();
        let Some(weight) = model.graph.constant(value).filter(is_weight).cloned() else { continue };
        let sizes = weight.shape().iter().map(|n| Dim::from(*n)).collect();
        let value_mut = model.graph.value_mut(value);
        (value_mut.constant, value_mut.ty) = (None, ValueType::tensor(DataType::F32, sizes));
        model.graph.inputs.push(value);
        values.push(weight);
    }
    values
}

fn random_input(model: &mut Model, name: &str, sizes: &[usize]) -> (ValueId, Tensor) {
    let dims = sizes.iter().map(|n| Dim::from(*n)).collect();
    let value = model.graph.new_value(name, ValueType::tensor(DataType::F32, dims));
    model.graph.inputs.push(value);
    (value, random(sizes))
}

fn random(sizes: &[usize]) -> Tensor {
    let mut state = 12345u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Tensor::from_vec(sizes, (0..sizes.iter().product::<usize>()).map(next).collect())
}
