//! f32 products, transforms, norms and elementwise functions against f64 loops.

mod common;

use common::*;
use planish_cpu::*;

fn product(a: MatRef<'_>, b: MatRef<'_>, alpha: f32, beta: f32, c: &[f32]) -> Vec<f64> {
    let at =
        |x: &MatRef<'_>, i: usize, j: usize| f64::from(x.data[i * x.row_stride + j * x.col_stride]);
    let mut out = Vec::new();
    for i in 0..a.rows {
        for j in 0..b.cols {
            let sum: f64 = (0..a.cols).map(|k| at(&a, i, k) * at(&b, k, j)).sum();
            let old =
                if beta == 0.0 { 0.0 } else { f64::from(beta) * f64::from(c[i * b.cols + j]) };
            out.push(f64::from(alpha) * sum + old);
        }
    }
    out
}

#[test]
fn sgemm_of_every_shape_and_stride() {
    let mut random = Random::new(5);
    let shapes = [
        (0, 3, 4),
        (1, 1, 1),
        (1, 100, 70),
        (1, 576, 1100),
        (2, 17, 16),
        (3, 0, 5),
        (5, 33, 40),
        (7, 64, 129),
        (13, 145, 50),
        (31, 300, 65),
        (50, 20, 100),
        (97, 150, 191),
        (24, 4100, 24),
        (20, 3000, 70),
    ];
    for (m, k, n) in shapes {
        let (a, at) = (random.floats(m * k), random.floats(m * k));
        let (b, bt) = (random.floats(k * n), random.floats(k * n));
        let c = random.floats(m * n);
        for a in [MatRef::new(&a, m, k), MatRef::new(&at, k, m).t()] {
            for b in [MatRef::new(&b, k, n), MatRef::new(&bt, n, k).t()] {
                for (alpha, beta) in [(1.0, 0.0), (0.5, 1.0), (2.0, -0.5)] {
                    let want = product(a, b, alpha, beta, &c);
                    for isa in isas() {
                        let mut got = c.clone();
                        if beta == 0.0 {
                            got.fill(f32::NAN);
                        }
                        sgemm(pool(), isa, alpha, a, b, beta, MatMut::new(&mut got, m, n));
                        assert_close(&got, &want, 4e-5, &format!("{isa:?} {m} {k} {n}"));
                    }
                }
            }
        }
    }
}

#[test]
fn sgemm_keeps_to_its_part_of_a_larger_matrix() {
    let mut random = Random::new(6);
    let (m, k, n) = (9, 20, 37);
    let (a, b) = (random.floats(m * 30), random.floats(k * 50));
    let (a, b) = (MatRef::with_stride(&a, m, k, 30), MatRef::with_stride(&b, k, n, 50));
    let want = product(a, b, 1.0, 0.0, &[]);
    for isa in isas() {
        let mut c = vec![9.0; m * 41];
        sgemm(pool(), isa, 1.0, a, b, 0.0, MatMut::with_stride(&mut c, m, n, 41));
        for (row, want) in c.chunks(41).zip(want.chunks(n)) {
            assert_close(&row[..n], want, 1e-5, "strided");
            assert!(row[n..].iter().all(|&x| x == 9.0));
        }
    }
}

