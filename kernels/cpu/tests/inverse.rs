//! Inverses, multiplied by what they are inverses of.

mod common;

use common::*;
use planish_cpu::*;

/// Fails unless x · y is the identity.
fn assert_inverse(x: &[f32], y: &[f32], n: usize, tolerance: f64, what: &str) {
    for i in 0..n {
        for j in 0..n {
            let products = (0..n).map(|k| f64::from(x[i * n + k]) * f64::from(y[k * n + j]));
            let error = products.sum::<f64>() - f64::from(u8::from(i == j));
            assert!(error.abs() <= tolerance, "{what}: [{i}, {j}] is off by {error}");
        }
    }
}

#[test]
fn of_every_size() {
    let mut random = Random::new(61);
    for n in [0, 1, 2, 3, 4, 5, 15, 16, 17, 33, 47, 48, 49, 64, 96, 97, 130, 200] {
        let x = random.floats(n * n);
        for isa in isas() {
            let mut y = vec![f32::NAN; n * n];
            inverse(pool(), isa, &x, n, &mut y).unwrap();
            assert_inverse(&x, &y, n, 2e-4, &format!("{isa:?} {n}"));
        }
    }
}

#[test]
fn rows_are_exchanged_where_the_diagonal_is_zero() {
    for n in [2, 7, 60, 100] {
        let mut x = vec![0.0; n * n];
        (0..n).for_each(|i| x[i * n + (i + 1) % n] = (i + 1) as f32);
        for isa in isas() {
            let mut y = vec![0.0; n * n];
            inverse(pool(), isa, &x, n, &mut y).unwrap();
            assert_inverse(&x, &y, n, 1e-6, &format!("{isa:?} {n}"));
        }
    }
}

#[test]
fn badly_scaled_rows_and_columns() {
    let n = 50;
    let mut random = Random::new(62);
    let base = random.floats(n * n);
    let x: Vec<f32> =
        base.iter().enumerate().map(|(i, v)| v * 10f32.powi((i % n % 7) as i32 * 4 - 12)).collect();
    for isa in isas() {
        let (mut y, mut plain) = (vec![0.0; n * n], vec![0.0; n * n]);
        inverse(pool(), isa, &x, n, &mut y).unwrap();
        inverse(pool(), isa, &base, n, &mut plain).unwrap();
        let rescaled: Vec<f32> = y
            .iter()
            .enumerate()
            .map(|(i, v)| v * 10f32.powi((i / n % 7) as i32 * 4 - 12))
            .collect();
        let want: Vec<f64> = plain.iter().map(|v| f64::from(*v)).collect();
        assert_close(&rescaled, &want, 1e-4, &format!("{isa:?}"));
    }
}

#[test]
fn singular_matrices_are_refused() {
    let n = 60;
    let mut random = Random::new(63);
    // Small integers, whose sums are exact.
    let mut x: Vec<f32> = random.codes(n * n, -7, 7).into_iter().map(f32::from).collect();
    let sum: Vec<f32> = (0..n).map(|j| x[j] + x[n + j]).collect();
    x[50 * n..51 * n].copy_from_slice(&sum);
    let mut with = |value| {
        let mut x = random.floats(n * n);
        x[7 * n + 3] = value;
        x
    };
    let cases = [x, vec![0.0; n * n], vec![1.0; n * n], with(f32::NAN), with(f32::INFINITY)];
    for (i, x) in cases.iter().enumerate() {
        for isa in isas() {
            let mut y = vec![0.0; n * n];
            assert_eq!(inverse(pool(), isa, x, n, &mut y), Err(Singular), "{isa:?} {i}");
        }
    }
}
