//! Quantisation that is read back, and its gradients, against plain loops.

mod common;

use common::*;
use planish_cpu::*;

/// The scale of a symmetric quantiser and its codes before clipping, one value at a time.
fn symmetric(x: &[f32], bits: u32, clip: Clip) -> (f32, f32, Vec<f32>) {
    let q = ((1 << (bits - 1)) - 1) as f32;
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let low = x.iter().copied().fold(f32::INFINITY, f32::min);
    let scale = (clip.max * high).max(-clip.min * low).max(AMPLITUDE_FLOOR) / q;
    (q, scale, x.iter().map(|x| (x / scale).round_ties_even()).collect())
}

fn symmetric_values(x: &[f32], bits: u32, clip: Clip) -> Vec<f32> {
    let (q, scale, codes) = symmetric(x, bits, clip);
    codes.iter().map(|c| c.clamp(-q - 1.0, q) * scale).collect()
}

/// dx, dclip_max, dclip_min.
fn symmetric_grad(dy: &[f32], x: &[f32], bits: u32, clip: Clip) -> (Vec<f64>, f64, f64) {
    let (q, scale, codes) = symmetric(x, bits, clip);
    let (mut dx, mut of_scale) = (vec![0.0; x.len()], 0.0);
    for i in 0..x.len() {
        let code = codes[i].clamp(-q - 1.0, q);
        let inside = code == codes[i];
        let quotient = if inside { f64::from(x[i]) / f64::from(scale) } else { 0.0 };
        dx[i] = if inside { f64::from(dy[i]) } else { 0.0 };
        of_scale += f64::from(dy[i]) * (f64::from(code) - quotient);
    }
    let of_amplitude = of_scale / f64::from(q);
    let extreme = |f: fn(f32, f32) -> bool| {
        (0..x.len()).fold(0, |best, i| if f(x[i], x[best]) { i } else { best })
    };
    let (high, low) = (extreme(|a, b| a > b), extreme(|a, b| a < b));
    let (from_high, from_low) = (clip.max * x[high], -clip.min * x[low]);
    if from_high.max(from_low) <= AMPLITUDE_FLOOR {
        return (dx, 0.0, 0.0);
    }
    if from_high >= from_low {
        dx[high] += of_amplitude * f64::from(clip.max);
        return (dx, of_amplitude * f64::from(x[high]), 0.0);
    }
    dx[low] -= of_amplitude * f64::from(clip.min);
    (dx, 0.0, -of_amplitude * f64::from(x[low]))
}

/// Values with rows of zeros, of one sign, and with repeated extremes among them.
fn values(random: &mut Random, m: usize, n: usize) -> Vec<f32> {
    let mut x = random.floats(m * n);
    for (i, row) in x.chunks_mut(n.max(1)).enumerate() {
        match i % 6 {
            1 => row.fill(0.0),
            2 => row.iter_mut().for_each(|v| *v = v.abs()),
            3 => row.iter_mut().for_each(|v| *v = -v.abs() - 0.1),
            4 => (row[0], row[n - 1]) = (1.5, 1.5),
            _ => {}
        }
    }
    x
}

fn assert_equal(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g == w, "{what}: [{i}] is {g}, not {w}");
    }
}

const CLIP: Clip = Clip { min: 0.9, max: 0.7 };

#[test]
fn rows_and_their_gradients() {
    let mut random = Random::new(51);
    for (m, n) in [(0, 4), (7, 1), (9, 3), (13, 16), (8, 37), (6, 100), (20, 576), (3, 9000)] {
        let (x, dy) = (values(&mut random, m, n), random.floats(m * n));
        for bits in [4, 8] {
            let spec = QuantSpec { bits, clip_min: CLIP.min, clip_max: CLIP.max };
            let values: Vec<f32> =
                x.chunks(n).flat_map(|row| symmetric_values(row, bits, CLIP)).collect();
            let rows = dy.chunks(n).zip(x.chunks(n));
            let grads: Vec<_> = rows.map(|(dy, x)| symmetric_grad(dy, x, bits, CLIP)).collect();
            let dx: Vec<f64> = grads.iter().flat_map(|g| g.0.clone()).collect();
            let of_clip: Vec<f64> =
                vec![grads.iter().map(|g| g.1).sum(), grads.iter().map(|g| g.2).sum()];
            for isa in isas() {
                let what = format!("{isa:?} {m} {n} {bits}");
                let (mut y, mut got) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                fake_quantize_rows(pool(), isa, &x, n, spec, &mut y);
                assert_equal(&y, &values, &what);
                let clip = fake_quantize_rows_grad(pool(), isa, &dy, &x, n, spec, &mut got);
                assert_close(&got, &dx, 1e-4, &what);
                assert_close(&[clip.max, clip.min], &of_clip, 1e-3, &what);
            }
        }
    }
}

