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
        let n_kv_heads = match tiny.arch.as_str() {
            "gpt2" | "gptneox" | "opt" | "bloom" | "mpt" | "falcon40b" | "phi" | "gptj" => 4,
            "falcon" => 1,
            _ => 2,
        };
        // Two of the model builder's have half as many heads, twice as wide.
        let has_wide_heads = ["granite-genai", "phi3-genai"].contains(&tiny.name.as_str());
        let n_heads = if has_wide_heads { (2, 1) } else { (4, n_kv_heads) };
        let n_attentions = n_cached_attentions(&model, n_heads.0, n_heads.1);
        assert_eq!(n_attentions, 2, "{}: {counts:?}", tiny.name);
        let (norm, n_norms) = match tiny.arch.as_str() {
            "gpt2" | "gptneox" | "opt" | "mpt" | "falcon40b" => ("LayerNormalization", 5),
            "stablelm" | "starcoder2" | "nemotron" => ("LayerNormalization", 5),
            "phi" | "gptj" => ("LayerNormalization", 3),
            // Those of queries and keys have weights that differ between heads.
            "cohereqk" => ("LayerNormalization", 7),
            // One norm for attention and MLP; one more behind the embedding.
            "falcon" => ("LayerNormalization", 3),
            "bloom" => ("LayerNormalization", 6),
            // Queries and keys have norms too.
            "olmoe" | "qwen3" | "olmo2" => ("RMSNormalization", 9),
            "gemma2" => ("RMSNormalization", 9),
            "gemma3" => ("RMSNormalization", 13),
            _ => ("RMSNormalization", 5),
        };
        assert_eq!(count(norm), n_norms, "{}: {counts:?}", tiny.name);
        let has_rotary = !["gpt2", "opt", "bloom", "mpt"].contains(&tiny.arch.as_str());
        let n_rotary = if has_rotary { 4 } else { 0 };
        assert_eq!(count("RotaryEmbedding"), n_rotary, "{}: {counts:?}", tiny.name);
        let (activation, n_activations) = match tiny.arch.as_str() {
            "gpt2" | "gemma2" | "gptneox" | "falcon" | "falcon40b" | "bloom" | "mpt" => ("Gelu", 2),
            "gemma3" | "starcoder2" | "phi" | "gptj" => ("Gelu", 2),
            "opt" | "nemotron" => ("Relu", 2),
            // One in each of the four experts, and in the one that all tokens pass.
            "mixtral" | "olmoe" => ("Swish", 8),
            "qwen2moe" => ("Swish", 10),
            _ => ("Swish", 2),
        };
        assert_eq!(count(activation), n_activations, "{}: {counts:?}", tiny.name);
        let routes = counts.contains_key("TopK");
        assert_eq!(count("Softmax"), if routes { 2 } else { 0 }, "{}: {counts:?}", tiny.name);
        let gates = if tiny.arch == "qwen2moe" { 2 } else { 0 };
        assert_eq!(count("Sigmoid"), gates, "{}: {counts:?}", tiny.name);
        for gone in ["Gemm", "IsNaN", "ReduceMean", "Neg", "Pow"] {
            assert_eq!(count(gone), 0, "{} still has {gone}: {counts:?}", tiny.name);
        }
    }
}
