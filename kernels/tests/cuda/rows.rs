//! Cases of operators that go over rows: norms, softmax, reductions, products, attention.

use planish_ir::Tensor;
use planish_kernels::{DOMAIN, MICROSOFT};

use crate::case::{Case, bools, case, floats, ints, list, narrow, node};

/// What is tested here.
pub const OPERATORS: &[&str] = &[
    "AddRMSNorm",
    "AttentionGrad",
    "Inverse",
    "TransformGrad",
    "TransformLeftGrad",
    "FakeQuantizeColumns",
    "FakeQuantizeColumnsGrad",
    "FakeQuantizeHeads",
    "FakeQuantizeHeadsGrad",
    "FakeQuantizeRows",
    "FakeQuantizeRowsGrad",
    "GeluGrad",
    "LayerNormalizationGrad",
    "RMSNormalizationGrad",
    "SwiGLUGrad",
    "SwishGrad",
    "ArgMax",
    "ArgMin",
    "Attention",
    "CumSum",
    "FusedMatMul",
    "Gemm",
    "LayerNormalization",
    "Linear",
    "LogSoftmax",
    "MatMul",
    "RMSNormalization",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Softmax",
    "TopK",
];

const ROWS: [&[usize]; 4] = [&[3, 64], &[2, 3, 100], &[2, 2, 7], &[1, 4096]];

#[test]
fn rows_are_normalised() {
    for shape in ROWS {
        let n = shape[shape.len() - 1];
        let (x, w, b) = (floats(1, shape), floats(2, &[n]), floats(3, &[n]));
        case("", "RMSNormalization", 23).agrees(&[x.clone(), w.clone()]);
        for domain in ["", MICROSOFT] {
            let case = || case(domain, "SimplifiedLayerNormalization", 1).with("epsilon", 1e-6f32);
            case().agrees(&[x.clone(), w.clone()]);
            case().outputs(2).agrees(&[x.clone(), w.clone()]);
        }
        for outputs in [1, 3] {
            let case = || node("LayerNormalization").outputs(outputs);
            case().agrees(&[x.clone(), w.clone()]);
            case().agrees(&[x.clone(), w.clone(), b.clone()]);
        }
        let skip = floats(4, shape);
        let add = case(DOMAIN, "AddRMSNorm", 1).outputs(2);
        add.agrees(&[x.clone(), skip.clone(), w.clone()]);
        for outputs in [1, 4] {
            let simplified = || case(MICROSOFT, "SkipSimplifiedLayerNormalization", 1);
            simplified().outputs(outputs).agrees(&[x.clone(), skip.clone(), w.clone()]);
            let inputs = [x.clone(), skip.clone(), w.clone(), b.clone()];
            simplified().outputs(outputs).agrees(&inputs);
            let full = || case(MICROSOFT, "SkipLayerNormalization", 1).outputs(outputs);
            full().agrees(&inputs);
            full().agrees(&[inputs.to_vec(), vec![floats(5, &[n])]].concat());
        }
    }
}

#[test]
fn normalised_parts_and_weights_may_have_more_axes() {
    let x = || floats(1, &[3, 4, 8]);
    let over = |op: &str| case("", op, 23).with("axis", 1);
    over("RMSNormalization").agrees(&[x(), floats(2, &[4, 8])]);
    over("RMSNormalization").agrees(&[x(), floats(2, &[8])]);
    over("LayerNormalization").agrees(&[x(), floats(2, &[4, 1]), floats(3, &[1])]);
    case("", "RMSNormalization", 23).agrees(&[x(), floats(2, &[3, 1, 8])]);
    node("LayerNormalization").agrees(&[x(), floats(2, &[4, 8]), floats(3, &[8])]);
}

#[test]
fn gradients_of_norms_and_activations() {
    let many: &[usize] = &[3, 200, 40];
    for shape in ROWS.into_iter().chain([many]) {
        let n = shape[shape.len() - 1];
        let inputs = [floats(1, shape), floats(2, shape), floats(3, &[n])];
        for outputs in [1, 2] {
            case(DOMAIN, "RMSNormalizationGrad", 1).outputs(outputs).agrees(&inputs);
        }
        for outputs in [1, 3] {
            case(DOMAIN, "LayerNormalizationGrad", 1).outputs(outputs).agrees(&inputs);
        }
        let inputs = [floats(1, shape), floats(2, shape), floats(3, shape)];
        case(DOMAIN, "SwiGLUGrad", 1).outputs(2).agrees(&inputs);
        for alpha in [1.0f32, 1.7] {
            case(DOMAIN, "SwishGrad", 1).with("alpha", alpha).agrees(&inputs[..2]);
        }
        for form in ["none", "tanh"] {
            case(DOMAIN, "GeluGrad", 1).with("approximate", form).agrees(&inputs[..2]);
        }
    }
}

