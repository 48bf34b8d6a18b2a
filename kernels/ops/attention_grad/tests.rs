//! Tests of `AttentionGrad` and of the gradient rule of `Attention`.

use planish_cpu::ThreadPool;
use planish_ir::Tensor;

use crate::buffers::BufferPool;
use crate::ops::support::gradient::{by_differences, by_rule};
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;
use crate::{CpuContext, DOMAIN};

/// A pair of nodes, `Attention` and `AttentionGrad`, with the same attributes.
struct Pair {
    forward: Case,
    grad: Case,
}

impl Pair {
    fn new(q_heads: i64, kv_heads: i64) -> Self {
        let (forward, grad) =
            (Case::new("", "Attention", 24), Case::new(DOMAIN, "AttentionGrad", 1).outputs(3));
        Self { forward, grad }.with("q_num_heads", q_heads).with("kv_num_heads", kv_heads)
    }

    fn with(self, name: &str, value: impl Into<planish_ir::Attribute>) -> Self {
        let value = value.into();
        Self { forward: self.forward.with(name, value.clone()), grad: self.grad.with(name, value) }
    }
}

/// q, k and v `[batch, rows, heads · dim]`.
fn inputs(
    random: &mut Random,
    batch: usize,
    heads: [usize; 2],
    rows: [usize; 2],
    dims: [usize; 2],
) -> Vec<Option<Tensor>> {
    let [q, kv] = heads;
    let shapes = [[batch, rows[0], q * dims[0]], [batch, rows[1], kv * dims[0]]];
    let shapes = [shapes[0], shapes[1], [batch, rows[1], kv * dims[1]]];
    shapes.iter().map(|shape| Some(random.tensor(shape))).collect()
}

/// dY, then the inputs.
fn with_dy(dy: &Tensor, inputs: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
    [&[Some(dy.clone())], inputs].concat()
}

/// A bool mask whose second row hides everything, and some keys elsewhere.
fn seen(shape: &[usize]) -> Tensor {
    let (n, keys) = (shape.iter().product(), shape[shape.len() - 1]);
    let seen: Vec<bool> = (0..n).map(|i| i / keys != 1 && i % 5 != 3).collect();
    Tensor::from_bools(shape, &seen)
}

/// The same for masks that are added, with other values where a key is seen.
fn added(random: &mut Random, shape: &[usize]) -> Tensor {
    let (x, seen) = (random.tensor(shape).to_f32_vec().unwrap(), seen(shape).to_f32_vec().unwrap());
    let hide = |(x, seen): (&f32, &f32)| if *seen == 0.0 { f32::NEG_INFINITY } else { *x };
    Tensor::from_vec(shape, x.iter().zip(&seen).map(hide).collect())
}

#[test]
fn the_gradient_of_one_query() {
    // Scores 0 and ln 3, weights 1/4 and 3/4, y = 1·v₀/4 + 3·v₁/4.
    let q = Tensor::from_vec(&[1, 1, 1], vec![1.0f32]);
    let k = Tensor::from_vec(&[1, 2, 1], vec![0.0f32, 3f32.ln()]);
    let v = Tensor::from_vec(&[1, 2, 1], vec![4.0f32, 8.0]);
    let out = Pair::new(1, 1).grad.eval(&present(&[&q, &q, &k, &v]));
    // dP = (4, 8), their mean 7, dS = (1/4 · −3, 3/4 · 1).
    assert_close(&out[0], &Tensor::from_vec(&[1, 1, 1], vec![0.75 * 3f32.ln()]), 1e-6);
    assert_close(&out[1], &Tensor::from_vec(&[1, 2, 1], vec![-0.75f32, 0.75]), 1e-6);
    assert_close(&out[2], &Tensor::from_vec(&[1, 2, 1], vec![0.25f32, 0.75]), 1e-6);
}

