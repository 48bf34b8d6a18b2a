//! Batches with padding on the left.

use super::*;
use crate::decoder::{DecoderError, forward_arrays};

/// Tokens that the first of two sequences lacks.
const N_PADDED: usize = 3;

/// The logits of the array run, `[batch · sequence, vocabulary]`.
fn run(model: &Model, inputs: Vec<(String, NpyArray)>) -> Result<Vec<f32>, DecoderError> {
    let outputs = forward_arrays(model, &CpuEngine::new(2), inputs)?;
    Ok(outputs.iter().find(|(name, _)| name == "logits").unwrap().1.to_f32().unwrap())
}

#[test]
fn padded_sequences_give_what_they_give_alone() {
    for_each_model(Mode::AsImported, |name, model, _, expected| {
        let mut model = model.clone();
        canonicalize::canonicalize(&mut model, &mut PassManager::new()).unwrap();
        let has = |input: &str| model.graph.find_value(input).is_some();
        if !has("attention_mask") {
            return;
        }
        let (ids, n) = (&expected.ids, expected.ids.len());
        let short = &ids[..n - N_PADDED];
        let padded = [vec![0; N_PADDED], short.to_vec(), ids.clone()].concat();
        let is_token = |i: usize| i >= N_PADDED;
        let array = |rows: Vec<i64>| NpyArray::from_i64(&[2, n], &rows);
        let mut inputs = vec![
            ("input_ids".to_owned(), ids_array(&padded, 2)),
            ("attention_mask".to_owned(), array((0..2 * n).map(|i| is_token(i).into()).collect())),
        ];
        // Exports that do not look at the positions they are given count padding as well.
        let is_input =
            |input: &str| model.graph.inputs.iter().any(|v| model.graph.value(*v).name == input);
        if has("position_ids") && !is_input("position_ids") {
            return;
        }
        if has("position_ids") {
            let first = (0..n).map(|i| i.saturating_sub(N_PADDED) as i64);
            let positions = first.chain(0..n as i64).collect();
            inputs.push(("position_ids".to_owned(), array(positions)));
        }
        let both = run(&model, inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
        let alone = run(&model, vec![("input_ids".to_owned(), ids_array(short, 1))]).unwrap();
        let vocab = alone.len() / short.len();
        let (first, second) = both.split_at(n * vocab);
        assert_close(name, &first[N_PADDED * vocab..], &alone, 1e-5);
        assert_close(name, second, &expected.logits, TOLERANCE);
    });
}
