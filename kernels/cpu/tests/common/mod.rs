//! Reproducible test data and comparisons.
#![allow(dead_code)]

use planish_cpu::{Isa, PackedWeights, ThreadPool, WeightLayout, WeightSpec};
use std::sync::OnceLock;

/// A small linear congruential generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)
    }

    pub fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// From −1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() % 2_000_001) as f32 / 1e6 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    pub fn codes(&mut self, n: usize, low: i32, high: i32) -> Vec<i8> {
        let span = (high - low + 1) as u32;
        (0..n).map(|_| (low + (self.next() % span) as i32) as i8).collect()
    }
}

/// One pool of two threads for all tests of a binary.
pub fn pool() -> &'static ThreadPool {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| ThreadPool::new(2))
}

pub fn isas() -> Vec<Isa> {
    Isa::available()
}

/// Fails unless all values are within `tolerance` of the wanted ones, relative to 1 or the value.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs();
        assert!(error <= tolerance * w.abs().max(1.0), "{what}: [{i}] is {g}, not {w}");
    }
}

pub fn pack(bits: u32, codes: &[i8], spec: WeightSpec<'_>) -> PackedWeights {
    if bits == 8 {
        return PackedWeights::pack_int8(codes, spec).unwrap();
    }
    let nibbles: Vec<u8> = codes
        .chunks(2)
        .map(|pair| (pair[0] as u8 & 15) | (pair.get(1).copied().unwrap_or(0) as u8) << 4)
        .collect();
    PackedWeights::pack_int4(&nibbles, spec).unwrap()
}

pub fn transposed(codes: &[i8], k: usize, n: usize) -> Vec<i8> {
    (0..n * k).map(|i| codes[i % k * n + i / k]).collect()
}

pub fn spec(k: usize, n: usize, scales: &[f32], group: Option<usize>) -> WeightSpec<'_> {
    WeightSpec { k, n, layout: WeightLayout::Kn, scales, group }
}
