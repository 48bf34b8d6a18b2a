//! Integer and weight-only products against plain loops.

mod common;

use common::*;
use planish_cpu::*;

fn sums(a: &[i8], w: &[i8], m: usize, k: usize, n: usize) -> Vec<i32> {
    let mut out = vec![0i32; m * n];
    for i in 0..m {
        for kk in 0..k {
            let x = i32::from(a[i * k + kk]);
            for j in 0..n {
                out[i * n + j] += x * i32::from(w[kk * n + j]);
            }
        }
    }
    out
}

fn range(bits: u32) -> (i32, i32) {
    if bits == 4 { (-8, 7) } else { (-128, 127) }
}

const SHAPES: [(usize, usize, usize); 16] = [
    (0, 8, 16),
    (1, 1, 1),
    (1, 64, 48),
    (2, 7, 17),
    (3, 100, 33),
    (4, 576, 192),
    (5, 31, 64),
    (6, 64, 80),
    (7, 65, 15),
    (8, 128, 130),
    (9, 96, 100),
    (13, 130, 70),
    (32, 64, 32),
    (37, 192, 112),
    (64, 128, 16),
    (101, 576, 200),
];

#[test]
fn sums_equal_plain_loops_in_every_form() {
    let mut random = Random::new(1);
    for bits in [4, 8] {
        let (low, high) = range(bits);
        for (m, k, n) in SHAPES {
            let a = random.codes(m * k, -128, 127);
            let w = random.codes(k * n, low, high);
            let scales = vec![1.0; n];
            let packed = pack(bits, &w, spec(k, n, &scales, None));
            let flipped = WeightSpec { layout: WeightLayout::Nk, ..spec(k, n, &scales, None) };
            let flipped = pack(bits, &transposed(&w, k, n), flipped);
            let want = sums(&a, &w, m, k, n);
            for isa in isas() {
                for weights in [&packed, &flipped] {
                    let mut got = vec![7; m * n];
                    qgemm_i32(pool(), isa, &a, m, weights, &mut got);
                    assert_eq!(got, want, "{isa:?} {bits} bits {m} {k} {n}");
                }
            }
        }
    }
}

#[test]
fn the_deepest_sums_do_not_overflow() {
    let (k, n) = (MAX_K, 16);
    for (bits, extreme) in [(4, -8i8), (4, 7), (8, 127)] {
        let packed = pack(bits, &vec![extreme; k * n], spec(k, n, &[1.0; 16], None));
        for m in [1, 32] {
            let a = vec![-128i8; m * k];
            for isa in isas() {
                let mut got = vec![0; m * n];
                qgemm_i32(pool(), isa, &a, m, &packed, &mut got);
                let want = k as i32 * i32::from(extreme) * -128;
                assert!(got.iter().all(|&x| x == want), "{isa:?} {bits} {extreme} {m}");
            }
        }
    }
}

struct Case {
    m: usize,
    k: usize,
    n: usize,
    group: Option<usize>,
    w: Vec<i8>,
    scales: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(
        random: &mut Random,
        bits: u32,
        (m, k, n): (usize, usize, usize),
        group: Option<usize>,
    ) -> Self {
        let (low, high) = range(bits);
        let groups = group.map_or(1, |g| k.div_ceil(g));
        let scales = random.floats(groups * n).iter().map(|x| 0.01 + x.abs() * 0.1).collect();
        Self { m, k, n, group, w: random.codes(k * n, low, high), scales, bias: random.floats(n) }
    }

    fn packed(&self, bits: u32) -> PackedWeights {
        pack(bits, &self.w, spec(self.k, self.n, &self.scales, self.group))
    }

    /// a·w + bias in f64, and the same with magnitudes, which bounds the rounding.
    fn product(&self, a: impl Fn(usize, usize) -> f64) -> (Vec<f64>, Vec<f64>) {
        let group = self.group.unwrap_or(self.k.max(1));
        let (mut out, mut size) = (Vec::new(), Vec::new());
        for i in 0..self.m {
            for j in 0..self.n {
                let term = |k: usize| {
                    let scale = f64::from(self.scales[k / group * self.n + j]);
                    a(i, k) * f64::from(self.w[k * self.n + j]) * scale
                };
                out.push((0..self.k).map(term).sum::<f64>() + f64::from(self.bias[j]));
                size.push((0..self.k).map(|k| term(k).abs()).sum::<f64>() + 1.0);
            }
        }
        (out, size)
    }
}