#[test]
fn rows_are_the_codes_of_quantize_rows() {
    let mut random = Random::new(52);
    let (m, n) = (11, 150);
    let x = values(&mut random, m, n);
    for isa in isas() {
        let spec = QuantSpec { bits: 4, clip_min: CLIP.min, clip_max: CLIP.max };
        let (mut codes, mut scales, mut y) = (vec![0; m * n], vec![0.0; m], vec![0.0; m * n]);
        quantize_rows(pool(), isa, &x, n, spec, &mut codes, &mut scales);
        fake_quantize_rows(pool(), isa, &x, n, spec, &mut y);
        let want: Vec<f32> = (0..m * n).map(|i| f32::from(codes[i]) * scales[i / n]).collect();
        assert_equal(&y, &want, &format!("{isa:?}"));
    }
}

/// The groups of rows that share scales, as columns one after another.
fn gathered(w: &[f32], n: usize, block: usize) -> Vec<Vec<f32>> {
    let groups = w.chunks(block * n);
    groups.flat_map(|g| (0..n).map(|j| g.iter().skip(j).step_by(n).copied().collect())).collect()
}

fn scattered<T: Copy + Default>(columns: &[Vec<T>], n: usize, block: usize) -> Vec<T> {
    let mut w = vec![T::default(); columns.len() * block];
    for (g, column) in columns.iter().enumerate() {
        for (row, v) in column.iter().enumerate() {
            w[(g / n * block + row) * n + g % n] = *v;
        }
    }
    w
}

#[test]
fn columns_and_their_gradients() {
    let mut random = Random::new(53);
    let shapes = [(1, 1, 0), (5, 3, 0), (64, 33, 16), (30, 200, 10), (257, 70, 0), (12, 1100, 4)];
    for (k, n, block) in shapes {
        let rows = if block == 0 { k } else { block };
        let turned = values(&mut random, n, k);
        let w: Vec<f32> = (0..k * n).map(|i| turned[i % n * k + i / n]).collect();
        let dy = random.floats(k * n);
        let n_clips = k / rows * n;
        let factors = |random: &mut Random| -> Vec<f32> {
            (0..n_clips).map(|_| 0.75 + 0.25 * random.unit()).collect()
        };
        let (max, min) = (factors(&mut random), factors(&mut random));
        let clip = |g: usize| Clip { min: min[g], max: max[g] };
        for bits in [2, 3, 4, 8] {
            let columns = gathered(&w, n, rows);
            let values: Vec<Vec<f32>> = columns
                .iter()
                .enumerate()
                .map(|(g, x)| symmetric_values(x, bits, clip(g)))
                .collect();
            let of_y = gathered(&dy, n, rows);
            let grads: Vec<_> = (0..n_clips)
                .map(|g| symmetric_grad(&of_y[g], &columns[g], bits, clip(g)))
                .collect();
            let dx: Vec<Vec<f64>> = grads.iter().map(|g| g.0.clone()).collect();
            for isa in isas() {
                let what = format!("{isa:?} {k} {n} {block} {bits}");
                let spec = ColumnSpec { n, block, bits };
                let clips = ColumnClips { max: &max, min: &min };
                let mut y = vec![f32::NAN; k * n];
                fake_quantize_columns(pool(), isa, &w, spec, clips, &mut y);
                assert_equal(&y, &scattered(&values, n, rows), &what);
                let mut got =
                    [vec![f32::NAN; k * n], vec![f32::NAN; n_clips], vec![f32::NAN; n_clips]];
                let [dw, of_max, of_min] = &mut got;
                let of_clips = ColumnClipsMut { max: of_max, min: of_min };
                fake_quantize_columns_grad(pool(), isa, &dy, &w, spec, clips, dw, of_clips);
                assert_close(&got[0], &scattered(&dx, n, rows), 1e-4, &what);
                let of_max: Vec<f64> = grads.iter().map(|g| g.1).collect();
                let of_min: Vec<f64> = grads.iter().map(|g| g.2).collect();
                assert_close(&got[1], &of_max, 1e-4, &what);
                assert_close(&got[2], &of_min, 1e-4, &what);
            }
        }
    }
}

