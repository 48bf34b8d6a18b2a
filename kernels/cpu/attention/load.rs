//! Vectors of cached keys and values, raw from each format.

use crate::kv::{BLOCK, GROUP, Store};
use crate::simd::Simd;

/// The f32 format of [`pair_of_keys`] and [`pair_of_values`]; the others go by their bits.
pub(super) const F32: u32 = 32;

/// Dimensions `d` (even) and `d` + 1 of the keys `key..key + LANES`, codes without scale or zero.
///
/// # Safety
/// The store has that format and those keys; `key` is a multiple of `LANES`.
#[inline(always)]
pub(super) unsafe fn pair_of_keys<S: Simd, const BITS: u32>(
    store: &Store,
    key: usize,
    d: usize,
) -> (S::F, S::F) {
    let first = key / BLOCK * BLOCK * store.padded + key % BLOCK;
    // SAFETY: the caller's promise.
    unsafe {
        match BITS {
            4 => {
                let block = key / BLOCK * BLOCK * store.padded / 2;
                S::load_nibbles(store.codes.as_ptr().add(block + d / 2 * BLOCK + key % BLOCK))
            }
            8 => {
                let p = store.codes.as_ptr().add(first + d * BLOCK);
                (S::load_u8(p), S::load_u8(p.add(BLOCK)))
            }
            _ => {
                let p = store.floats.as_ptr().add(first + d * BLOCK);
                (S::load(p), S::load(p.add(BLOCK)))
            }
        }
    }
}

/// Dimensions `d..d + LANES` and the same plus 16 of value row `key`, codes without scale or zero.
///
/// # Safety
/// The store has that format and that row; `d` is a multiple of `LANES` and in the first half of
/// its 32 dimensions.
#[inline(always)]
pub(super) unsafe fn pair_of_values<S: Simd, const BITS: u32>(
    store: &Store,
    key: usize,
    d: usize,
) -> (S::F, S::F) {
    // SAFETY: the caller's promise.
    unsafe {
        match BITS {
            4 => {
                let byte = d / GROUP * (GROUP / 2) + d % GROUP;
                S::load_nibbles(store.codes.as_ptr().add(key * store.padded / 2 + byte))
            }
            8 => {
                let p = store.codes.as_ptr().add(key * store.padded + d);
                (S::load_u8(p), S::load_u8(p.add(GROUP / 2)))
            }
            _ => {
                let p = store.floats.as_ptr().add(key * store.padded + d);
                (S::load(p), S::load(p.add(GROUP / 2)))
            }
        }
    }
}
