//! Tests of `FakeQuantizeHeads` and its gradient.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::surrogate;
use crate::ops::support::testing::*;

fn case(bits: i64, size: i64) -> Case {
    let case = Case::new(DOMAIN, "FakeQuantizeHeads", 1);
    case.with("bits", bits).with("head_size", size)
}

fn grad_case(bits: i64, size: i64) -> Case {
    let case = Case::new(DOMAIN, "FakeQuantizeHeadsGrad", 1).outputs(3);
    case.with("bits", bits).with("head_size", size)
}

fn clip(value: f32) -> Tensor {
    Tensor::from_vec(&[1], vec![value])
}

#[test]
fn values_are_those_of_quantize_dequantize_heads() {
    let mut random = Random::new(81);
    for (bits, max, min) in [(4, 1.0, 1.0), (4, 0.7, 0.9), (8, 0.95, 0.8)] {
        let x = random.tensor(&[2, 5, 96]);
        let plain = Case::new(DOMAIN, "QuantizeDequantizeHeads", 1).with("bits", bits);
        let plain = plain.with("head_size", 32i64).with("clip_max", max).with("clip_min", min);
        let inputs = present(&[&x, &clip(max), &clip(min)]);
        let want = plain.eval(&present(&[&x]))[0].to_f32_vec().unwrap();
        assert_eq!(case(bits, 32).eval(&inputs)[0].to_f32_vec().unwrap(), want);
        assert_eq!(case(bits, 32).run_cpu(&inputs, &[])[0].to_f32_vec().unwrap(), want);
    }
}

#[test]
fn gradients_are_those_of_the_surrogate() {
    let mut random = Random::new(82);
    let mut clipped = 0;
    // Shifted values have heads whose extremes have one sign.
    for (bits, max, min, shift) in
        [(4, 1.0, 1.0, 0.0), (4, 0.6, 0.7, 0.3), (8, 0.9, 0.5, -1.5), (3, 0.5, 0.8, 1.5)]
    {
        let (m, d) = (8, 12);
        let x: Vec<f32> = (0..m * d).map(|_| random.unit() + shift).collect();
        let (x, dy) = (Tensor::from_vec(&[2, 2, 2 * d], x), random.tensor(&[2, 2, 2 * d]));
        let inputs = present(&[&dy, &x, &clip(max), &clip(min)]);
        let out = grad_case(bits, d as i64).eval(&inputs);
        let (x, dy) = (x.to_f32_vec().unwrap(), dy.to_f32_vec().unwrap());
        let (mut dx, mut of_clips) = (Vec::new(), [0.0; 2]);
        for (dy, x) in dy.chunks(d).zip(x.chunks(d)) {
            let head = surrogate::asymmetric(bits as u32, dy, x, (max, min));
            dx.extend(head[..d].iter().map(|v| *v as f32));
            of_clips = [of_clips[0] + head[d], of_clips[1] + head[d + 1]];
        }
        clipped += out[0].to_f32_vec().unwrap().iter().filter(|v| **v == 0.0).count();
        assert_close(&out[0], &Tensor::from_vec(&[2, 2, 2 * d], dx), 1e-4);
        assert_close(&out[1], &clip(of_clips[0] as f32), 1e-4);
        assert_close(&out[2], &clip(of_clips[1] as f32), 1e-4);
    }
    assert!(clipped > 10, "{clipped}");
}

#[test]
fn a_constant_head_passes_gradients_and_moves_no_clip() {
    let x = Tensor::from_vec(&[1, 1, 3], vec![0.5f32; 3]);
    let dy = Random::new(83).tensor(&[1, 1, 3]);
    let out = grad_case(4, 3).eval(&present(&[&dy, &x, &clip(1.0), &clip(1.0)]));
    assert_eq!(out[0].to_f32_vec().unwrap(), dy.to_f32_vec().unwrap());
    assert_eq!(
        (out[1].to_f32_vec().unwrap(), out[2].to_f32_vec().unwrap()),
        (vec![0.0], vec![0.0])
    );
}

#[test]
fn the_kernels_agree() {
    let mut random = Random::new(84);
    for (bits, size, shape) in [(4, 64, [2, 3, 192]), (8, 20, [1, 7, 60]), (4, 64, [2, 40, 192])] {
        let (x, dy) = (random.tensor(&shape), random.tensor(&shape));
        let (max, min) = (clip(0.8), clip(0.85));
        case(bits, size).assert_kernel_agrees(&present(&[&x, &max, &min]), &[], 0.0);
        grad_case(bits, size).assert_kernel_agrees(&present(&[&dy, &x, &max, &min]), &[], 1e-4);
    }
}

#[test]
fn the_rule_makes_the_gradient_node() {
    let facts = [fact(&["b", "s", "8"]), fact(&["1"]), fact(&["1"])];
    let (graph, gradients) = case(4, 4).differentiate(&facts);
    let (node, _) = graph.producer(gradients[0].unwrap()).unwrap();
    let node = graph.node(node);
    assert_eq!((node.domain.as_str(), node.op_type.as_str()), (DOMAIN, "FakeQuantizeHeadsGrad"));
    assert_eq!((node.int("bits", 0), node.int("head_size", 0)), (4, 4));
    let [x, max, min, dy] = graph.inputs[..] else { panic!("four inputs") };
    assert_eq!(node.inputs, [Some(dy), Some(x), Some(max), Some(min)]);
    assert_eq!(node.outputs, gradients);
}

#[test]
fn heads_must_fill_the_channels() {
    let (x, one) = (fact(&["b", "s", "8"]), fact(&["1"]));
    assert!(case(4, 3).infer(&[x.clone(), one.clone(), one.clone()]).is_err());
    assert!(grad_case(4, 3).infer(&[x.clone(), x, one.clone(), one]).is_err());
}

#[test]
fn the_function_bodies_agree() {
    let mut random = Random::new(85);
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (bits, max, min) in [(4, 1.0, 1.0), (4, 0.6, 0.7), (8, 0.9, 0.95)] {
        let (x, dy) = (random.tensor(&[2, 3, 40]), random.tensor(&[2, 3, 40]));
        let (max, min) = (clip(max), clip(min));
        forward.push(Question::new(case(bits, 20), present(&[&x, &max, &min])));
        backward.push(Question::new(grad_case(bits, 20), present(&[&dy, &x, &max, &min])));
    }
    assert_agree(&forward, 0.0);
    assert_agree(&backward, 1e-4);
}
