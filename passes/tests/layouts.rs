//! Blocks, sites and transforms of the exports in `models/`.

mod common;

use common::{canonical, prompt};
use planish_ir::Model;
use planish_ir::text::parse;
use planish_models::Exporter;
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;
use planish_passes::interpret::Interpreter;
use planish_passes::quantize::{Method, QuantizeOptions, transforms_of};
use planish_passes::sites::{Layout, SiteRole};
use planish_passes::transform::{Random, TransformSet, insert_transforms};

/// Blocks, parts of each site of the first block, and whether scales merge everywhere.
fn summary(layout: &Layout) -> (usize, Vec<usize>, bool) {
    let sites = layout.blocks[0].sites.iter().map(|id| layout.site(*id));
    let mut parts: Vec<usize> = sites.map(|site| site.n_parts).collect();
    // Where branches run side by side, the file decides which comes first.
    let is_parallel = layout.sites.iter().any(|site| site.role == SiteRole::Other);
    if is_parallel {
        parts.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    }
    let merges = layout.sites.iter().all(|site| site.role != SiteRole::Other);
    (layout.blocks.len(), parts, merges)
}

#[test]
fn every_smollm2_export_has_the_same_layout() {
    for exporter in Exporter::ALL {
        let cache = planish_models::default_cache_dir().unwrap();
        let folder = planish_models::fetch(exporter, &cache, &mut |_| {}).unwrap();
        let layout = Layout::new(&canonical(&folder.join("model.onnx"))).unwrap();
        assert_eq!(summary(&layout), (30, vec![3, 1, 2, 1], true), "{exporter}:\n{layout}");
        assert!(layout.groups().len() == 30 && layout.attentions.len() == 30, "{exporter}");
        assert!(layout.head.as_ref().is_some_and(|head| head.is_tied()), "{exporter}:\n{layout}");
        let names: Vec<&str> = layout.left_alone.iter().map(|left| left.reason.as_str()).collect();
        let are_tables = names.iter().all(|reason| {
            ["its left side is a constant", "both inputs are activations"].contains(reason)
        });
        assert!(names.len() < 2 && are_tables, "{exporter}: {names:?}");
    }
}

#[test]
fn the_tiny_models_have_the_layout_of_their_architecture() {
    for tiny in planish_models::tiny_models() {
        let layout = Layout::new(&canonical(&tiny.dir.join("model.onnx"))).unwrap();
        let (parts, merges) = match tiny.arch.as_str() {
            "gpt2" | "gptneox" | "opt" | "bloom" | "mpt" | "falcon40b" => (vec![3, 1, 1, 1], false),
            "starcoder2" | "nemotron" => (vec![3, 1, 1, 1], false),
            // One norm for attention and MLP.
            "falcon" | "phi" | "gptj" => (vec![4, 1, 1], false),
            "cohereqk" => (vec![5, 1, 1], true),
            // Norms behind attention and MLP alone.
            "olmo2" => (vec![3, 2, 1, 1], false),
            // Four experts, whose tokens are picked: no scale merges before them.
            "mixtral" | "olmoe" => (vec![3, 2, 2, 2, 2, 1, 1, 1, 1, 1], false),
            // One expert more for all tokens, with a gate of its own.
            "qwen2moe" => (vec![3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1], false),
            _ => (vec![3, 1, 2, 1], true),
        };
        assert_eq!(summary(&layout), (2, parts, merges), "{}:\n{layout}", tiny.name);
        assert!(layout.head.is_some(), "{}:\n{layout}", tiny.name);
        let heads_can_turn = layout.attentions.iter().all(|a| a.head_transform.is_ok());
        assert!(heads_can_turn && layout.attentions.len() == 2, "{}:\n{layout}", tiny.name);
    }
}

/// The logits of a short prompt on an empty cache, by the operators' reference forms.
fn logits(model: &Model) -> Vec<f32> {
    let graph = &model.graph;
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let mut interpreter = Interpreter::new(graph, &opset, prompt(model));
    for node in graph.topological_order().unwrap() {
        for output in graph.node(node).outputs.iter().flatten() {
            interpreter.value(*output).unwrap();
        }
    }
    interpreter.value(graph.outputs[0]).unwrap().to_f32_vec().unwrap()
}