/// y, dx, dclip_max, dclip_min of one head.
fn asymmetric(dy: &[f32], x: &[f32], bits: u32, clip: Clip) -> (Vec<f32>, Vec<f64>, f64, f64) {
    let q = ((1 << bits) - 1) as f32;
    let extreme = |f: fn(f32, f32) -> bool| {
        (0..x.len()).fold(0, |best, i| if f(x[i], x[best]) { i } else { best })
    };
    let (at_high, at_low) = (extreme(|a, b| a > b), extreme(|a, b| a < b));
    let (low, high) = (x[at_low] * clip.min, x[at_high] * clip.max);
    let scale = (high - low).max(1e-8) / q;
    let shift = -low / scale;
    let zero = shift.round_ties_even();
    let (mut y, mut dx, mut of_scale, mut of_low) = (Vec::new(), Vec::new(), 0.0, 0.0);
    for (x, dy) in x.iter().zip(dy) {
        let unclipped = (x / scale).round_ties_even() + zero;
        let code = unclipped.clamp(0.0, q);
        y.push((code - zero) * scale);
        let dy = f64::from(*dy);
        dx.push(if code == unclipped { dy } else { 0.0 });
        let moved = if code == unclipped { -x / scale } else { shift };
        of_scale += dy * (f64::from(code - zero) + f64::from(moved));
        of_low += if code == unclipped { 0.0 } else { dy };
    }
    let of_high = if high - low > 1e-8 { of_scale / f64::from(q) } else { 0.0 };
    of_low -= of_high;
    dx[at_high] += of_high * f64::from(clip.max);
    dx[at_low] += of_low * f64::from(clip.min);
    (y, dx, of_high * f64::from(x[at_high]), of_low * f64::from(x[at_low]))
}

#[test]
fn heads_and_their_gradients() {
    let mut random = Random::new(54);
    for (heads, d) in [(0, 8), (5, 1), (12, 3), (9, 16), (24, 64), (7, 80), (6, 100), (300, 64)] {
        let (x, dy) = (values(&mut random, heads, d), random.floats(heads * d));
        for bits in [4, 8] {
            let rows = dy.chunks(d).zip(x.chunks(d));
            let want: Vec<_> = rows.map(|(dy, x)| asymmetric(dy, x, bits, CLIP)).collect();
            let y: Vec<f32> = want.iter().flat_map(|w| w.0.clone()).collect();
            let dx: Vec<f64> = want.iter().flat_map(|w| w.1.clone()).collect();
            let of_clip =
                vec![want.iter().map(|w| w.2).sum::<f64>(), want.iter().map(|w| w.3).sum()];
            for isa in isas() {
                let what = format!("{isa:?} {heads} {d} {bits}");
                let (mut got, mut of_x) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                quantize_dequantize_heads(pool(), isa, &x, 1, d, bits, CLIP, &mut got);
                assert_equal(&got, &y, &what);
                let clip = fake_quantize_heads_grad(pool(), isa, &dy, &x, d, bits, CLIP, &mut of_x);
                assert_close(&of_x, &dx, 1e-4, &what);
                assert_close(&[clip.max, clip.min], &of_clip, 1e-3, &what);
            }
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let mut random = Random::new(55);
    let (m, n) = (100, 576);
    let (x, dy) = (random.floats(m * n), random.floats(m * n));
    let spec = QuantSpec { bits: 4, clip_min: 0.8, clip_max: 0.8 };
    let (clips, columns) = (vec![0.8; n], ColumnSpec { n, block: 0, bits: 4 });
    let results: Vec<_> = [1, 2, 3]
        .map(|threads| {
            let (pool, isa) = (ThreadPool::new(threads), Isa::best());
            let mut got = [vec![0.0; m * n], vec![0.0; m * n], vec![0.0; m * n]];
            let (mut max, mut min) = (vec![0.0; n], vec![0.0; n]);
            let rows = fake_quantize_rows_grad(&pool, isa, &dy, &x, n, spec, &mut got[0]);
            let heads = fake_quantize_heads_grad(&pool, isa, &dy, &x, 64, 4, CLIP, &mut got[1]);
            let of_clips = ColumnClipsMut { max: &mut max, min: &mut min };
            let clips = ColumnClips { max: &clips, min: &clips };
            fake_quantize_columns_grad(&pool, isa, &dy, &x, columns, clips, &mut got[2], of_clips);
            (rows, heads, got, max, min)
        })
        .into();
    assert!(results[0].0.max != 0.0 && results[0].0.min != 0.0);
    assert!(results.iter().all(|r| r == &results[0]));
}
