//! The key/value cache of one layer and one sequence.

mod quant;
mod store;

pub(crate) use quant::Grid;
pub use quant::{Clip, quantize_dequantize_heads};
pub(crate) use store::{BLOCK, GROUP, Store};

use crate::Isa;
use crate::pool::ThreadPool;
use crate::shared::SharedMut;

/// Rows times heads below which one thread appends.
const MIN_ROWS: usize = 32;

/// How the elements of keys or values are kept.
///
/// The integer formats are asymmetric, with one scale and zero point a token and head. With
/// q = 2^bits − 1, low = min(x)·clip.min and high = max(x)·clip.max over the head's values:
/// scale = max(high − low, 1e-8) / q, zero = round(−low / scale),
/// code = clip(round(x / scale) + zero, 0, q), and the value read back is (code − zero)·scale.
/// All steps are f32, divisions are IEEE ones, and halves round to even.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvFormat {
    /// As given.
    F32,
    /// 8-bit codes.
    Int8(Clip),
    /// 4-bit codes.
    Int4(Clip),
}

/// Shape and formats of a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvSpec {
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Format of the keys.
    pub keys: KvFormat,
    /// Format of the values.
    pub values: KvFormat,
}

/// Keys and values of the tokens of one sequence in one layer; memory grows by doubling.
#[derive(Clone, Debug)]
pub struct KvCache {
    spec: KvSpec,
    len: usize,
    /// Keys of head 0, values of head 0, keys of head 1, and so on.
    stores: Vec<Store>,
}

impl KvCache {
    /// An empty cache.
    pub fn new(spec: KvSpec) -> Self {
        let pair = |_| {
            let keys = Store::keys(spec.head_dim, spec.keys);
            [keys, Store::values(spec.head_dim, spec.values)]
        };
        Self { spec, len: 0, stores: (0..spec.n_kv_heads).flat_map(pair).collect() }
    }

    /// The shape and formats.
    pub fn spec(&self) -> KvSpec {
        self.spec
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps the first `len` tokens; no effect when there are no more than that.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets all tokens and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Memory that the tokens held take, codes and scales, in bytes.
    pub fn bytes_used(&self) -> usize {
        self.stores.iter().map(|s| s.bytes(self.len)).sum()
    }

    /// Appends rows of keys and values, each `[t, n_kv_heads·head_dim]`.
    ///
    /// # Panics
    /// When the lengths differ or are no whole number of rows.
    pub fn append(&mut self, pool: &ThreadPool, isa: Isa, keys: &[f32], values: &[f32]) {
        let width = self.spec.n_kv_heads * self.spec.head_dim;
        let tokens = if width == 0 { 0 } else { keys.len() / width };
        assert!(keys.len() == tokens * width && values.len() == keys.len(), "kv row lengths");
        let (first, dim) = (self.len, self.spec.head_dim);
        let n_stores = self.stores.len();
        let stores = SharedMut::new(&mut self.stores);
        let chunk = MIN_ROWS.div_ceil(tokens.max(1)).max(1);
        pool.for_each_dynamic(n_stores, chunk, |indices| {
            for i in indices {
                // SAFETY: each store is visited once.
                let store = &mut unsafe { stores.part(i..i + 1) }[0];
                let rows = if i % 2 == 0 { keys } else { values };
                store.reserve(first + tokens);
                for t in 0..tokens {
                    let head = &rows[t * width + i / 2 * dim..][..dim];
                    store.put(isa, first + t, head);
                }
            }
        });
        self.len += tokens;
    }

    /// Writes the tokens of `range` as attention sees them to `keys` and `values`, each
    /// `[range.len(), n_kv_heads·head_dim]`.
    ///
    /// # Panics
    /// When the range lies outside the cache or the lengths disagree.
    pub fn read_dequantized(
        &self,
        range: std::ops::Range<usize>,
        keys: &mut [f32],
        values: &mut [f32],
    ) {
        let dim = self.spec.head_dim;
        let width = self.spec.n_kv_heads * dim;
        assert!(range.start <= range.end && range.end <= self.len, "kv range");
        assert!(keys.len() == range.len() * width && values.len() == keys.len(), "kv row lengths");
        for (i, store) in self.stores.iter().enumerate() {
            let rows = if i % 2 == 0 { &mut *keys } else { &mut *values };
            for (row, token) in range.clone().enumerate() {
                store.get(token, &mut rows[row * width + i / 2 * dim..][..dim]);
            }
        }
    }

    pub(crate) fn head_keys(&self, head: usize) -> &Store {
        &self.stores[2 * head]
    }

    pub(crate) fn head_values(&self, head: usize) -> &Store {
        &self.stores[2 * head + 1]
    }
}
