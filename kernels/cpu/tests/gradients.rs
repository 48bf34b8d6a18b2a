//! Gradients against f64 loops: written out where the function is linear, central differences
//! elsewhere.

mod common;

use common::*;
use planish_cpu::*;

/// Runs `f` on pools of several sizes and fails unless it gives the same bits on each.
fn same_bits(f: impl Fn(&ThreadPool) -> Vec<f32>) -> Vec<f32> {
    let first = f(pool());
    for n_threads in [1, 3, 5] {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&f(&ThreadPool::new(n_threads))) == bits(&first), "{n_threads} threads");
    }
    first
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// The derivatives of `f` at `x` in direction of each element, by central differences in f64.
fn slopes(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
    let step = 1e-5;
    (0..x.len())
        .map(|i| {
            let mut at = |offset: f64| {
                let before = x[i];
                x[i] += offset;
                let y = f(&x);
                x[i] = before;
                y
            };
            (at(step) - at(-step)) / (2.0 * step)
        })
        .collect()
}

/// dX, dP1 and dP2 of Y\[i, j\] = Σ P1\[a, i\]·X̃\[a, b\]·P2\[b, j\], term by term.
fn transform_slopes(dy: &[f32], x: &[f32], t: &Kronecker<'_>) -> [Vec<f64>; 3] {
    let (n1, n2) = (t.n1, t.n2);
    let matrix = |p: Option<&[f32]>, n: usize| {
        p.map_or_else(|| (0..n * n).map(|i| f64::from(i / n == i % n)).collect(), wide)
    };
    let (p1, p2): (Vec<f64>, Vec<f64>) = (matrix(t.p1, n1), matrix(t.p2, n2));
    let (dy, x) = (wide(dy), wide(x));
    let mut d = [vec![0.0; x.len()], vec![0.0; n1 * n1], vec![0.0; n2 * n2]];
    for row in (0..x.len()).step_by(n1 * n2) {
        for cell in 0..n1 * n2 * n1 * n2 {
            let (y_at, x_at) = (cell / (n1 * n2), cell % (n1 * n2));
            let (i, j, a, b) = (y_at / n2, y_at % n2, x_at / n2, x_at % n2);
            let (g, v) = (dy[row + y_at], x[row + x_at]);
            d[0][row + x_at] += g * p1[a * n1 + i] * p2[b * n2 + j];
            d[1][a * n1 + i] += g * v * p2[b * n2 + j];
            d[2][b * n2 + j] += g * p1[a * n1 + i] * v;
        }
    }
    d
}

#[test]
fn transforms() {
    let mut random = Random::new(31);
    let shapes = [(1, 24, 24), (3, 9, 64), (133, 5, 7), (2, 40, 72), (19, 12, 20), (2, 1, 1)];
    for (m, n1, n2) in shapes {
        let (p1, p2) = (random.floats(n1 * n1), random.floats(n2 * n2));
        let (x, dy) = (random.floats(m * n1 * n2), random.floats(m * n1 * n2));
        for (p1, p2) in [(Some(&p1), Some(&p2)), (Some(&p1), None), (None, Some(&p2)), (None, None)]
        {
            let t = Kronecker { n1, n2, p1: p1.map(|p| &p[..]), p2: p2.map(|p| &p[..]) };
            let [want_x, want_p1, want_p2] = transform_slopes(&dy, &x, &t);
            let mut want = want_x;
            want.extend(p1.map_or(vec![], |_| want_p1));
            want.extend(p2.map_or(vec![], |_| want_p2));
            for isa in isas() {
                let got = same_bits(|pool| {
                    let mut out = vec![f32::NAN; want.len()];
                    let (dx, factors) = out.split_at_mut(x.len());
                    transform_rows_grad(pool, isa, &dy, &x, t, dx, factors);
                    out
                });
                assert_close(&got, &want, 1e-4, &format!("{isa:?} {m} {n1}x{n2}"));
            }
        }
    }
}