/// Clips from 0.4 to 0.9, so that some codes are clipped.
fn clips(seed: u64, shape: &[usize]) -> Option<Tensor> {
    let unit = floats(seed, shape).unwrap().to_f32_vec().unwrap();
    Some(Tensor::from_vec(shape, unit.iter().map(|x| 0.65 + 0.25 * x).collect()))
}

#[test]
fn quantisers_for_learning_and_their_gradients() {
    for bits in [2, 4, 8] {
        for shape in ROWS {
            let of = |op: &str| case(DOMAIN, op, 1).with("bits", bits);
            let inputs = [floats(1, shape), clips(2, &[1]), clips(3, &[1])];
            of("FakeQuantizeRows").agrees(&inputs);
            let grad = [vec![floats(4, shape)], inputs.to_vec()].concat();
            of("FakeQuantizeRowsGrad").outputs(3).agrees(&grad);
            if shape[shape.len() - 1] % 4 == 0 {
                let of = |op| of(op).with("head_size", shape[shape.len() - 1] as i64 / 4);
                of("FakeQuantizeHeads").agrees(&inputs);
                of("FakeQuantizeHeadsGrad").outputs(3).agrees(&grad);
            }
        }
        for (k, n, block) in [(40, 33, 0), (96, 70, 32), (700, 5, 0), (600, 12, 300)] {
            let of = |op: &str| case(DOMAIN, op, 1).with("bits", bits).with("block_size", block);
            let shape = if block == 0 { vec![n] } else { vec![k / block as usize, n] };
            let inputs = [floats(1, &[k, n]), clips(2, &shape), clips(3, &shape)];
            of("FakeQuantizeColumns").agrees(&inputs);
            let grad = [vec![floats(4, &[k, n])], inputs.to_vec()].concat();
            of("FakeQuantizeColumnsGrad").outputs(3).agrees(&grad);
        }
    }
}

#[test]
fn softmax_goes_over_one_axis_or_several() {
    for op in ["Softmax", "LogSoftmax"] {
        for axis in [0, 1, 2, -1] {
            node(op).with("axis", axis).agrees(&[floats(1, &[3, 40, 50])]);
            case("", op, 11).with("axis", axis).agrees(&[floats(1, &[3, 4, 5])]);
        }
        node(op).agrees(&[floats(1, &[2, 3000])]);
        let hidden = vec![f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 2.0];
        node(op).agrees(&[Some(Tensor::from_vec(&[1, 4], hidden))]);
    }
}

#[test]
fn any_axes_are_reduced() {
    let lists: [&[i64]; 6] = [&[2], &[0], &[1], &[0, 2], &[1, 2], &[]];
    for op in [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
        "ReduceL1",
        "ReduceL2",
    ] {
        for axes in lists {
            for keepdims in [0, 1] {
                let case = || node(op).with("keepdims", keepdims);
                case().agrees(&[floats(1, &[3, 40, 5]), list(axes)]);
                case().agrees(&[ints(1, &[3, 2, 5], -3, 4), list(axes)]);
            }
        }
        // Products of many numbers are 0 before long.
        if op != "ReduceProd" {
            node(op).agrees(&[floats(1, &[2, 3000]), list(&[-1])]);
            node(op).agrees(&[floats(1, &[300, 2100]), list(&[-1])]);
            node(op).agrees(&[ints(1, &[9000], -3, 4), list(&[0])]);
            node(op).agrees(&[floats(1, &[700, 33]), list(&[0])]);
        }
        let noop = node(op).with("noop_with_empty_axes", 1);
        noop.agrees(&[floats(1, &[3, 4])]);
    }
    node("ReduceMax").agrees(&[bools(1, &[3, 9]), list(&[1])]);
    case("", "ReduceMean", 13).with("axes", vec![1i64]).agrees(&[floats(1, &[3, 4, 5])]);
}

