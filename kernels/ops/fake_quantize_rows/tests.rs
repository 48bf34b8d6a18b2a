//! Tests of `FakeQuantizeRows` and its gradient.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::surrogate;
use crate::ops::support::testing::*;

fn case(bits: i64) -> Case {
    Case::new(DOMAIN, "FakeQuantizeRows", 1).with("bits", bits)
}

fn grad_case(bits: i64) -> Case {
    Case::new(DOMAIN, "FakeQuantizeRowsGrad", 1).with("bits", bits).outputs(3)
}

fn clip(value: f32) -> Tensor {
    Tensor::from_vec(&[1], vec![value])
}

#[test]
fn values_are_the_codes_of_dynamic_quantize_times_the_scale() {
    let mut random = Random::new(71);
    for (bits, max, min) in [(4, 1.0, 1.0), (4, 0.7, 0.9), (8, 0.95, 0.8)] {
        let x = random.tensor(&[2, 5, 100]);
        let dynamic = Case::new(DOMAIN, "DynamicQuantize", 1).with("bits", bits).outputs(2);
        let dynamic = dynamic.with("clip_max", max).with("clip_min", min);
        let inputs = present(&[&x, &clip(max), &clip(min)]);
        let pairs = [
            (dynamic.eval(&present(&[&x])), case(bits).eval(&inputs)),
            (dynamic.run_cpu(&present(&[&x]), &[]), case(bits).run_cpu(&inputs, &[])),
        ];
        for (codes, y) in pairs {
            let scale = codes[1].to_f32_vec().unwrap();
            let codes = codes[0].to_f32_vec().unwrap();
            let want: Vec<f32> = (0..1000).map(|i| codes[i] * scale[i / 100]).collect();
            assert_eq!(y[0].to_f32_vec().unwrap(), want);
        }
    }
}

#[test]
fn gradients_are_those_of_the_surrogate() {
    let mut random = Random::new(72);
    let (mut clipped, mut decided) = (0, [false; 2]);
    for (bits, max, min) in [(4, 1.0, 1.0), (4, 0.6, 0.7), (8, 0.9, 0.5), (3, 0.5, 0.5)] {
        let (m, n) = (6, 24);
        let (x, dy) = (random.tensor(&[m, n]), random.tensor(&[m, n]));
        let inputs = present(&[&dy, &x, &clip(max), &clip(min)]);
        let out = grad_case(bits).eval(&inputs);
        let (x, dy) = (x.to_f32_vec().unwrap(), dy.to_f32_vec().unwrap());
        let (mut dx, mut of_clips) = (Vec::new(), [0.0; 2]);
        for (dy, x) in dy.chunks(n).zip(x.chunks(n)) {
            let row = surrogate::symmetric(bits as u32, dy, x, (max, min));
            dx.extend(row[..n].iter().map(|v| *v as f32));
            of_clips = [of_clips[0] + row[n], of_clips[1] + row[n + 1]];
            decided = [decided[0] | (row[n] != 0.0), decided[1] | (row[n + 1] != 0.0)];
        }
        clipped += out[0].to_f32_vec().unwrap().iter().filter(|v| **v == 0.0).count();
        assert_close(&out[0], &Tensor::from_vec(&[m, n], dx), 1e-4);
        assert_close(&out[1], &clip(of_clips[0] as f32), 1e-4);
        assert_close(&out[2], &clip(of_clips[1] as f32), 1e-4);
    }
    assert!(clipped > 10 && decided == [true; 2], "{clipped} {decided:?}");
}

#[test]
fn a_row_of_zeros_passes_gradients_and_moves_no_clip() {
    let (x, dy) = (Tensor::from_vec(&[1, 3], vec![0.0f32; 3]), Random::new(73).tensor(&[1, 3]));
    let inputs = present(&[&dy, &x, &clip(0.9), &clip(0.9)]);
    let out = grad_case(4).eval(&inputs);
    assert_eq!(out[0].to_f32_vec().unwrap(), dy.to_f32_vec().unwrap());
    assert_eq!(
        (out[1].to_f32_vec().unwrap(), out[2].to_f32_vec().unwrap()),
        (vec![0.0], vec![0.0])
    );
}

#[test]
fn the_first_of_equal_extremes_takes_the_gradient_of_the_scale() {
    let x = Tensor::from_vec(&[1, 4], vec![0.3f32, -7.0, 0.3, -7.0]);
    let dy = Tensor::from_vec(&[1, 4], vec![1.0f32, 0.0, 1.0, 0.0]);
    let out = grad_case(4).eval(&present(&[&dy, &x, &clip(1.0), &clip(1.0)]));
    // The scale is 1 and both 0.3 round to 0: it gets −0.6, and the lowest value 0.6 / 7.
    let want = Tensor::from_vec(&[1, 4], vec![1.0, 0.6 / 7.0, 1.0, 0.0]);
    assert_close(&out[0], &want, 1e-6);
    assert_close(&out[2], &clip(-0.6), 1e-6);
}

#[test]
fn the_kernels_agree() {
    let mut random = Random::new(74);
    for (bits, shape) in [(4, vec![3, 64]), (8, vec![2, 5, 100]), (4, vec![40, 576])] {
        let (x, dy) = (random.tensor(&shape), random.tensor(&shape));
        let (max, min) = (clip(0.8), clip(0.85));
        case(bits).assert_kernel_agrees(&present(&[&x, &max, &min]), &[], 0.0);
        grad_case(bits).assert_kernel_agrees(&present(&[&dy, &x, &max, &min]), &[], 1e-4);
    }
}

#[test]
fn the_rule_makes_the_gradient_node() {
    let facts = [fact(&["b", "s", "8"]), fact(&["1"]), fact(&["1"])];
    let (graph, gradients) = case(4).differentiate(&facts);
    let (node, _) = graph.producer(gradients[0].unwrap()).unwrap();
    let node = graph.node(node);
    assert_eq!((node.domain.as_str(), node.op_type.as_str()), (DOMAIN, "FakeQuantizeRowsGrad"));
    assert_eq!(node.int("bits", 0), 4);
    let [x, max, min, dy] = graph.inputs[..] else { panic!("four inputs") };
    assert_eq!(node.inputs, [Some(dy), Some(x), Some(max), Some(min)]);
    assert_eq!(node.outputs, gradients);
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = fact(&["2", "8"]);
    let one = fact(&["1"]);
    let without_bits = Case::new(DOMAIN, "FakeQuantizeRows", 1);
    assert!(without_bits.infer(&[x.clone(), one.clone(), one.clone()]).is_err());
    let other = fact(&["2", "9"]);
    assert!(grad_case(4).infer(&[other, x, one.clone(), one]).is_err());
}

#[test]
fn the_function_bodies_agree() {
    let mut random = Random::new(75);
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (bits, max, min) in [(4, 1.0, 1.0), (4, 0.6, 0.7), (8, 0.9, 0.95)] {
        let (x, dy) = (random.tensor(&[2, 3, 40]), random.tensor(&[2, 3, 40]));
        let (max, min) = (clip(max), clip(min));
        forward.push(Question::new(case(bits), present(&[&x, &max, &min])));
        backward.push(Question::new(grad_case(bits), present(&[&dy, &x, &max, &min])));
    }
    let zeros = Tensor::from_vec(&[1, 4], vec![0.0f32; 4]);
    let dy = random.tensor(&[1, 4]);
    backward.push(Question::new(grad_case(4), present(&[&dy, &zeros, &clip(1.0), &clip(1.0)])));
    assert_agree(&forward, 0.0);
    assert_agree(&backward, 1e-4);
}
