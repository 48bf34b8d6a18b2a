//! The CUDA engine against ONNX Runtime's logits and the CPU engine, where there is a GPU.

use planish_cuda::{Element, testing};

use super::*;
use crate::engine::cuda::CudaEngine;

/// An engine, and how far its logits may be off, relative to the largest.
fn engines() -> Vec<(CudaEngine, f32)> {
    let Some(gpu) = testing::gpu() else { return Vec::new() };
    let on = |element, tolerance| (CudaEngine::on(gpu.clone(), element, 2), tolerance);
    vec![on(Element::F32, TOLERANCE), on(Element::F16, 0.02), on(Element::BF16, 0.1)]
}

fn open_on(engine: &CudaEngine, model: &Model, options: DecoderOptions) -> Decoder {
    Decoder::new(model.clone(), engine, options).unwrap()
}

#[test]
fn graphs_give_the_logits_of_onnx_runtime_on_cuda() {
    for (engine, tolerance) in engines() {
        for mode in [Mode::Lowered, Mode::AsImported] {
            for_each_model(mode, |name, model, options, expected| {
                let mut decoder = open_on(&engine, model, options);
                for _ in 0..2 {
                    let out = decoder.forward(&expected.ids, Logits::All).unwrap();
                    assert_close(name, &out.data, &expected.logits, tolerance);
                    let step = decoder.forward(&expected.step_ids, Logits::Last).unwrap();
                    assert_close(name, &step.data, &expected.step_logits, tolerance);
                    assert!(decoder.memory().weights > 0 && decoder.memory().cache > 0);
                    decoder.reset();
                }
            });
        }
    }
}

/// Nothing runs on the CPU but the search for each expert's tokens, whose number nobody knows before.
fn assert_stays(name: &str, decoder: &Decoder) {
    let has_experts = ["mixtral", "olmoe", "qwen2moe"].iter().any(|m| name.starts_with(m));
    let fallbacks = &decoder.summary().fallbacks;
    let is_known = |(op, _): &(String, usize)| has_experts && op == "NonZero";
    assert!(fallbacks.iter().all(is_known), "{name}: {fallbacks:?}");
}

#[test]
fn lowered_graphs_stay_on_the_device() {
    for (engine, _) in engines() {
        for_each_model(Mode::Lowered, |name, model, options, _| {
            for model in [model.clone(), quantized(model, "w4a4kv4", Method::Hadamard)] {
                let decoder = open_on(&engine, &model, options);
                assert_stays(name, &decoder);
                let weights: usize = model
                    .graph
                    .value_ids()
                    .filter_map(|v| {
                        let tensor = model.graph.constant(v)?;
                        Some(tensor.bytes().len()).filter(|_| tensor.shape().len() > 1)
                    })
                    .sum();
                assert!(decoder.summary().weight_bytes as usize * 3 > weights, "{name}");
            }
        });
    }
}

/// Steps that are recorded and replayed, past a growth of the caches, after a rollback and with
/// another number of tokens between them.
#[test]
fn recorded_steps_give_what_the_cpu_gives() {
    for (engine, tolerance) in engines() {
        for_each_model(Mode::Lowered, |name, model, options, expected| {
            let (mut cpu, mut gpu) = (open(model, options), open_on(&engine, model, options));
            let most = cpu.max_positions().unwrap_or(300).min(300);
            let ids = |n: usize, i: usize| -> Vec<u32> {
                (0..n).map(|j| ((7 * i + j) % expected.ids.len()) as u32).collect()
            };
            // Where two experts of a mixture are as good as each other, rounding decides: in a step of
            // twenty at most.
            let is_mixture = model.graph.node_ids().any(|id| model.graph.node(id).is("TopK"));
            let mut others = if is_mixture { most / 20 } else { 0 };
            for i in 0.. {
                let n = if i % 40 == 7 { 3 } else { 1 };
                if cpu.n_past() + n > most {
                    break;
                }
                let (a, b) =
                    (cpu.forward(&ids(n, i), Logits::Last), gpu.forward(&ids(n, i), Logits::Last));
                // A table of biases may end.
                let (Ok(a), Ok(b)) = (&a, &b) else {
                    assert!(a.is_err() && b.is_err() && i > 40, "{name}, step {i}: {a:?}, {b:?}");
                    break;
                };
                let at = format!("{name}, step {i}");
                let (difference, largest) = distance(&b.data, &a.data);
                if others > 0 && difference > tolerance * largest && difference.is_finite() {
                    others -= 1;
                    continue;
                }
                assert_close(&at, &b.data, &a.data, tolerance);
                if i % 50 == 20 {
                    assert!(gpu.forward(&[u32::MAX], Logits::Last).is_err());
                }
            }
        });
    }
}

#[test]
fn quantised_graphs_give_what_the_cpu_gives() {
    for (engine, tolerance) in engines().into_iter().take(2) {
        let is_exact = tolerance < 0.01;
        for (bits, method, slack) in [
            ("w8a8kv8", Method::Rtn, 0.01),
            // In f16 more codes fall to the other side of a half.
            ("w4a4kv4", Method::Hadamard, if is_exact { 0.15 } else { 0.5 }),
            ("w4a16", Method::Rtn, 0.0),
            ("w8a16kv8", Method::Rtn, 0.01),
        ] {
            for_each_model(Mode::Lowered, |name, model, options, expected| {
                let model = quantized(model, bits, method);
                let (mut cpu, mut gpu) = (open(&model, options), open_on(&engine, &model, options));
                for (ids, want, float) in [
                    (&expected.ids, Logits::All, &expected.logits),
                    (&expected.step_ids, Logits::Last, &expected.step_logits),
                ] {
                    let (a, b) = (cpu.forward(ids, want).unwrap(), gpu.forward(ids, want).unwrap());
                    let name = format!("{name}, {bits}, tolerance {tolerance}");
                    assert_close(&name, &b.data, &a.data, slack + 2.0 * tolerance);
                    if is_exact && bits == "w4a4kv4" {
                        assert_nearer(&name, &b.data, &a.data, float);
                    }
                }
            });
        }
    }
}