#[test]
fn sums_run_along_an_axis() {
    for (exclusive, reverse) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        for axis in [0, 1, 2] {
            let case = || node("CumSum").with("exclusive", exclusive).with("reverse", reverse);
            let at = || Some(Tensor::scalar(axis as i64));
            case().agrees(&[floats(1, &[3, 70, 5]), at()]);
            case().agrees(&[ints(1, &[2, 70, 3], -5, 5), at()]);
            case().agrees(&[narrow(ints(1, &[2, 3, 40], -5, 5)), at()]);
        }
    }
}

#[test]
fn the_largest_are_found() {
    for op in ["ArgMax", "ArgMin"] {
        for axis in [0, 1, 2] {
            for last in [0, 1] {
                let case = || node(op).with("axis", axis).with("select_last_index", last);
                case().with("keepdims", 0).agrees(&[floats(1, &[4, 300, 5])]);
                case().agrees(&[ints(1, &[4, 30, 5], 0, 4)]);
            }
        }
    }
    let odd = vec![1.0, f32::NAN, f32::INFINITY, f32::NAN, -1.0];
    node("ArgMax").agrees(&[Some(Tensor::from_vec(&[5], odd.clone()))]);
    node("ArgMin").agrees(&[Some(Tensor::from_vec(&[5], odd))]);
    for axis in [0, 1] {
        for largest in [0, 1] {
            let case = || node("TopK").with("axis", axis).with("largest", largest).outputs(2);
            case().agrees(&[floats(1, &[9, 300]), list(&[5])]);
            case().agrees(&[ints(1, &[9, 30], 0, 4), list(&[9])]);
        }
    }
}

#[test]
fn matrices_of_any_rank_are_multiplied() {
    let shapes: [[&[usize]; 2]; 9] = [
        [&[3, 5], &[5, 4]],
        [&[70, 65], &[65, 67]],
        [&[2, 3, 8], &[8, 5]],
        [&[2, 1, 6, 8], &[3, 8, 5]],
        [&[4, 3, 8], &[4, 8, 70]],
        [&[8], &[8, 5]],
        [&[3, 8], &[8]],
        [&[8], &[8]],
        [&[2, 100, 128], &[128, 96]],
    ];
    for [a, b] in shapes {
        node("MatMul").agrees(&[floats(1, a), floats(2, b)]);
        node("MatMul").agrees(&[ints(1, a, -9, 9), ints(2, b, -9, 9)]);
    }
    node("MatMul").agrees(&[narrow(ints(1, &[3, 5], -9, 9)), narrow(ints(2, &[5, 70], -9, 9))]);
    for (trans_a, trans_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let sides = |turned: i64, r: usize, c: usize| if turned != 0 { [c, r] } else { [r, c] };
        for [m, k, n] in [[3, 5, 4], [70, 80, 90]] {
            let (a, b) = (sides(trans_a, m, k), sides(trans_b, k, n));
            let of = |op: Case| op.with("transA", trans_a).with("transB", trans_b);
            let (a_, b_) = (floats(1, &a), floats(2, &b));
            of(node("Gemm")).agrees(&[a_.clone(), b_.clone()]);
            let scaled = of(node("Gemm")).with("alpha", 0.5f32).with("beta", 0.25f32);
            scaled.agrees(&[a_.clone(), b_.clone(), floats(3, &[n])]);
            of(node("Gemm")).agrees(&[a_, b_, floats(3, &[m, 1])]);
            let (a, b) = ([&[2, 3][..], &a].concat(), [&[3][..], &b].concat());
            let fused = of(case(MICROSOFT, "FusedMatMul", 1)).with("alpha", 0.5f32);
            fused.agrees(&[floats(1, &a), floats(2, &b)]);
        }
    }
}

#[test]
fn linear_layers_have_weights_of_either_order() {
    for rows in [1, 3, 70] {
        for turned in [0, 1] {
            let weight: &[usize] = if turned != 0 { &[96, 64] } else { &[64, 96] };
            let case = || case(DOMAIN, "Linear", 1).with("trans_b", turned);
            case().agrees(&[floats(1, &[1, rows, 64]), floats(2, weight)]);
            case().agrees(&[floats(1, &[2, rows, 64]), floats(2, weight), floats(3, &[96])]);
        }
    }
}

