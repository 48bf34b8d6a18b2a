//! Every export in `models/` is lifted to the same vocabulary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_models::Exporter;
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;

fn canonical(path: &Path) -> Model {
    let mut model = planish_onnx::read_model(path).unwrap();
    let mut manager = PassManager::new().with_verify();
    canonicalize(&mut model, &mut manager).unwrap();
    model
}

/// How often each operator occurs.
fn counts(model: &Model) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in model.graph.node_ids() {
        *counts.entry(model.graph.node(id).op_type.clone()).or_default() += 1;
    }
    counts
}

fn smollm2(exporter: Exporter) -> PathBuf {
    let cache = planish_models::default_cache_dir().unwrap();
    planish_models::fetch(exporter, &cache, &mut |_| {}).unwrap().join("model.onnx")
}

/// Attention nodes whose present outputs are graph outputs and whose past inputs are graph
/// inputs, with grouped heads.
fn n_cached_attentions(model: &Model, q_heads: i64, kv_heads: i64) -> usize {
    let graph = &model.graph;
    let is_cached = |id: &planish_ir::NodeId| {
        let node = graph.node(*id);
        node.is("Attention")
            && [4, 5].iter().all(|i| node.input(*i).is_some_and(|v| graph.is_input(v)))
            && [1, 2].iter().all(|i| node.output(*i).is_some_and(|v| graph.is_output(v)))
            && node.int("q_num_heads", 0) == q_heads
            && node.int("kv_num_heads", 0) == kv_heads
    };
    graph.node_ids().filter(is_cached).count()
}

#[test]
fn every_smollm2_export_has_the_same_parts() {
    for exporter in Exporter::ALL {
        let model = canonical(&smollm2(exporter));
        let counts = counts(&model);
        let count = |op: &str| counts.get(op).copied().unwrap_or(0);
        assert_eq!(count("RMSNormalization"), 61, "{exporter}: {counts:?}");
        assert_eq!(n_cached_attentions(&model, 9, 3), 30, "{exporter}: {counts:?}");
        assert_eq!(count("RotaryEmbedding"), 60, "{exporter}: {counts:?}");
        assert_eq!(count("Swish"), 30, "{exporter}: {counts:?}");
        let n_fused = count("Split");
        assert_eq!(count("MatMul") + 2 * n_fused, 211, "{exporter}: {counts:?}");
        for gone in ["Softmax", "Where", "IsNaN", "Sigmoid", "Pow", "ReduceMean", "Neg", "GatherND"]
        {
            assert_eq!(count(gone), 0, "{exporter} still has {gone}: {counts:?}");
        }
        let causal =
            model.graph.node_ids().filter(|id| model.graph.node(*id).int("is_causal", 0) == 1);
        assert_eq!(causal.count(), 30, "{exporter}");
    }
}

#[test]
fn the_tiny_models_are_lifted_whole() {
    for tiny in planish_models::tiny_models() {
        let model = canonical(&tiny.dir.join("model.onnx"));
        let counts = counts(&model);
        let count = |op: &str| counts.get(op).copied().unwrap_or(0);
        let n_kv_heads = if tiny.arch == "gpt2" { 4 } else { 2 };
        assert_eq!(n_cached_attentions(&model, 4, n_kv_heads), 2, "{}: {counts:?}", tiny.name);
        let (norm, n_norms) = match tiny.arch.as_str() {
            "gpt2" => ("LayerNormalization", 5),
            "gemma2" => ("RMSNormalization", 9),
            _ => ("RMSNormalization", 5),
        };
        assert_eq!(count(norm), n_norms, "{}: {counts:?}", tiny.name);
        let n_rotary = if tiny.arch == "gpt2" { 0 } else { 4 };
        assert_eq!(count("RotaryEmbedding"), n_rotary, "{}: {counts:?}", tiny.name);
        let activation =
            if matches!(tiny.arch.as_str(), "gpt2" | "gemma2") { "Gelu" } else { "Swish" };
        assert_eq!(count(activation), 2, "{}: {counts:?}", tiny.name);
        for gone in ["Softmax", "Gemm", "IsNaN", "Sigmoid", "Pow", "ReduceMean", "Neg"] {
            assert_eq!(count(gone), 0, "{} still has {gone}: {counts:?}", tiny.name);
        }
    }
}