/// A code that falls to the other side of a half moves all logits, the more the fewer bits: they must
/// still be much nearer to the quantised model's than these are to the model's in full precision.
fn assert_nearer(name: &str, found: &[f32], quantised: &[f32], float: &[f32]) {
    let distance = |a: &[f32], b: &[f32]| {
        assert_eq!(a.len(), b.len(), "{name}");
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let (off, error) = (distance(found, quantised), distance(quantised, float));
    assert!(off <= 0.25 * error, "{name}: {off}, where quantisation changes {error}");
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other_on_cuda() {
    for (engine, tolerance) in engines() {
        for_each_model(Mode::Lowered, |name, model, options, expected| {
            let options = DecoderOptions { batch: 2, chunk: 3, ..options };
            let (mut cpu, mut gpu) = (open(model, options), open_on(&engine, model, options));
            let other = expected.ids.iter().rev().copied().collect();
            let both = [expected.ids.clone(), other].concat();
            let (a, b) = (cpu.forward(&both, Logits::All), gpu.forward(&both, Logits::All));
            assert_close(name, &b.unwrap().data, &a.unwrap().data, tolerance);
            for _ in 0..4 {
                let ids = [expected.ids[0], expected.step_ids[0]];
                let (a, b) = (cpu.forward(&ids, Logits::Last), gpu.forward(&ids, Logits::Last));
                assert_close(name, &b.unwrap().data, &a.unwrap().data, tolerance);
            }
        });
    }
}

/// Short texts are recorded and replayed with other targets, pieces of them with another past.
#[test]
fn scores_are_those_of_the_cpu() {
    for (engine, tolerance) in engines() {
        for_each_model(Mode::Lowered, |name, model, options, expected| {
            for chunk in [3, 512] {
                let options = DecoderOptions { chunk, scores: true, ..options };
                let (mut cpu, mut gpu) = (open(model, options), open_on(&engine, model, options));
                assert!(gpu.scores_without_logits() && !cpu.scores_without_logits());
                assert_stays(name, &gpu);
                let largest = expected.logits.iter().fold(0f32, |m, x| m.max(x.abs()));
                for turn in 0..4 {
                    let targets = turned(&expected.ids, turn);
                    let cpu = scores(&mut cpu, &expected.ids, &targets);
                    let gpu = scores(&mut gpu, &expected.ids, &targets);
                    for (a, b) in gpu.iter().zip(&cpu) {
                        let is_near = (a - b).abs() <= f64::from(2.0 * tolerance * largest);
                        assert!(is_near, "{name}, pieces of {chunk}: {a}, on the CPU {b}");
                    }
                }
                let unknown = vec![gpu.vocab_size() as u32; expected.ids.len()];
                let none = gpu.score(&expected.ids, &unknown, 1).unwrap();
                assert!(none.iter().all(Option::is_none), "{name}");
            }
        });
    }
}

/// `ids` from another place on.
fn turned(ids: &[u32], turn: usize) -> Vec<u32> {
    let mut turned = ids.to_vec();
    turned.rotate_left((turn + 1) % ids.len());
    turned
}

/// The scores of a text from an empty cache.
fn scores(decoder: &mut Decoder, ids: &[u32], targets: &[u32]) -> Vec<f64> {
    decoder.reset();
    let scores = decoder.score(ids, targets, 2).unwrap();
    assert_eq!(scores.len(), ids.len());
    scores.into_iter().map(|score| score.expect("a finite logit")).collect()
}

/// Every value of a graph, so that a failure names the first operator that differs.
#[test]
fn every_value_is_what_the_cpu_computes() {
    for (engine, tolerance) in engines() {
        for_each_model(Mode::Lowered, |name, model, _, expected| {
            let mut model = model.clone();
            canonicalize::canonicalize(&mut model, &mut PassManager::new()).unwrap();
            let graph = &model.graph;
            let order = graph.topological_order().unwrap();
            let outputs = order.into_iter().flat_map(|id| graph.node(id).outputs.clone());
            // Caches are no outputs any more.
            let kept = outputs.flatten().filter(|value| !graph.is_output(*value));
            let names: Vec<String> = kept.map(|value| graph.value(value).name.clone()).collect();
            let cpu = collect_values(&model, &CpuEngine::new(2), &names, &expected.ids).unwrap();
            let gpu = collect_values(&model, &engine, &names, &expected.ids).unwrap();
            let last = vec!["logits".to_owned()];
            let alone = collect_values(&model, &engine, &last, &expected.ids).unwrap();
            let alone = alone["logits"].to_f32_vec().unwrap();
            assert_close(&format!("{name}: logits alone"), &alone, &expected.logits, tolerance);
            for value in names {
                let (Some(cpu), Some(gpu)) = (cpu.get(&value), gpu.get(&value)) else { continue };
                let (cpu, gpu) = (cpu.to_f32_vec().unwrap(), gpu.to_f32_vec().unwrap());
                assert_close(&format!("{name}: {value}"), &gpu, &cpu, tolerance);
            }
        });
    }
}