/// The largest difference over the largest logit.
fn relative_difference(before: &[f32], after: &[f32]) -> f32 {
    let largest = before.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let pairs = before.iter().zip(after);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn transforms_leave_the_logits_of_the_tiny_models_alone() {
    for tiny in planish_models::tiny_models() {
        let mut model = canonical(&tiny.dir.join("model.onnx"));
        let before = logits(&model);
        let layout = Layout::new(&model).unwrap();
        let options = QuantizeOptions { method: Method::Orthogonal, ..QuantizeOptions::default() };
        let set = transforms_of(&model.graph, &layout, &options, None).unwrap();
        insert_transforms(&mut model, &layout, &set).unwrap();
        let after = logits(&model);
        let difference = relative_difference(&before, &after);
        assert!(before != after && difference < 1e-4, "{}: {difference}", tiny.name);
    }
}

/// Random shifts at every site that takes one, and how many those are.
fn shifts(model: &Model, layout: &Layout) -> (TransformSet, usize) {
    let (mut set, mut random) = (TransformSet::identity(layout), Random::new(7));
    let takes = layout.site_ids().filter(|id| layout.takes_shift(&model.graph, *id));
    let takes: Vec<_> = takes.collect();
    for id in &takes {
        let n = layout.site(*id).channels;
        set.sites[id.0].shift = Some((0..n).map(|_| random.normal()).collect());
    }
    (set, takes.len())
}

#[test]
fn shifts_leave_the_logits_of_the_tiny_models_alone() {
    for tiny in planish_models::tiny_models() {
        let mut model = canonical(&tiny.dir.join("model.onnx"));
        let layout = Layout::new(&model).unwrap();
        let (set, n_sites) = shifts(&model, &layout);
        let expected = match tiny.arch.as_str() {
            "gpt2" | "gptneox" | "opt" | "bloom" | "starcoder2" => 4,
            // One norm for attention and MLP; queries, keys and values alone have biases.
            "phi" | "stablelm" => 2,
            _ => 0,
        };
        assert_eq!(n_sites, expected, "{}:\n{layout}", tiny.name);
        if n_sites == 0 {
            continue;
        }
        let before = logits(&model);
        insert_transforms(&mut model, &layout, &set).unwrap();
        let after = logits(&model);
        let difference = relative_difference(&before, &after);
        assert!(before != after && difference < 1e-4, "{}: {difference}", tiny.name);
    }
}

/// `count` numbers of a constant in text.
fn numbers(count: usize) -> String {
    let all: Vec<String> = (0..count).map(|i| format!("{}.5", i * 7 % 13)).collect();
    format!("{{{}}}", all.join(", "))
}

/// Two blocks of a state-space model in small: a convolution and gated sums along the sequence.
fn state_space_model() -> Model {
    let mut weights =
        format!("float[16,8] table = {}, float[8,16] head = {}", numbers(128), numbers(128));
    weights.push_str(", int64 along = {1}, int64[2] halves = {16, 16}");
    let mut nodes = String::from("x0 = Gather (table, ids)\n");
    for i in 0..2 {
        let sizes = [
            ("norm", "8"),
            ("in", "8,32"),
            ("filter", "16,1,4"),
            ("step", "16,16"),
            ("out", "16,8"),
        ];
        for (name, size) in sizes {
            let n = size.split(',').map(|n| n.parse::<usize>().unwrap()).product();
            weights.push_str(&format!(", float[{size}] {name}{i} = {}", numbers(n)));
        }
        nodes.push_str(&format!(
            "n{i} = RMSNormalization (x{i}, norm{i})
             both{i} = MatMul (n{i}, in{i})
             u{i}, z{i} = Split <axis = -1> (both{i}, halves)
             turned{i} = Transpose <perm = [0, 2, 1]> (u{i})
             filtered{i} = Conv <group = 16, pads = [3, 0]> (turned{i}, filter{i})
             back{i} = Transpose <perm = [0, 2, 1]> (filtered{i})
             steps{i} = MatMul (back{i}, step{i})
             soft{i} = Softplus (steps{i})
             state{i} = CumSum (soft{i}, along)
             gate{i} = Sigmoid (z{i})
             gated{i} = Mul (state{i}, gate{i})
             made{i} = MatMul (gated{i}, out{i})
             x{} = Add (x{i}, made{i})\n",
            i + 1
        ));
    }
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : 23]>
         g (int64[b,s] ids) => (float[b,s,16] logits) <{weights}> {{
             {nodes} logits = MatMul (x2, head)
         }}"
    );
    let mut model = parse(&text).unwrap();
    canonicalize(&mut model, &mut PassManager::new()).unwrap();
    model
}

#[test]
fn layers_are_found_where_there_is_no_attention() {
    let model = state_space_model();
    let layout = Layout::new(&model).unwrap();
    assert!(layout.attentions.is_empty() && layout.left_alone.is_empty(), "{layout}");
    assert_eq!((layout.linears.len(), layout.blocks.len()), (6, 2), "{layout}");
    assert!(layout.head.is_some(), "{layout}");
    let sizes: Vec<usize> =
        layout.blocks[0].sites.iter().map(|id| layout.site(*id).channels).collect();
    assert_eq!(sizes, [8, 16, 16]);
    let takes_scale = |id: &_| matches!(layout.site(*id).role, SiteRole::Norm { .. });
    let scales: Vec<bool> = layout.blocks[1].sites.iter().map(takes_scale).collect();
    assert_eq!(scales, [true, false, false], "{layout}");
}