/// Σ dy · the norm of each row of `x`; `centred` for LayerNorm without its bias.
fn norm_loss(dy: &[f64], x: &[f64], weight: &[f64], eps: f64, centred: bool) -> f64 {
    let n = weight.len();
    let row_loss = |(dy, x): (&[f64], &[f64])| {
        let mean = if centred { x.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let square = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        let terms = dy.iter().zip(x).zip(weight).map(|((dy, x), w)| dy * (x - mean) * w);
        terms.sum::<f64>() / (square + eps).sqrt()
    };
    dy.chunks(n).zip(x.chunks(n)).map(row_loss).sum()
}

#[test]
fn norms() {
    let mut random = Random::new(32);
    for (m, n) in [(1, 1), (3, 7), (2, 64), (1, 131), (75, 35)] {
        let (x, dy, weight) = (random.floats(m * n), random.floats(m * n), random.floats(n));
        let (wide_dy, wide_x, wide_w) = (wide(&dy), wide(&x), wide(&weight));
        for centred in [false, true] {
            let mut want = slopes(&x, |x| norm_loss(&wide_dy, x, &wide_w, 1e-2, centred));
            want.extend(slopes(&weight, |w| norm_loss(&wide_dy, &wide_x, w, 1e-2, centred)));
            if centred {
                want.extend((0..n).map(|j| wide_dy.iter().skip(j).step_by(n).sum::<f64>()));
            }
            for isa in isas() {
                let got = same_bits(|pool| {
                    let mut out = vec![f32::NAN; want.len()];
                    let (dx, sums) = out.split_at_mut(m * n);
                    let grad = if centred { layer_norm_grad } else { rms_norm_grad };
                    grad(pool, isa, &dy, &x, &weight, 1e-2, dx, sums);
                    out
                });
                assert_close(&got, &want, 2e-5, &format!("{isa:?} {m} {n} {centred}"));
            }
        }
    }
}

/// Points near 0, far out, and between.
fn points(random: &mut Random, n: usize) -> Vec<f32> {
    let mut x = random.floats(n);
    x.iter_mut().for_each(|x| *x *= 8.0);
    for (x, extreme) in x.iter_mut().zip([0.0, -90.0, 90.0, -1e4, 1e4, 1e-20]) {
        *x = extreme;
    }
    x
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_tanh_f64(x: f64) -> f64 {
    x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x))
}

/// The slope of the erf form, whose density is that of the normal distribution: the integral of
/// the density by Simpson's rule.
fn gelu_erf_slope(x: f64) -> f64 {
    let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let end = x.clamp(-40.0, 40.0);
    let n = 4_000;
    let weight = |i: usize| if i == 0 || i == n { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
    let sum: f64 = (0..=n).map(|i| weight(i) * density(end * i as f64 / n as f64)).sum();
    0.5 + sum * end / (3.0 * n as f64) + x * density(x)
}

#[test]
fn activations() {
    let mut random = Random::new(33);
    for n in [1, 7, 16, 100, 9_001] {
        let (x, dy) = (points(&mut random, n), random.floats(n));
        let each = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
            let slope = |x: f64| (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;
            x.iter().zip(&dy).map(|(x, dy)| f64::from(*dy) * slope(f64::from(*x))).collect()
        };
        let silu_slopes = [1.0f32, -0.5, 1.702]
            .map(|alpha| (alpha, each(&|x| x * sigmoid(f64::from(alpha) * x))));
        let tanh_slopes = each(&gelu_tanh_f64);
        let erf_slopes: Vec<f64> = x
            .iter()
            .zip(&dy)
            .map(|(x, dy)| f64::from(*dy) * gelu_erf_slope(f64::from(*x)))
            .collect();
        let mut got = vec![0.0; n];
        for isa in isas() {
            for (alpha, want) in &silu_slopes {
                silu_grad(pool(), isa, &dy, &x, *alpha, &mut got);
                assert_close(&got, want, 1e-6, &format!("silu {isa:?} {n} {alpha}"));
            }
            gelu_tanh_grad(pool(), isa, &dy, &x, &mut got);
            assert_close(&got, &tanh_slopes, 2e-6, &format!("tanh {isa:?} {n}"));
            gelu_erf_grad(pool(), isa, &dy, &x, &mut got);
            assert_close(&got, &erf_slopes, 1e-6, &format!("erf {isa:?} {n}"));
        }
    }
}

#[test]
fn gated_units() {
    let mut random = Random::new(34);
    for n in [1, 17, 9_001] {
        let (gate, up, dy) = (points(&mut random, n), random.floats(n), random.floats(n));
        let silu = |x: f64| x * sigmoid(x);
        let at = |i: usize| (f64::from(gate[i]), f64::from(up[i]), f64::from(dy[i]));
        let slope = |x: f64| (silu(x + 1e-5) - silu(x - 1e-5)) / 2e-5;
        let of_gate = (0..n).map(at).map(|(gate, up, dy)| dy * up * slope(gate));
        let of_up = (0..n).map(at).map(|(gate, _, dy)| dy * silu(gate));
        let want: Vec<f64> = of_gate.chain(of_up).collect();
        for isa in isas() {
            let mut got = vec![f32::NAN; 2 * n];
            let (dgate, dup) = got.split_at_mut(n);
            silu_mul_grad(pool(), isa, &dy, &gate, &up, dgate, dup);
            assert_close(&got, &want, 1e-6, &format!("{isa:?} {n}"));
        }
    }
}
