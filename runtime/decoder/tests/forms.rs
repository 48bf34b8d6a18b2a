//! Exports that are more, or less, than one graph with a cache.

use planish_ir::{Attribute, Function, OpsetImport};

use super::*;

fn form(name: &str) -> (Model, Expected) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/forms").join(name);
    (read(&folder), Expected::read(&folder.join("expected.npz")))
}

fn gives(name: &str, decoder: &mut Decoder, expected: &Expected) {
    let out = decoder.forward(&expected.ids, Logits::All).unwrap();
    assert_close(name, &out.data, &expected.logits, TOLERANCE);
    let step = decoder.forward(&expected.step_ids, Logits::Last).unwrap();
    assert_close(name, &step.data, &expected.step_logits, TOLERANCE);
}

/// optimum's merged decoder: the weights lie around one `If`, whose branches are the two forms.
#[test]
fn both_branches_of_a_merged_decoder_run() {
    let (model, expected) = form("merged");
    let as_imported = DecoderOptions { mode: Mode::AsImported, ..DecoderOptions::default() };
    let mut decoder = open(&model, as_imported);
    assert!(decoder.switches);
    gives("merged", &mut decoder, &expected);
    // Several tokens after others are fed one at a time, as the branch with a cache takes them.
    decoder.reset();
    let (first, rest) = expected.ids.split_at(4);
    decoder.forward(first, Logits::Last).unwrap();
    let last = decoder.forward(rest, Logits::Last).unwrap();
    let n = expected.logits.len();
    assert_close("merged", &last.data, &expected.logits[n - last.vocab..], TOLERANCE);
}

#[test]
fn a_merged_decoder_is_lifted_whole() {
    let (model, expected) = form("merged");
    let mut decoder = open(&model, DecoderOptions::default());
    assert!(!decoder.switches && decoder.empty.is_empty());
    gives("merged, lowered", &mut decoder, &expected);
    let notes: Vec<String> = decoder.reports.iter().flat_map(|r| r.notes.clone()).collect();
    let told = notes.iter().any(|note| note.contains("the branch with a cache is taken"));
    assert!(told, "{notes:?}");
}

#[test]
fn a_branch_that_can_not_do_the_others_work_stays() {
    let (mut model, _) = form("merged");
    let graph = &mut model.graph;
    let id = graph.node_ids().find(|id| graph.node(*id).is("If")).unwrap();
    let node = graph.node_mut(id);
    let branches = node.attributes.values_mut().flat_map(Attribute::graphs_mut);
    // The branch with a cache gets other numbers in its norms.
    let with_cache = branches.max_by_key(|branch| branch.captures.len()).unwrap();
    for id in with_cache.node_ids().collect::<Vec<_>>() {
        if with_cache.node(id).is("LayerNormalization") {
            with_cache.node_mut(id).attributes.insert("epsilon".into(), Attribute::Float(0.5));
        }
    }
    let decoder = open(&model, DecoderOptions::default());
    assert!(decoder.switches);
    let notes: Vec<String> = decoder.reports.iter().flat_map(|r| r.notes.clone()).collect();
    let told = notes.iter().any(|note| note.contains("both branches stay: the one with an empty"));
    assert!(told, "{notes:?}");
}

#[test]
fn without_a_cache_all_is_computed_anew() {
    let (model, expected) = form("nocache");
    for mode in [Mode::AsImported, Mode::Lowered] {
        let mut decoder = open(&model, DecoderOptions { mode, ..DecoderOptions::default() });
        assert!(decoder.recomputes());
        gives("nocache", &mut decoder, &expected);
        decoder.reset();
        gives("nocache, again", &mut decoder, &expected);
        let ids: Vec<u32> = expected.ids.iter().chain(expected.ids.iter().rev()).copied().collect();
        let both = DecoderOptions { mode, batch: 2, ..DecoderOptions::default() };
        let mut both = open(&model, both);
        let out = both.forward(&ids, Logits::All).unwrap();
        assert_close("nocache, two", &out.data[..expected.logits.len()], &expected.logits, 1e-4);
        let step = both.forward(&[expected.step_ids[0], 3], Logits::Last).unwrap();
        assert_close("nocache, two", step.row(0).unwrap(), &expected.step_logits, 1e-4);
        let refused = decoder.forward(&[u32::MAX], Logits::Last);
        assert!(matches!(refused, Err(ModelError::TokenOutOfRange { .. })));
    }
}

/// A graph that takes one token at a time, as a file for decoding alone does.
#[test]
fn a_prompt_is_fed_in_single_tokens_where_the_graph_takes_no_more() {
    let folder = &tiny_models()[tiny_models().len() - 1];
    let (mut model, expected) = (read(folder), Expected::read(&folder.join("expected.npz")));
    for input in model.graph.inputs.clone() {
        let value = model.graph.value_mut(input);
        let ids = value.name == "input_ids" || value.name == "position_ids";
        if let (true, planish_ir::ValueType::Tensor(ty)) = (ids, &mut value.ty) {
            ty.shape.as_mut().unwrap()[1] = planish_ir::Dim::parse("1");
        }
    }
    let mode = Mode::AsImported;
    let mut decoder = open(&model, DecoderOptions { mode, ..DecoderOptions::default() });
    gives("single tokens", &mut decoder, &expected);
    let cache = model
        .graph
        .inputs
        .iter()
        .copied()
        .find(|v| model.graph.value(*v).shape().is_some_and(|shape| shape.len() == 4));
    let value = model.graph.value_mut(cache.unwrap());
    if let planish_ir::ValueType::Tensor(ty) = &mut value.ty {
        ty.shape.as_mut().unwrap()[2] = planish_ir::Dim::parse("16");
    }
    let error = Decoder::new(model, &CpuEngine::new(1), DecoderOptions::default()).err().unwrap();
    assert!(error.to_string().contains("always has 16 positions"), "{error}");
}

/// The blocks of a decoder as model-local functions.
#[test]
fn functions_are_inlined_where_a_graph_runs() {
    let folder = tiny_models().into_iter().find(|f| f.ends_with("opt-dynamo18")).unwrap();
    let (mut model, expected) = (read(&folder), Expected::read(&folder.join("expected.npz")));
    let text = "<ir_version: 10, opset_import: [\"\": 18, \"f\": 1]>
        g (float[n] x) => (float[n] y) { y = f.Relu (x) }
        <domain: \"f\", opset_import: [\"\": 18]>
        Relu (x) => (y) { zero = Constant <value_float = 0.0> () y = Max (x, zero) }";
    let parsed = planish_ir::text::parse(text).unwrap();
    let function: Function = parsed.functions[0].clone();
    model.functions.push(function);
    model.opset_imports.push(OpsetImport { domain: "f".into(), version: 1 });
    let relus: Vec<_> =
        model.graph.node_ids().filter(|id| model.graph.node(*id).is("Relu")).collect();
    assert_eq!(relus.len(), 2);
    for id in relus {
        model.graph.node_mut(id).domain = "f".into();
    }
    for mode in [Mode::AsImported, Mode::Lowered] {
        let options = DecoderOptions { mode, ..DecoderOptions::default() };
        gives("functions", &mut open(&model, options), &expected);
    }
}