#[test]
fn differences_agree() {
    let mut random = Random::new(61);
    let grouped = || Pair::new(4, 2);
    let mut cases = Vec::new();
    for causal in [0i64, 1] {
        for softcap in [0.0f32, 1.2] {
            let pair = grouped().with("is_causal", causal).with("softcap", softcap);
            cases.push((pair, inputs(&mut random, 2, [4, 2], [4, 4], [3, 2])));
        }
        let masks = [
            seen(&[4, 5]),
            seen(&[2, 1, 4, 5]),
            seen(&[4, 3]),
            added(&mut random, &[1, 4, 4, 5]),
            added(&mut random, &[2, 1, 1, 5]),
        ];
        for mask in masks {
            let pair = grouped().with("is_causal", causal).with("scale", 0.7f32);
            let mut inputs = inputs(&mut random, 2, [4, 2], [4, 5], [2, 3]);
            inputs.push(Some(mask));
            cases.push((pair, inputs));
        }
    }
    let windowed = grouped().with("left_window_size", 1i64).with("right_window_size", 1i64);
    cases.push((windowed, inputs(&mut random, 1, [4, 2], [4, 4], [3, 3])));
    for (i, (pair, inputs)) in cases.iter().enumerate() {
        let y = pair.forward.eval(inputs);
        let dy = random.tensor(y[0].shape());
        let gradients = pair.grad.eval(&with_dy(&dy, inputs));
        let by_rule = by_rule(&pair.forward, inputs, &[Some(dy.clone())], &[0, 1, 2]).unwrap();
        for (which, gradient) in gradients.iter().enumerate() {
            assert_eq!(Some(gradient), by_rule[which].as_ref(), "case {i}");
            let expected = by_differences(&pair.forward, inputs, &dy, which);
            assert_close(gradient, &expected, 2e-5);
        }
        assert_eq!(by_rule[3..], vec![None; inputs.len() - 3]);
    }
}

/// The fast forms of both operators against their evaluations, with pools of several sizes.
fn check_fast(pair: &Pair, inputs: &[Option<Tensor>]) {
    let y = pair.forward.eval(inputs);
    let dy = Random::new(62).tensor(y[0].shape());
    let all = with_dy(&dy, inputs);
    let gradients = pair.grad.eval(&all);
    for threads in [1, 2, 3, 8] {
        let (pool, buffers, mut caches) = (ThreadPool::new(threads), BufferPool::new(), Vec::new());
        let mut context = CpuContext::new(&pool, &buffers, &mut caches);
        let fast = pair.forward.run_cpu_in(&mut context, inputs, &[]).unwrap();
        assert_close(&fast[0], &y[0], 2e-6);
        let fast = pair.grad.run_cpu_in(&mut context, &all, &[]).unwrap();
        assert_eq!(fast.len(), 3);
        fast.iter().zip(&gradients).for_each(|(fast, plain)| assert_close(fast, plain, 5e-6));
    }
}

#[test]
fn the_fast_forms_agree() {
    let mut random = Random::new(63);
    for causal in [0i64, 1] {
        let pair = || Pair::new(6, 2).with("is_causal", causal);
        let x = |random: &mut Random| inputs(random, 2, [6, 2], [67, 67], [20, 20]);
        check_fast(&pair(), &x(&mut random));
        check_fast(&pair().with("softcap", 0.8f32), &x(&mut random));
        check_fast(&pair().with("left_window_size", 9i64), &x(&mut random));
        check_fast(&pair().with("right_window_size", 3i64), &x(&mut random));
        let masks = [
            seen(&[2, 1, 67, 67]),
            seen(&[67, 1]),
            seen(&[67, 40]),
            seen(&[2, 1, 1, 67]),
            added(&mut random, &[6, 67, 67]),
            added(&mut random, &[2, 1, 67, 67]),
        ];
        for mask in masks {
            let mut inputs = x(&mut random);
            inputs.push(Some(mask));
            check_fast(&pair(), &inputs);
        }
        check_fast(&pair(), &inputs(&mut random, 1, [6, 2], [30, 140], [8, 13]));
        check_fast(&pair(), &inputs(&mut random, 3, [6, 2], [90, 33], [5, 4]));
        let four = [[2, 4, 18, 8], [2, 2, 21, 8], [2, 2, 21, 5]].map(|s| random.tensor(&s));
        check_fast(&pair(), &present(&[&four[0], &four[1], &four[2]]));
    }
}

