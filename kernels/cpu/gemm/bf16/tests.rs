//! Every unit that this machine has, also where another one is preferred.

use super::{Unit, can_round, product};
use crate::mat::{MatMut, MatRef};
use crate::{Isa, ThreadPool, amx};

fn units() -> Vec<Unit> {
    let mut units = Vec::new();
    if Isa::detected() >= Isa::Avx512 && can_round() {
        units.push(Unit::Dots);
        if amx::has_bf16() {
            units.push(Unit::Tiles);
        }
    }
    units
}

/// Integers from −128 to 128, which bfloat16 holds.
fn integers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed) * 31 % 257) as f32 - 128.0).collect()
}

#[test]
fn units_sum_integers_exactly() {
    let pool = ThreadPool::new(2);
    for (m, k, n) in [(1, 1, 1), (16, 32, 32), (33, 65, 47), (100, 200, 70), (40, 900, 33)] {
        let (a, b, old) = (integers(m * k, 1), integers(k * n, 2), integers(m * n, 3));
        for (alpha, beta) in [(1.0, 0.0), (0.5, 2.0)] {
            let want: Vec<f32> = (0..m * n)
                .map(|i| {
                    let product = |k_: usize| a[i / n * k + k_] * b[k_ * n + i % n];
                    alpha * (0..k).map(product).sum::<f32>() + beta * old[i]
                })
                .collect();
            for unit in units() {
                let mut c = old.clone();
                let (a, b) = (MatRef::new(&a, m, k), MatRef::new(&b, k, n));
                product(&pool, unit, alpha, a, b, beta, MatMut::new(&mut c, m, n));
                assert!(c == want, "{unit:?} {m} {k} {n}");
            }
        }
    }
}
