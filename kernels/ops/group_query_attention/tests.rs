//! Tests of `GroupQueryAttention`.

use planish_ir::{DataType, Dim, Tensor};

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;
use crate::{Fact, MICROSOFT};

fn case() -> Case {
    Case::new(MICROSOFT, "GroupQueryAttention", 1)
        .with("num_heads", 4i64)
        .with("kv_num_heads", 2i64)
        .outputs(3)
}

fn lengths(last: &[i32], total: i32) -> [Option<Tensor>; 2] {
    [Some(Tensor::from_vec(&[last.len()], last.to_vec())), Some(Tensor::scalar(total))]
}

/// Columns `range` of every row.
fn columns(t: &Tensor, range: std::ops::Range<usize>) -> Tensor {
    let (b, s, n) = (t.shape()[0], t.shape()[1], t.shape()[2]);
    let x = t.to_f32_vec().unwrap();
    let data = (0..b * s).flat_map(|r| x[r * n + range.start..r * n + range.end].to_vec());
    Tensor::from_vec(&[b, s, range.len()], data.collect())
}

#[test]
fn without_rotation_it_is_causal_attention() {
    let mut random = Random::new(17);
    let (q, k, v) =
        (random.tensor(&[2, 3, 32]), random.tensor(&[2, 3, 16]), random.tensor(&[2, 3, 16]));
    let mut inputs = present(&[&q, &k, &v]);
    inputs.extend([None, None]);
    inputs.extend(lengths(&[2, 2], 3));
    let attention = Case::new("", "Attention", 23)
        .with("q_num_heads", 4i64)
        .with("kv_num_heads", 2i64)
        .with("is_causal", 1i64)
        .outputs(3);
    let expected = attention.eval(&present(&[&q, &k, &v]));
    let out = case().eval(&inputs);
    out.iter().zip(&expected).for_each(|(o, e)| assert_close(o, e, 1e-6));
}

#[test]
fn packed_inputs_are_split() {
    let packed = Random::new(18).tensor(&[1, 4, 64]);
    let mut inputs = vec![Some(packed.clone()), None, None, None, None];
    inputs.extend(lengths(&[3], 4));
    let parts = [columns(&packed, 0..32), columns(&packed, 32..48), columns(&packed, 48..64)];
    let mut separate = present(&[&parts[0], &parts[1], &parts[2]]);
    separate.extend([None, None]);
    separate.extend(lengths(&[3], 4));
    assert_eq!(case().eval(&inputs), case().eval(&separate));
}

#[test]
fn decoding_continues_where_the_prompt_ended() {
    let mut random = Random::new(19);
    let tables = [random.tensor(&[16, 4]), random.tensor(&[16, 4])];
    let packed = random.tensor(&[1, 5, 64]);
    let case = case().with("do_rotary", 1i64).with("local_window_size", 3i64);
    let run = |x: Tensor, past: [Option<Tensor>; 2], total: i32| {
        let mut inputs = vec![Some(x), None, None];
        inputs.extend(past);
        inputs.extend(lengths(&[total - 1], total));
        inputs.extend(tables.iter().cloned().map(Some));
        case.eval(&inputs)
    };
    let whole = run(packed.clone(), [None, None], 5);
    let x = packed.to_f32_vec().unwrap();
    let rows = |r: std::ops::Range<usize>| {
        Tensor::from_vec(&[1, r.len(), 64], x[r.start * 64..r.end * 64].to_vec())
    };
    let mut first = run(rows(0..3), [None, None], 3);
    let past = [Some(first.remove(1)), Some(first.remove(1))];
    let second = run(rows(3..5), past, 5);
    let all = whole[0].to_f32_vec().unwrap();
    assert_close(&second[0], &Tensor::from_vec(&[1, 2, 32], all[96..].to_vec()), 1e-6);
    assert_eq!(second[1..], whole[1..]);
}

#[test]
fn symbolic_shapes_are_exact() {
    let total = Fact::of_dims(DataType::I32, 0, vec![Dim::parse("past + s")]);
    let past = fact(&["b", "2", "past", "8"]);
    let inputs = [
        fact(&["b", "s", "64"]),
        Fact::absent(),
        Fact::absent(),
        past.clone(),
        past,
        Fact::new(Some(DataType::I32), Some(vec![Dim::parse("b")])),
        total,
    ];
    let out = case().infer(&inputs).unwrap();
    assert_eq!(out[0], fact(&["b", "s", "32"]));
    assert_eq!(out[2], fact(&["b", "2", "past + s", "8"]));
}

#[test]
fn what_is_not_covered_is_refused() {
    let inputs = [fact(&["b", "s", "64"])];
    let smooth = case().with("smooth_softmax", 1i64);
    assert_eq!(smooth.infer(&inputs).unwrap()[0], fact(&["b", "s", "32"]));
    let x = Random::new(50).tensor(&[1, 1, 64]);
    let refused = (smooth.op().eval)(&smooth.view(), &present(&[&x])).unwrap_err();
    assert!(refused.to_string().contains("smooth softmax"), "{refused}");
    assert!(case().with("kv_num_heads", 3i64).infer(&inputs).is_err());
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(51);
    let tables = [random.tensor(&[32, 8]), random.tensor(&[32, 8])];
    let mut questions = Vec::new();
    let variants = |i: usize| {
        let case = case().with("do_rotary", i64::from(i != 1));
        match i {
            2 => case.with("local_window_size", 3i64),
            3 => case.with("softcap", 1.5f32).with("scale", 0.3f32),
            4 => case.with("rotary_interleaved", 1i64),
            _ => case,
        }
    };
    // Prompts, a second prompt after a past, and single tokens; one packed, one not.
    for (seq, n_past) in [(6usize, 0usize), (3, 4), (1, 7)] {
        for i in 0..5 {
            let total = (seq + n_past) as i32;
            let mut inputs = if i % 2 == 0 {
                vec![Some(random.tensor(&[1, seq, 128])), None, None]
            } else {
                let q = random.tensor(&[1, seq, 64]);
                present(&[&q, &random.tensor(&[1, seq, 32]), &random.tensor(&[1, seq, 32])])
            };
            let past = [random.tensor(&[1, 2, n_past, 16]), random.tensor(&[1, 2, n_past, 16])];
            inputs.extend(past.map(Some));
            inputs.extend(lengths(&[total - 1], total));
            inputs.extend(tables.iter().cloned().map(Some));
            questions.push(Question::new(variants(i), inputs));
        }
    }
    // Two sequences of different lengths that both get one token.
    let past = [random.tensor(&[2, 2, 5, 16]), random.tensor(&[2, 2, 5, 16])];
    let mut inputs = vec![Some(random.tensor(&[2, 1, 128])), None, None];
    inputs.extend(past.map(Some));
    inputs.extend(lengths(&[5, 3], 6));
    inputs.extend(tables.iter().cloned().map(Some));
    questions.push(Question::new(variants(0), inputs));
    // A prompt of four tokens and one of two, padded on the right.
    let mut inputs = vec![Some(random.tensor(&[2, 4, 128])), None, None];
    inputs.extend([(); 2].map(|()| Some(random.tensor(&[2, 2, 0, 16]))));
    inputs.extend(lengths(&[3, 1], 4));
    inputs.extend(tables.iter().cloned().map(Some));
    let mut question = Question::new(variants(0), inputs);
    // What comes out for padding is nobody's concern.
    question.only_first(384);
    questions.push(question);
    assert_agree(&questions, 1e-5);
}