#[test]
fn heads_are_rotated() {
    for interleaved in [0, 1] {
        for rotated in [0, 8] {
            let half = if rotated == 0 { 8 } else { 4 };
            let case = || {
                let case = case("", "RotaryEmbedding", 23).with("interleaved", interleaved);
                case.with("rotary_embedding_dim", rotated)
            };
            let caches = |shape: &[usize]| [floats(2, shape), floats(3, shape)];
            for batch in [1, 2] {
                let [cos, sin] = caches(&[batch, 5, half]);
                let (flat, cube) = (floats(1, &[2, 5, 48]), floats(1, &[2, 3, 5, 16]));
                case().with("num_heads", 3).agrees(&[flat.clone(), cos.clone(), sin.clone()]);
                case().agrees(&[cube.clone(), cos, sin]);
                let [cos, sin] = caches(&[50, half]);
                let ids = ints(4, &[batch, 5], 0, 50);
                let given = [flat, cos.clone(), sin.clone(), ids.clone()];
                case().with("num_heads", 3).agrees(&given);
                case().agrees(&[cube, cos, sin, ids]);
            }
            let contributed = || {
                let case = super::case::case(MICROSOFT, "RotaryEmbedding", 1);
                case.with("interleaved", interleaved).with("num_heads", 3)
            };
            let [cos, sin] = caches(&[50, half]);
            let x = floats(1, &[2, 5, 48]);
            let first = list(&[7]);
            contributed().agrees(&[x.clone(), first, cos.clone(), sin.clone()]);
            contributed().agrees(&[x, ints(4, &[2, 5], 0, 50), cos, sin]);
        }
    }
}

fn attention(q_heads: i64, kv_heads: i64) -> Case {
    case("", "Attention", 24).with("q_num_heads", q_heads).with("kv_num_heads", kv_heads)
}

#[test]
fn attention_of_flat_inputs_with_every_mask() {
    let (q, k, v) = (floats(1, &[2, 5, 64]), floats(2, &[2, 7, 32]), floats(3, &[2, 7, 48]));
    let inputs = [q, k, v];
    let with = |mask: Option<Tensor>| [inputs.to_vec(), vec![mask]].concat();
    attention(4, 2).agrees(&inputs);
    for causal in [0, 1] {
        let case = || attention(4, 2).with("is_causal", causal);
        case().with("scale", 0.3f32).with("softcap", 2.0f32).agrees(&inputs);
        case().with("left_window_size", 2).agrees(&inputs);
        case().with("left_window_size", 1).with("right_window_size", 1).agrees(&inputs);
        case().agrees(&with(floats(4, &[5, 7])));
        case().agrees(&with(bools(4, &[2, 1, 5, 7])));
        case().agrees(&with(floats(4, &[2, 4, 1, 7])));
        case().agrees(&with(bools(4, &[5, 6])));
        let lengths = [with(None), vec![None, None, list(&[3, 7])]].concat();
        case().agrees(&lengths);
    }
}

#[test]
fn attention_keeps_the_past_and_shows_its_scores() {
    let past = |seed, d: usize| floats(seed, &[2, 2, 3, d]);
    let flat = [floats(1, &[2, 5, 64]), floats(2, &[2, 5, 32]), floats(3, &[2, 5, 48])];
    let cube = [floats(1, &[2, 4, 5, 16]), floats(2, &[2, 2, 5, 16]), floats(3, &[2, 2, 5, 24])];
    for inputs in [flat, cube] {
        for outputs in [1, 3, 4] {
            for mode in 0..if outputs == 4 { 4 } else { 1 } {
                let case = || {
                    let case = attention(4, 2).with("is_causal", 1).outputs(outputs);
                    case.with("qk_matmul_output_mode", mode).with("softcap", 3.0f32)
                };
                case().agrees(&inputs);
                let pasts = vec![bools(4, &[2, 1, 5, 8]), past(5, 16), past(6, 24)];
                case().agrees(&[inputs.to_vec(), pasts].concat());
            }
        }
    }
}