#[test]
fn the_function_body_agrees() {
    let mut random = Random::new(66);
    let scaled = || Pair::new(6, 2).with("scale", 0.4f32);
    let pairs = [
        scaled(),
        scaled().with("is_causal", 1i64),
        scaled().with("is_causal", 1i64).with("softcap", 0.9f32).with("left_window_size", 2i64),
        scaled().with("left_window_size", 0i64).with("right_window_size", 1i64),
    ];
    let questions = pairs.map(|pair| {
        let x = inputs(&mut random, 2, [6, 2], [7, 5], [4, 3]);
        let dy = random.tensor(&[2, 7, 18]);
        Question::new(pair.grad, with_dy(&dy, &x))
    });
    assert_agree(&questions, 1e-5);
}

#[test]
fn rules_refuse_what_they_can_not_do() {
    let mut random = Random::new(64);
    let x = inputs(&mut random, 1, [2, 1], [3, 3], [4, 4]);
    let dy = Some(random.tensor(&[1, 3, 8]));
    let refusal = |case: &Case, inputs: &[_], outputs: &[Option<Tensor>], wanted: &[usize]| {
        by_rule(case, inputs, outputs, wanted).unwrap_err().to_string()
    };
    let pair = Pair::new(2, 1);
    let past = Some(random.tensor(&[1, 1, 2, 4]));
    let with_past = [&x[..], &[None, past.clone(), past]].concat();
    let three = Pair::new(2, 1).forward.outputs(3);
    let error = refusal(&three, &with_past, &[dy.clone(), None, None], &[0]);
    assert!(error.contains("past"), "{error}");
    let present = Some(random.tensor(&[1, 1, 3, 4]));
    let error = refusal(&three, &x, &[dy.clone(), present, None], &[0]);
    assert!(error.contains("present"), "{error}");
    let masked = [&x[..], &[Some(random.tensor(&[3, 3]))]].concat();
    let error = refusal(&pair.forward, &masked, &[dy], &[3]);
    assert!(error.contains("mask"), "{error}");
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let mut random = Random::new(65);
    let x = inputs(&mut random, 1, [2, 1], [3, 3], [4, 4]);
    let pair = Pair::new(2, 1);
    let op = crate::ops::find(DOMAIN, "AttentionGrad").unwrap();
    let bad = with_dy(&random.tensor(&[1, 3, 10]), &x);
    assert!((op.eval)(&pair.grad.view(), &bad).is_err());
    let mut masked = with_dy(&random.tensor(&[1, 3, 8]), &x);
    masked.push(Some(random.tensor(&[3, 4])));
    assert!((op.eval)(&pair.grad.view(), &masked).is_err());
    let kernel = super::cpu::cpu(&pair.grad.view(), &[]).unwrap().unwrap();
    let (pool, buffers, mut caches) = (ThreadPool::new(1), BufferPool::new(), Vec::new());
    let mut context = CpuContext::new(&pool, &buffers, &mut caches);
    for inputs in [bad, masked] {
        let given: Vec<_> = inputs.iter().map(Option::as_ref).collect();
        assert!(kernel.run(&mut context, &given).is_err());
    }
}

#[test]
fn symbolic_shapes_are_exact() {
    let (q, kv) = (fact(&["b", "s", "576"]), fact(&["b", "t", "192"]));
    let facts = [q.clone(), q.clone(), kv.clone(), kv.clone()];
    let out = Pair::new(9, 3).grad.infer(&facts).unwrap();
    assert_eq!(out, [q, kv.clone(), kv]);
}
