//! Tests of `FakeQuantizeColumns` and its gradient.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::surrogate;
use crate::ops::support::testing::*;

fn case(bits: i64, block: i64) -> Case {
    let case = Case::new(DOMAIN, "FakeQuantizeColumns", 1);
    case.with("bits", bits).with("block_size", block)
}

fn grad_case(bits: i64, block: i64) -> Case {
    let case = Case::new(DOMAIN, "FakeQuantizeColumnsGrad", 1).outputs(3);
    case.with("bits", bits).with("block_size", block)
}

/// Clips from 0.5 to 1.
fn clips(random: &mut Random, shape: &[usize]) -> Tensor {
    let n = shape.iter().product();
    Tensor::from_vec(shape, (0..n).map(|_| 0.75 + 0.25 * random.unit()).collect())
}

/// `rows` rows of column `j` from row `first` on.
fn piece(w: &[f32], n: usize, first: usize, rows: usize, j: usize) -> Vec<f32> {
    (first..first + rows).map(|i| w[i * n + j]).collect()
}

/// Shapes [K, N], block size, shape of the clips.
fn shapes() -> [(usize, usize, usize, Vec<usize>); 3] {
    [(20, 6, 0, vec![6]), (20, 6, 10, vec![2, 6]), (8, 35, 8, vec![1, 35])]
}

#[test]
fn each_group_is_a_row_of_fake_quantize_rows() {
    let mut random = Random::new(91);
    for (k, n, block, clip_shape) in shapes() {
        for bits in [2, 3, 4, 8] {
            let w = random.tensor(&[k, n]);
            let (max, min) = (clips(&mut random, &clip_shape), clips(&mut random, &clip_shape));
            let y = case(bits, block as i64).eval(&present(&[&w, &max, &min]));
            let y = y[0].to_f32_vec().unwrap();
            let (w, max, min) =
                (w.to_f32_vec().unwrap(), max.to_f32_vec().unwrap(), min.to_f32_vec().unwrap());
            let rows = if block == 0 { k } else { block };
            for g in 0..k / rows * n {
                let (first, j) = (g / n * rows, g % n);
                let row = Tensor::from_vec(&[1, rows], piece(&w, n, first, rows, j));
                let one = |v: f32| Tensor::from_vec(&[1], vec![v]);
                let by_row = Case::new(DOMAIN, "FakeQuantizeRows", 1).with("bits", bits);
                let want = by_row.eval(&present(&[&row, &one(max[g]), &one(min[g])]));
                assert_eq!(piece(&y, n, first, rows, j), want[0].to_f32_vec().unwrap());
            }
        }
    }
}

#[test]
fn gradients_are_those_of_the_surrogate() {
    let (mut random, mut decided) = (Random::new(92), [false; 2]);
    for (k, n, block, clip_shape) in shapes() {
        for bits in [2, 4] {
            let (w, dy) = (random.tensor(&[k, n]), random.tensor(&[k, n]));
            let (max, min) = (clips(&mut random, &clip_shape), clips(&mut random, &clip_shape));
            let out = grad_case(bits, block as i64).eval(&present(&[&dy, &w, &max, &min]));
            let [w, dy, max, min] = [&w, &dy, &max, &min].map(|t| t.to_f32_vec().unwrap());
            let rows = if block == 0 { k } else { block };
            let (mut dw, mut of_max, mut of_min) = (vec![0.0; k * n], Vec::new(), Vec::new());
            for g in 0..k / rows * n {
                let (first, j) = (g / n * rows, g % n);
                let (dy, x) = (piece(&dy, n, first, rows, j), piece(&w, n, first, rows, j));
                let want = surrogate::symmetric(bits as u32, &dy, &x, (max[g], min[g]));
                (0..rows).for_each(|i| dw[(first + i) * n + j] = want[i] as f32);
                of_max.push(want[rows] as f32);
                of_min.push(want[rows + 1] as f32);
            }
            decided[0] |= of_max.iter().any(|v| *v != 0.0);
            decided[1] |= of_min.iter().any(|v| *v != 0.0);
            assert_close(&out[0], &Tensor::from_vec(&[k, n], dw), 1e-4);
            assert_close(&out[1], &Tensor::from_vec(&clip_shape, of_max), 1e-4);
            assert_close(&out[2], &Tensor::from_vec(&clip_shape, of_min), 1e-4);
        }
    }
    assert_eq!(decided, [true; 2], "both extremes decide some scale");
}

#[test]
fn the_kernels_agree() {
    let mut random = Random::new(93);
    for (k, n, block, clip_shape) in [
        (200, 70, 0, vec![70]),
        (64, 130, 16, vec![4, 130]),
        (1, 1, 0, vec![1]),
        (0, 5, 0, vec![5]),
    ] {
        for bits in [3, 4, 8] {
            let (w, dy) = (random.tensor(&[k, n]), random.tensor(&[k, n]));
            let (max, min) = (clips(&mut random, &clip_shape), clips(&mut random, &clip_shape));
            let (forward, backward) = (case(bits, block), grad_case(bits, block));
            forward.assert_kernel_agrees(&present(&[&w, &max, &min]), &[], 0.0);
            backward.assert_kernel_agrees(&present(&[&dy, &w, &max, &min]), &[], 1e-4);
        }
    }
}

#[test]
fn the_rule_makes_the_gradient_node() {
    let facts = [fact(&["8", "6"]), fact(&["2", "6"]), fact(&["2", "6"])];
    let (graph, gradients) = case(3, 4).differentiate(&facts);
    let (node, _) = graph.producer(gradients[0].unwrap()).unwrap();
    let node = graph.node(node);
    let name = (node.domain.as_str(), node.op_type.as_str());
    assert_eq!(name, (DOMAIN, "FakeQuantizeColumnsGrad"));
    assert_eq!((node.int("bits", 0), node.int("block_size", 0)), (3, 4));
    let [w, max, min, dy] = graph.inputs[..] else { panic!("four inputs") };
    assert_eq!(node.inputs, [Some(dy), Some(w), Some(max), Some(min)]);
    assert_eq!(node.outputs, gradients);
}

#[test]
fn blocks_and_clips_must_fit() {
    let infer =
        |block, w: &[&str], clip: &[&str]| case(4, block).infer(&[fact(w), fact(clip), fact(clip)]);
    assert!(infer(4, &["8", "6"], &["2", "6"]).is_ok());
    assert!(infer(3, &["8", "6"], &["2", "6"]).is_err());
    assert!(infer(0, &["8", "6"], &["2", "6"]).is_err());
    assert!(infer(0, &["8", "6"], &["5"]).is_err());
    assert!(infer(-1, &["8", "6"], &["6"]).is_err());
    assert!(infer(0, &["2", "8", "6"], &["6"]).is_err());
}

#[test]
fn the_function_bodies_agree() {
    let mut random = Random::new(94);
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (k, n, block, clip_shape) in shapes() {
        for bits in [3, 4, 8] {
            let (w, dy) = (random.tensor(&[k, n]), random.tensor(&[k, n]));
            let (max, min) = (clips(&mut random, &clip_shape), clips(&mut random, &clip_shape));
            let block = block as i64;
            forward.push(Question::new(case(bits, block), present(&[&w, &max, &min])));
            let inputs = present(&[&dy, &w, &max, &min]);
            backward.push(Question::new(grad_case(bits, block), inputs));
        }
    }
    assert_agree(&forward, 0.0);
    assert_agree(&backward, 1e-4);
}