#[test]
fn attention_over_many_keys() {
    let inputs =
        [floats(1, &[1, 3, 300, 32]), floats(2, &[1, 1, 300, 32]), floats(3, &[1, 1, 300, 160])];
    for case in [case("", "Attention", 24), case("", "Attention", 24).with("is_causal", 1)] {
        case.agrees(&inputs);
    }
    // By products of whole matrices: enough queries, heads in both layouts.
    let flat = [floats(1, &[2, 70, 64]), floats(2, &[2, 90, 32]), floats(3, &[2, 90, 48])];
    for mode in 0..4 {
        let case = attention(4, 2).with("is_causal", 1).with("softcap", 3.0f32).outputs(4);
        let masked = [flat.to_vec(), vec![bools(4, &[2, 1, 70, 90])]].concat();
        case.with("qk_matmul_output_mode", mode).agrees(&masked);
    }
}

#[test]
fn gradients_of_attention() {
    for (q_heads, kv_heads) in [(4, 2), (3, 3)] {
        let of = |heads: i64, d: i64| [2, 5, (heads * d) as usize];
        let (q, k) = (floats(1, &of(q_heads, 16)), floats(2, &of(kv_heads, 16)));
        let (v, dy) = (floats(3, &of(kv_heads, 24)), floats(4, &of(q_heads, 24)));
        let inputs = [dy, q, k, v];
        let case = || {
            let case = case(DOMAIN, "AttentionGrad", 1).outputs(3);
            case.with("q_num_heads", q_heads).with("kv_num_heads", kv_heads)
        };
        case().agrees(&inputs);
        case().with("is_causal", 1).with("softcap", 0.7f32).agrees(&inputs);
        case().with("is_causal", 1).with("left_window_size", 2).agrees(&inputs);
        let masked = [inputs.to_vec(), vec![floats(5, &[2, 1, 5, 5])]].concat();
        case().with("scale", 0.4f32).agrees(&masked);
        let cube = |x: &Option<Tensor>, heads: i64, d: i64| {
            let x = x.as_ref().unwrap();
            Some(x.reshaped(vec![2, heads as usize, 5, d as usize]).unwrap())
        };
        let cubes = [
            cube(&inputs[0], q_heads, 24),
            cube(&inputs[1], q_heads, 16),
            cube(&inputs[2], kv_heads, 16),
            cube(&inputs[3], kv_heads, 24),
        ];
        case().with("is_causal", 1).agrees(&cubes);
        let long = |seed, heads: i64, d: i64| floats(seed, &[1, 80, (heads * d) as usize]);
        let long = [
            long(1, q_heads, 24),
            long(2, q_heads, 16),
            long(3, kv_heads, 16),
            long(4, kv_heads, 24),
        ];
        case().with("is_causal", 1).with("softcap", 0.7f32).agrees(&long);
    }
}

#[test]
fn gradients_of_transforms() {
    for (rows, n1, n2) in [(7, 4, 6), (40, 32, 64), (3, 9, 1)] {
        let n = n1 * n2;
        let (dy, x) = (floats(1, &[1, rows, n]), floats(2, &[1, rows, n]));
        let (p1, p2) = (floats(3, &[n1, n1]), floats(4, &[n2, n2]));
        let left = [dy, x, p1];
        for outputs in [1, 2] {
            case(DOMAIN, "TransformLeftGrad", 1).outputs(outputs).agrees(&left);
        }
        let both = [left.to_vec(), vec![p2]].concat();
        case(DOMAIN, "TransformGrad", 1).outputs(3).agrees(&both);
    }
}

#[test]
fn matrices_are_inverted() {
    let sizes = [1, 16, 24, 32, 48, 64, 100, 200];
    let shapes = sizes.map(|n| vec![n, n]).into_iter().chain([vec![3, 5, 5], vec![2, 33, 33]]);
    for shape in shapes {
        let n = shape[shape.len() - 1];
        let x = floats(1, &shape).unwrap();
        // A diagonal that keeps rounding errors small, its rows exchanged so that pivots move.
        let at = |i: usize| if i / n % n == (n - 1 - i % n) { 0.5 * n as f32 } else { 0.0 };
        let values = x.to_f32_vec().unwrap().iter().enumerate().map(|(i, x)| x + at(i)).collect();
        case(MICROSOFT, "Inverse", 1).agrees(&[Some(Tensor::from_vec(&shape, values))]);
    }
}
