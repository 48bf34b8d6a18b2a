//! Random graphs keep what they compute through every pass, by the operators' reference forms.
//!
//! A failure names the seed and the pass; `SEED=n` runs that graph alone, `GRAPHS=n` the first n.

mod builder;
mod compare;
#[path = "../rules/inputs.rs"]
mod inputs;
mod pieces;
#[path = "../rules/weights.rs"]
#[allow(dead_code)]
mod weights;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use builder::random_model;
use compare::Results;
use planish_ir::Model;
use planish_onnx::{ExternalData, ValueInfo, WriteOptions, read_model, write_model};
use planish_passes::canonicalize::canonicalize;
use planish_passes::emit::{EMITTED_OPSET, lower_for_opset};
use planish_passes::lower::LowerOptions;
use planish_passes::quantize::{Method, QuantizeError, QuantizeOptions, quantize};
use planish_passes::{Pass, PassManager, canonicalize as canonical, lower};

/// Graphs for each test.
const N_GRAPHS: u64 = 300;

/// The number in a variable of the environment.
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

/// Calls `check` with random models, what they compute, and what to call them.
fn for_each(check: impl Fn(Model, &Results, &str)) {
    let given = variable("SEED");
    let n = variable("GRAPHS").unwrap_or(N_GRAPHS);
    let seeds = given.map_or(0..n, |seed| seed..seed + 1);
    let mut n_telling = 0;
    for seed in seeds.clone() {
        let model = random_model(seed, 4 + (seed % 24) as usize);
        let results = Results::of(&model).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if results.say_something() {
            n_telling += 1;
            check(model, &results, &format!("seed {seed}"));
        }
    }
    assert!(given.is_some() || n_telling * 10 > n * 9, "{n_telling} of {n} graphs");
}

/// Rewrites by the names of passes.
type Counts = RefCell<BTreeMap<&'static str, usize>>;

/// Runs passes one at a time, comparing after each; counts what they did.
fn step_by_step(
    model: &mut Model,
    passes: Vec<Pass>,
    counts: &Counts,
    results: &Results,
    what: &str,
) {
    for pass in passes {
        let name = pass.name;
        let mut manager = PassManager::new().with_verify();
        let ran = manager.run(model, &[pass]);
        ran.unwrap_or_else(|error| panic!("{what}, {name}: {error}"));
        *counts.borrow_mut().entry(name).or_default() += manager.reports()[0].n_rewrites;
        results.assert_of(model, &format!("{what}, {name}"));
    }
}

/// Graphs in which the passes find nothing to do would test nothing.
fn assert_rewritten(counts: &Counts, passes: &[&str]) {
    let counts = counts.borrow();
    let idle = passes.iter().filter(|name| counts[**name] == 0).collect::<Vec<_>>();
    let is_one = variable("SEED").is_some();
    assert!(is_one || idle.is_empty(), "{idle:?} had nothing to do: {counts:?}");
    println!("{counts:?}");
}

fn canonical(model: &mut Model, what: &str) {
    let ran = canonicalize(model, &mut PassManager::new().with_verify());
    ran.unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn canonicalisation_keeps_what_random_graphs_compute() {
    let counts = Counts::default();
    for_each(|mut model, results, what| {
        step_by_step(&mut model, canonical::passes(), &counts, results, what);
    });
    let busy = [
        "upgrade_opset",
        "fold_constants",
        "drop_no_ops",
        "merge_duplicates",
        "lift_norms",
        "lift_activations",
        "lift_linears",
        "lift_splits",
        "lift_rotary_embeddings",
        "lift_attention",
        "cancel_reshapes",
    ];
    assert_rewritten(&counts, &busy);
}

#[test]
fn lowering_keeps_what_random_graphs_compute() {
    let counts = Counts::default();
    for_each(|mut model, results, what| {
        canonical(&mut model, what);
        model.set_opset(planish_kernels::DOMAIN, 1);
        let options = LowerOptions { cache: false, no_padding: false };
        step_by_step(&mut model, lower::passes(options), &counts, results, what);
        lower::fuse_for_gpu(&mut model, &mut PassManager::new().with_verify()).unwrap();
        results.assert_of(&model, &format!("{what}, for the GPU"));
    });
    assert_rewritten(&counts, &["lower_linears"]);
}

#[test]
fn lowering_keeps_what_quantised_random_graphs_compute() {
    let counts = Counts::default();
    for_each(|mut model, _, what| {
        canonical(&mut model, what);
        for bits in ["w8a8kv16", "w4a16kv16"] {
            let options =
                QuantizeOptions { bits: bits.parse().unwrap(), ..QuantizeOptions::default() };
            let mut model = model.clone();
            match quantize(&mut model, &options, None, &mut |_| ()) {
                Ok(_) => {}
                Err(QuantizeError::NoLinears(_)) => continue,
                Err(error) => panic!("{what}, {bits}: {error}"),
            }
            let what = format!("{what}, {bits}");
            let results = Results::of(&model).unwrap_or_else(|e| panic!("{what}: {e}"));
            let options = LowerOptions { cache: false, no_padding: false };
            step_by_step(&mut model, lower::passes(options), &counts, &results, &what);
        }
    });
    assert_rewritten(&counts, &["fuse_norm_quantize", "fuse_shared_codes", "lower_weight_only"]);
}

#[test]
fn transforms_keep_what_random_graphs_compute() {
    let n_transformed = Cell::new(0);
    for_each(|mut model, results, what| {
        canonical(&mut model, what);
        for method in [Method::Hadamard, Method::Orthogonal] {
            let bits = "w16a16kv16".parse().unwrap();
            let options =
                QuantizeOptions { bits, method, lm_head_bits: 16, ..QuantizeOptions::default() };
            let mut transformed = model.clone();
            match quantize(&mut transformed, &options, None, &mut |_| ()) {
                Ok(_) => n_transformed.set(n_transformed.get() + 1),
                Err(QuantizeError::NoLinears(_)) => continue,
                Err(error) => panic!("{what}, {method:?}: {error}"),
            }
            planish_ir::verify(&transformed).unwrap();
            results.assert_of(&transformed, &format!("{what}, {method:?}"));
        }
    });
    let few = variable("SEED").is_none() && n_transformed.get() < 100;
    assert!(!few, "only {} graphs have linear layers", n_transformed.get());
}

#[test]
fn emitted_files_of_random_graphs_compute_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    for_each(|mut model, results, what| {
        canonical(&mut model, what);
        lower_for_opset(&mut model, EMITTED_OPSET).unwrap_or_else(|e| panic!("{what}: {e}"));
        results.assert_of(&model, &format!("{what}, emission"));
        let external_data = ExternalData::Beside { file_name: "data".into(), min_bytes: 64 };
        let options = WriteOptions { external_data, value_info: ValueInfo::All };
        write_model(&model, &path, &options).unwrap();
        let read = read_model(&path).unwrap();
        let (written, read) = (Results::of(&model).unwrap(), Results::of(&read).unwrap());
        written.compare(&read, 0.0).unwrap_or_else(|e| panic!("{what}, written: {e}"));
    });
}