fn transformed(x: &[f32], t: &Kronecker<'_>) -> Vec<f64> {
    let (n1, n2) = (t.n1, t.n2);
    let p = |p: Option<&[f32]>, n: usize, i: usize, j: usize| {
        p.map_or(f64::from(i == j), |p| f64::from(p[i * n + j]))
    };
    let mut out = Vec::new();
    for row in x.chunks(n1 * n2) {
        for i in 0..n1 {
            for j in 0..n2 {
                let mut sum = 0.0;
                for a in 0..n1 {
                    for b in 0..n2 {
                        sum += p(t.p1, n1, a, i) * f64::from(row[a * n2 + b]) * p(t.p2, n2, b, j);
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

#[test]
fn transforms_of_every_shape() {
    let mut random = Random::new(7);
    for (m, n1, n2) in [(1, 24, 24), (3, 9, 64), (17, 5, 7), (2, 32, 48), (40, 12, 20), (2, 1, 1)] {
        let (p1, p2) = (random.floats(n1 * n1), random.floats(n2 * n2));
        let x = random.floats(m * n1 * n2);
        for (p1, p2) in [(Some(&p1), Some(&p2)), (Some(&p1), None), (None, Some(&p2)), (None, None)]
        {
            let t = Kronecker { n1, n2, p1: p1.map(|p| &p[..]), p2: p2.map(|p| &p[..]) };
            let want = transformed(&x, &t);
            for isa in isas() {
                let mut got = vec![0.0; x.len()];
                transform_rows(pool(), isa, RowSource::Plain(&x), t, &mut got);
                assert_close(&got, &want, 2e-4, &format!("{isa:?} {n1}x{n2}"));
                check_codes(isa, &got, RowSource::Plain(&x), t, m);
            }
        }
    }
}

/// Codes of the transform must be those of the f32 rows it computes, by division.
fn check_codes(isa: Isa, rows: &[f32], source: RowSource<'_>, t: Kronecker<'_>, m: usize) {
    for (bits, clip_min, clip_max) in [(4, 1.0, 1.0), (8, 0.7, 0.4), (8, 1.0, 1.0)] {
        let spec = QuantSpec { bits, clip_min, clip_max };
        let (mut codes, mut scales) = (vec![0; rows.len()], vec![0.0; m]);
        transform_quantize(pool(), isa, source, t, spec, &mut codes, &mut scales);
        check_row_codes(rows, t.n(), spec, &codes, &scales);
    }
}

#[track_caller]
fn check_row_codes(rows: &[f32], n: usize, spec: QuantSpec, codes: &[i8], scales: &[f32]) {
    let q = spec.q_max();
    for ((row, codes), &scale) in rows.chunks(n).zip(codes.chunks(n)).zip(scales) {
        let high = row.iter().copied().fold(f32::MIN, f32::max);
        let low = row.iter().copied().fold(f32::MAX, f32::min);
        let amplitude = (spec.clip_max * high).max(-spec.clip_min * low).max(AMPLITUDE_FLOOR);
        assert_eq!(scale, amplitude / q);
        for (&x, &code) in row.iter().zip(codes) {
            assert_eq!(f32::from(code), (x / scale).round_ties_even().clamp(-q - 1.0, q));
        }
    }
}

#[test]
fn codes_at_halves_round_as_the_division_does() {
    let mut random = Random::new(8);
    let n = 257;
    let spec = QuantSpec::new(8);
    for round in 0..200 {
        let amplitude = 10f32.powi(round % 9 - 4) * (1.0 + random.unit().abs());
        let scale = amplitude / 127.0;
        let mut x: Vec<f32> = (0..n)
            .map(|i| {
                let half = (i as f32 - 128.0).clamp(-126.5, 126.5) + 0.5;
                f32::from_bits((half * scale).to_bits() + random.next() % 3)
            })
            .collect();
        x[0] = amplitude;
        for isa in isas() {
            let (mut codes, mut scales) = (vec![0; n], vec![0.0]);
            quantize_rows(pool(), isa, &x, n, spec, &mut codes, &mut scales);
            check_row_codes(&x, n, spec, &codes, &scales);
        }
    }
}

#[test]
fn fused_fronts_equal_the_separate_steps() {
    let mut random = Random::new(9);
    let (m, n1, n2) = (21, 8, 12);
    let n = n1 * n2;
    let (x, y) = (random.floats(m * n), random.floats(m * n));
    let (weight, p2) = (random.floats(n), random.floats(n2 * n2));
    let t = Kronecker { n1, n2, p1: None, p2: Some(&p2) };
    for isa in isas() {
        let (mut front, mut want, mut got) = (vec![0.0; m * n], vec![0.0; m * n], vec![0.0; m * n]);
        rms_norm(pool(), isa, &x, None, &weight, 1e-5, &mut front);
        transform_rows(pool(), isa, RowSource::Plain(&front), t, &mut want);
        let norm = RowSource::RmsNorm { x: &x, weight: &weight, eps: 1e-5 };
        transform_rows(pool(), isa, norm, t, &mut got);
        assert_eq!(got, want);
        silu_mul(pool(), isa, &x, &y, &mut front);
        transform_rows(pool(), isa, RowSource::Plain(&front), t, &mut want);
        transform_rows(pool(), isa, RowSource::SwiGlu { gate: &x, up: &y }, t, &mut got);
        assert_eq!(got, want);
    }
}

#[test]
fn norms() {
    let mut random = Random::new(10);
    for (m, n) in [(1, 1), (3, 7), (5, 64), (2, 577), (40, 576)] {
        let (x, add) = (random.floats(m * n), random.floats(m * n));
        let (weight, bias) = (random.floats(n), random.floats(n));
        let (mut rms, mut layer) = (Vec::new(), Vec::new());
        for (row, add) in x.chunks(n).zip(add.chunks(n)) {
            let row: Vec<f64> = row.iter().zip(add).map(|(x, y)| f64::from(x + y)).collect();
            let mean = row.iter().sum::<f64>() / n as f64;
            let square = row.iter().map(|x| x * x).sum::<f64>() / n as f64 + 1e-5;
            let variance =
                row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64 + 1e-5;
            for j in 0..n {
                let (w, b) = (f64::from(weight[j]), f64::from(bias[j]));
                rms.push(row[j] / square.sqrt() * w);
                layer.push((row[j] - mean) / variance.sqrt() * w + b);
            }
        }
        for isa in isas() {
            let (mut sum, mut out) = (vec![0.0; m * n], vec![0.0; m * n]);
            let residual = Residual { add: &add, sum: &mut sum };
            rms_norm(pool(), isa, &x, Some(residual), &weight, 1e-5, &mut out);
            assert_close(&out, &rms, 2e-6, "rms_norm");
            let wanted_sum: Vec<f64> = x.iter().zip(&add).map(|(x, y)| f64::from(x + y)).collect();
            assert_close(&sum, &wanted_sum, 0.0, "residual");
            let residual = Residual { add: &add, sum: &mut sum };
            layer_norm(pool(), isa, &x, Some(residual), &weight, Some(&bias), 1e-5, &mut out);
            assert_close(&out, &layer, if n == 1 { 1e-4 } else { 4e-6 }, "layer_norm");
        }
    }
}

fn erf(x: f64) -> f64 {
    // The Maclaurin series converges fast enough for the range used here.
    let (mut term, mut sum) = (x, x);
    for k in 1..200 {
        term *= -x * x / f64::from(k);
        sum += term / f64::from(2 * k + 1);
    }
    (sum * 2.0 / std::f64::consts::PI.sqrt()).clamp(-1.0, 1.0)
}

#[test]
fn elementwise_functions() {
    let x: Vec<f32> = (-4000..=4001).map(|i| i as f32 / 800.0).collect();
    let y: Vec<f32> = x.iter().map(|x| 1.5 - x).collect();
    let sigmoid64 = |x: f64| 1.0 / (1.0 + (-x).exp());
    let tanh_gelu = |x: f64| {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        0.5 * x * (1.0 + u.tanh())
    };
    type Unary = fn(&ThreadPool, Isa, &[f32], &mut [f32]);
    type Case<'a> = (&'a str, Unary, &'a dyn Fn(f64) -> f64);
    let functions: [Case<'_>; 6] = [
        ("silu", silu, &|x| x * sigmoid64(x)),
        ("sigmoid", sigmoid, &sigmoid64),
        ("gelu_tanh", gelu_tanh, &tanh_gelu),
        ("gelu_erf", gelu_erf, &|x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))),
        ("exp", exp, &f64::exp),
        ("tanh", tanh, &f64::tanh),
    ];
    for isa in isas() {
        let mut out = vec![0.0; x.len()];
        for (name, f, want) in functions {
            f(pool(), isa, &x, &mut out);
            let want: Vec<f64> = x.iter().map(|&x| want(f64::from(x))).collect();
            assert_close(&out, &want, 1e-6, name);
        }
        let pairs = || x.iter().zip(&y).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        silu_mul(pool(), isa, &x, &y, &mut out);
        let want: Vec<f64> = pairs().map(|(x, y)| x * sigmoid64(x) * y).collect();
        assert_close(&out, &want, 2e-6, "silu_mul");
        gelu_tanh_mul(pool(), isa, &x, &y, &mut out);
        let want: Vec<f64> = pairs().map(|(x, y)| tanh_gelu(x) * y).collect();
        assert_close(&out, &want, 2e-6, "gelu_tanh_mul");
        add(pool(), isa, &x, &y, &mut out);
        assert!(out.iter().zip(x.iter().zip(&y)).all(|(o, (x, y))| *o == x + y));
        mul(pool(), isa, &x, &y, &mut out);
        assert!(out.iter().zip(x.iter().zip(&y)).all(|(o, (x, y))| *o == x * y));
        out.copy_from_slice(&y);
        add_assign(pool(), isa, &x, &mut out);
        assert!(out.iter().zip(x.iter().zip(&y)).all(|(o, (x, y))| *o == x + y));
    }
}

#[test]
fn functions_at_the_ends_of_the_range() {
    let x = [f32::NEG_INFINITY, -1e30, -100.0, 100.0, 1e30, 0.0];
    for isa in isas() {
        let mut out = [9.0; 6];
        exp(pool(), isa, &x[..3], &mut out[..3]);
        assert_eq!(out[..3], [0.0; 3]);
        silu(pool(), isa, &x[2..], &mut out[..4]);
        assert!(out[0].abs() < 1e-6 && out[1] == 100.0 && out[2] == 1e30 && out[3] == 0.0);
        tanh(pool(), isa, &x[1..], &mut out[..5]);
        assert_eq!(out[..5], [-1.0, -1.0, 1.0, 1.0, 0.0]);
        gelu_erf(pool(), isa, &x[2..4], &mut out[..2]);
        assert_eq!(out[..2], [0.0, 100.0]);
    }
}

#[test]
fn softmax_and_masked_rows() {
    let mut random = Random::new(11);
    for (m, n) in [(1, 1), (3, 5), (2, 64), (70, 100)] {
        let mut x: Vec<f32> = random.floats(m * n).iter().map(|x| x * 20.0).collect();
        x[0] = f32::NEG_INFINITY;
        let mut want = Vec::new();
        for row in x.chunks(n) {
            let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            want.extend(
                row.iter().map(|&x| if total == 0.0 { 0.0 } else { f64::from(x).exp() / total }),
            );
        }
        for isa in isas() {
            let mut out = vec![0.0; m * n];
            softmax_rows(pool(), isa, &x, n, &mut out);
            assert_close(&out, &want, 1e-6, "softmax");
        }
    }
}

#[test]
fn rotary_embedding() {
    let mut random = Random::new(12);
    for interleaved in [false, true] {
        for (rows, n_heads, head_dim, rotary_dim) in
            [(1, 3, 64, 64), (5, 2, 12, 6), (70, 9, 64, 32)]
        {
            let spec = RotarySpec { n_heads, head_dim, rotary_dim, interleaved };
            let (width, half) = (n_heads * head_dim, rotary_dim / 2);
            let x = random.floats(rows * width);
            let (cos, sin) = (random.floats(rows * half), random.floats(rows * half));
            let mut want: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            for (i, head) in want.chunks_mut(head_dim).enumerate() {
                for p in 0..half {
                    let (a, b) = if interleaved { (2 * p, 2 * p + 1) } else { (p, p + half) };
                    let at = i / n_heads * half + p;
                    let (c, s) = (f64::from(cos[at]), f64::from(sin[at]));
                    (head[a], head[b]) = (head[a] * c - head[b] * s, head[a] * s + head[b] * c);
                }
            }
            for isa in isas() {
                let mut out = vec![0.0; x.len()];
                rotary(pool(), isa, &x, spec, &cos, &sin, &mut out);
                assert_close(&out, &want, 1e-6, "rotary");
                let mut place = x.clone();
                rotary_in_place(pool(), isa, &mut place, spec, &cos, &sin);
                assert_eq!(place, out);
            }
        }
    }
}
