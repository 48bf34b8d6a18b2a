//! For tests and benchmarks.

use std::sync::{Arc, OnceLock};

use crate::Gpu;

/// The GPU, shared by all tests of a process. Without one: `None` and a printed note, or, where
/// `PLANISH_REQUIRE_GPU` is set, a panic, so that no case is skipped unseen.
pub fn gpu() -> Option<Arc<Gpu>> {
    static GPU: OnceLock<Option<Arc<Gpu>>> = OnceLock::new();
    let open = || match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("PLANISH_REQUIRE_GPU").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    };
    GPU.get_or_init(open).clone()
}

/// Numbers from −1 to 1, the same for the same seed.
pub fn random_f32(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n).map(|_| (next(&mut state) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Signed integers of `bits` bits, all of the range.
pub fn random_codes(seed: u64, n: usize, bits: u32) -> Vec<i8> {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    let half = 1i64 << (bits - 1);
    (0..n).map(|_| ((next(&mut state) >> (64 - bits)) as i64 - half) as i8).collect()
}

/// xorshift64*.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}
