//! Tokens that the graph scores itself, against scores by the logits on the host.

use std::sync::Arc;

use planish_passes::lower::TARGETS;

use super::*;
use crate::engine::Device;

/// The CPU engine, which leaves to the graph what devices leave to it.
struct Choosing(CpuEngine);

impl Engine for Choosing {
    fn name(&self) -> &'static str {
        "choosing"
    }

    fn device(&self) -> Arc<dyn Device> {
        self.0.device()
    }

    fn chooses_tokens(&self) -> bool {
        true
    }

    fn compile(
        &self,
        model: &Model,
        options: &CompileOptions,
    ) -> Result<Box<dyn Executable>, EngineError> {
        self.0.compile(model, options)
    }
}

fn open_scoring(model: &Model, options: DecoderOptions) -> Decoder {
    let options = DecoderOptions { scores: true, ..options };
    Decoder::new(model.clone(), &Choosing(CpuEngine::new(2)), options).unwrap()
}

fn takes_targets(decoder: &Decoder) -> bool {
    decoder.executable.inputs().iter().any(|input| input.name == TARGETS)
}

/// The next tokens, and one more.
fn next(ids: &[u32]) -> Vec<u32> {
    ids.iter().skip(1).copied().chain([3]).collect()
}

#[track_caller]
fn assert_same_scores(name: &str, decoders: [&mut Decoder; 2], ids: &[u32], targets: &[u32]) {
    let [a, b] = decoders.map(|decoder| decoder.score(ids, targets, 2).unwrap());
    assert_eq!(a.len(), ids.len(), "{name}");
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{name}: {a} and {b} at {i}");
    }
}

#[test]
fn scores_of_the_graph_are_those_of_the_logits() {
    for_each_model(Mode::Lowered, |name, model, options, expected| {
        let (ids, after) = (&expected.ids, &expected.step_ids);
        for chunk in [1, 3, 512] {
            let options = DecoderOptions { chunk, ..options };
            let (mut plain, mut scoring) = (open(model, options), open_scoring(model, options));
            assert!(scoring.scores_without_logits() && takes_targets(&scoring), "{name}");
            for _ in 0..2 {
                let both = [&mut scoring, &mut plain];
                assert_same_scores(name, both, ids, &next(ids));
                let both = [&mut scoring, &mut plain];
                assert_same_scores(name, both, after, &next(after));
                assert_eq!(scoring.n_past(), ids.len() + after.len());
                [&mut scoring, &mut plain].into_iter().for_each(Decoder::reset);
            }
        }
    });
}

#[test]
fn sequences_of_a_batch_have_their_own_targets() {
    for_each_model(Mode::Lowered, |name, model, options, expected| {
        let other: Vec<u32> = expected.ids.iter().rev().copied().collect();
        let ids = [expected.ids, other].concat();
        let options = DecoderOptions { batch: 2, chunk: 3, ..options };
        let (mut plain, mut scoring) = (open(model, options), open_scoring(model, options));
        assert_same_scores(name, [&mut scoring, &mut plain], &ids, &next(&ids));
    });
}

#[test]
fn a_decoder_that_scores_still_gives_logits_and_tokens() {
    for_each_model(Mode::Lowered, |name, model, options, expected| {
        for chunk in [2, 512] {
            let options = DecoderOptions { chunk, ..options };
            check_logits(name, &mut open_scoring(model, options), &expected);
            let (mut plain, mut scoring) = (open(model, options), open_scoring(model, options));
            let tokens = [&mut scoring, &mut plain].map(|d| d.forward_greedy(&expected.ids));
            let [a, b] = tokens.map(Result::unwrap);
            assert_eq!(a, b, "{name}");
        }
    });
}

#[test]
fn without_a_cache_old_positions_are_not_scored_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/forms/nocache");
    let (model, expected) = (read(&folder), Expected::read(&folder.join("expected.npz")));
    let ids = &expected.ids;
    for batch in [1, 2] {
        let options = DecoderOptions { batch, ..DecoderOptions::default() };
        let (mut plain, mut scoring) = (open(&model, options), open_scoring(&model, options));
        for ids in [ids.repeat(batch), expected.step_ids.repeat(batch)] {
            assert_same_scores("nocache", [&mut scoring, &mut plain], &ids, &next(&ids));
        }
    }
}

#[test]
fn other_decoders_take_no_targets() {
    let model = read(&tiny_models()[0]);
    let options = DecoderOptions { scores: true, ..DecoderOptions::default() };
    let as_imported = DecoderOptions { mode: Mode::AsImported, ..options };
    let on_device = Choosing(CpuEngine::new(1));
    let greedy = Decoder::new(model.clone(), &on_device, DecoderOptions::default()).unwrap();
    for decoder in [open(&model, options), open_scoring(&model, as_imported), greedy] {
        assert!(!takes_targets(&decoder) && !decoder.scores_without_logits());
    }
}

#[test]
fn targets_that_can_not_be_scored_are_told() {
    let folder = &tiny_models()[0];
    let (model, expected) = (read(folder), Expected::read(&folder.join("expected.npz")));
    let options = DecoderOptions::default();
    for mut decoder in [open(&model, options), open_scoring(&model, options)] {
        let vocab = decoder.vocab_size() as u32;
        let refused = decoder.score(&[0, 1], &[1], 1).unwrap_err().to_string();
        assert_eq!(refused, "1 tokens cannot be scored by the logits of 2");
        let refused = decoder.score(&[vocab], &[0], 1);
        assert!(matches!(refused, Err(ModelError::TokenOutOfRange { .. })));
        assert_eq!(decoder.n_past(), 0);
        let found = decoder.score(&expected.ids[..2], &[1, vocab], 1).unwrap();
        assert!(found[0].is_some() && found[1].is_none());
    }
}