#[track_caller]
fn assert_within(got: &[f32], want: &(Vec<f64>, Vec<f64>), tolerance: f64, what: &str) {
    for (i, &g) in got.iter().enumerate() {
        let error = (f64::from(g) - want.0[i]).abs();
        assert!(error <= tolerance * want.1[i], "{what}: [{i}] is {g}, not {}", want.0[i]);
    }
}

#[test]
fn scales_groups_bias_and_accumulation() {
    let mut random = Random::new(2);
    for bits in [4, 8] {
        for (shape, group) in [
            ((1, 64, 48), None),
            ((1, 128, 33), Some(32)),
            ((3, 100, 20), Some(30)),
            ((8, 256, 64), Some(128)),
            ((40, 192, 100), Some(64)),
            ((33, 100, 70), Some(12)),
            ((70, 576, 96), None),
        ] {
            let case = Case::new(&mut random, bits, shape, group);
            let (packed, (m, k, n)) = (case.packed(bits), shape);
            let a = random.codes(m * k, -128, 127);
            let a_scales: Vec<f32> = random.floats(m).iter().map(|x| 0.1 + x.abs()).collect();
            let want = case.product(|i, kk| f64::from(a[i * k + kk]) * f64::from(a_scales[i]));
            for isa in isas() {
                let what = format!("{isa:?} {bits} bits {shape:?} {group:?}");
                let mut got = vec![f32::NAN; m * n];
                qgemm(pool(), isa, &a, &a_scales, &packed, Some(&case.bias), &mut got, false);
                assert_within(&got, &want, 1e-6, &what);
                let mut twice = got.clone();
                qgemm(pool(), isa, &a, &a_scales, &packed, Some(&case.bias), &mut twice, true);
                let halves: Vec<f32> = twice.iter().map(|x| x / 2.0).collect();
                assert_within(&halves, &want, 2e-6, &what);
            }
        }
    }
}

#[test]
fn weight_only_products() {
    let mut random = Random::new(3);
    for bits in [4, 8] {
        for (shape, group) in [
            ((1, 576, 200), None),
            ((2, 64, 16), Some(32)),
            ((5, 100, 33), Some(30)),
            ((17, 300, 70), None),
            ((40, 256, 130), Some(128)),
        ] {
            let case = Case::new(&mut random, bits, shape, group);
            let (packed, (m, k, n)) = (case.packed(bits), shape);
            let a = random.floats(m * k);
            let want = case.product(|i, kk| f64::from(a[i * k + kk]));
            for isa in isas() {
                for (precision, tolerance) in [(Precision::Exact, 2e-6), (Precision::Fixed16, 6e-5)]
                {
                    let mut got = vec![f32::NAN; m * n];
                    wgemm(pool(), isa, precision, &a, &packed, Some(&case.bias), &mut got);
                    assert_within(
                        &got,
                        &want,
                        tolerance,
                        &format!("{isa:?} {precision:?} {shape:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn packed_codes_and_scales_read_back() {
    let mut random = Random::new(4);
    let case = Case::new(&mut random, 4, (1, 50, 19), Some(20));
    let packed = case.packed(4);
    for k in 0..50 {
        for n in 0..19 {
            assert_eq!(packed.code(k, n), case.w[k * 19 + n]);
            assert_eq!(packed.scale(k, n), case.scales[k / 20 * 19 + n]);
        }
    }
    assert_eq!((packed.k(), packed.n(), packed.bits()), (50, 19, 4));
}

#[test]
fn wrong_lengths_are_errors() {
    let scales = [1.0; 4];
    assert!(matches!(
        PackedWeights::pack_int8(&[0; 7], spec(2, 4, &scales, None)),
        Err(PackError::Codes { expected: 8, got: 7 })
    ));
    assert!(matches!(
        PackedWeights::pack_int4(&[0; 4], spec(2, 4, &scales, Some(1))),
        Err(PackError::Scales { expected: 8, got: 4 })
    ));
    let no_group = PackedWeights::pack_int4(&[0; 4], spec(2, 4, &scales, Some(0)));
    assert_eq!(no_group.unwrap_err(), PackError::Group);
}
