//! Rounding to 8 bits, without learning.

use super::*;

/// How far logits may move, relative to the largest.
const MOVED: f32 = 0.05;

#[test]
fn rounding_to_8_bits_keeps_the_likeliest_tokens() {
    for_each_model(Mode::Lowered, |name, model, options, expected| {
        let mut decoder = open(&quantized(model, "w8a8kv8", Method::Rtn), options);
        let prefill = decoder.forward(&expected.ids, Logits::All).unwrap();
        let step = decoder.forward(&expected.step_ids, Logits::Last).unwrap();
        let vocab = decoder.vocab_size();
        let ours = prefill.data.chunks(vocab).chain(step.data.chunks(vocab));
        let theirs = expected.logits.chunks(vocab).chain(expected.step_logits.chunks(vocab));
        let largest = expected.logits.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (ours, theirs) in ours.zip(theirs) {
            assert_close(name, ours, theirs, MOVED * largest / max_abs(theirs));
            let (best, margin) = likeliest(theirs);
            // Both the best and the next may move.
            let allows = margin > 2.0 * MOVED * largest;
            assert!(!allows || likeliest(ours).0 == best, "{name}: {margin} of {largest}");
        }
    });
}

fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()))
}

/// The likeliest token, and by how much it is ahead of the next.
fn likeliest(logits: &[f32]) -> (usize, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    (order[0], logits[order[0]] - logits[order[1]])
}
