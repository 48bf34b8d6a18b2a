//! Learning on a GPU, where there is one, against learning on the CPU.

use planish_cuda::{Element, testing};

use super::*;
use crate::engine::cuda::CudaEngine;

/// Losses of the GPU must follow those of the CPU: closely at first, and later as far as codes that
/// fell to the other side let them.
fn check_losses(what: &str, gpu: &[f32], cpu: &[f32], of_first: f32) {
    assert_eq!(gpu.len(), cpu.len(), "{what}");
    for (step, (a, b)) in gpu.iter().zip(cpu).enumerate() {
        let tolerance = if step == 0 { of_first } else { 0.05 };
        assert!((a - b).abs() <= tolerance * b.abs(), "{what}, step {step}: {gpu:?} {cpu:?}");
    }
}

fn engine() -> Option<CudaEngine> {
    testing::gpu().map(|gpu| CudaEngine::on(gpu, Element::F32, 2))
}

#[test]
fn blocks_and_the_whole_model_learn_on_cuda_as_on_the_cpu() {
    let Some(engine) = engine() else { return };
    let wide = StudentOptions { group_size: Some(16), ..flat("w4a16kv16") };
    let options = [flat("w4a4kv4"), wide, affine("w4a4kv4")];
    for name in ["llama-optimum", "gpt2-optimum"] {
        let bench = Bench::new(name);
        for options in &options {
            let recipe = tiny(20, 20);
            let cpu = bench.run(options, &recipe, More::default()).unwrap().outcome;
            let gpu = bench.run_on(&engine, options, &recipe, More::default()).unwrap().outcome;
            for (block, (gpu, cpu)) in gpu.losses.iter().zip(&cpu.losses).enumerate() {
                check_losses(&format!("{name} {options:?}, block {block}"), gpu, cpu, 2e-3);
            }
            let what = format!("{name} {options:?}, all blocks");
            check_losses(&what, &gpu.divergences, &cpu.divergences, 2e-2);
        }
    }
}

/// Of windows that are long enough for the kernels that learning has of its own.
#[test]
fn long_windows_are_learned_as_on_the_cpu() {
    let Some(engine) = engine() else { return };
    let mut bench = Bench::new("llama-optimum");
    bench.ids = (0..8 * 128).map(|i| bench.ids[i * 7 % bench.ids.len()]).collect();
    let mut recipe = tiny(12, 8);
    (recipe.blocks.windows, recipe.blocks.length, recipe.blocks.batch) = (8, 128, 4);
    let options = flat("w4a4kv4");
    let cpu = bench.run(&options, &recipe, More::default()).unwrap().outcome;
    let gpu = bench.run_on(&engine, &options, &recipe, More::default()).unwrap().outcome;
    for (block, (gpu, cpu)) in gpu.losses.iter().zip(&cpu.losses).enumerate() {
        check_losses(&format!("block {block}"), gpu, cpu, 1e-2);
    }
    check_losses("all blocks", &gpu.divergences, &cpu.divergences, 1e-2);
}

#[test]
fn blocks_learn_side_by_side_on_one_gpu_what_they_learn_in_order() {
    let Some(engine) = engine() else { return };
    let bench = Bench::new("llama-optimum");
    let new = |_| {
        let engine = CudaEngine::on(engine.gpu().clone(), Element::F32, 1);
        Worker { engine: Box::new(engine) }
    };
    let workers: Vec<Worker> = (0..2).map(new).collect();
    let run = |workers| {
        let more = More { workers, hessians: true, ..More::default() };
        bench.run_on(&engine, &flat("w4a4kv4"), &tiny(8, 2), more).unwrap()
    };
    let (in_order, side_by_side) = (run(&[]), run(&workers));
    let losses = in_order.outcome.losses.iter().zip(&side_by_side.outcome.losses);
    losses
        .enumerate()
        .for_each(|(block, (a, b))| check_losses(&format!("block {block}"), a, b, 1e-5));
    assert_eq!(in_order.hessians.len(), side_by_side.hessians.len());
}

#[test]
fn a_run_on_cuda_goes_on_where_it_was_stopped() {
    let Some(engine) = engine() else { return };
    let bench = Bench::new("llama-optimum");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "key").unwrap();
    let mut recipe = tiny(6, 2);
    recipe.blocks.input = BlockInput::Quantized;
    let run = || {
        let more = More { store: Some(&store), ..More::default() };
        bench.run_on(&engine, &flat("w4a4kv4"), &recipe, more).unwrap().outcome
    };
    let whole = run();
    for name in ["block_0001.npz", "end_to_end_0000.npz"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let resumed = run();
    assert_eq!(resumed.losses[0], whole.losses[0]);
    check_losses("block 1", &resumed.losses[1], &whole.losses[1], 1e-5);
    check_losses("all blocks", &resumed.divergences, &whole.divergences, 1e-5);
}
