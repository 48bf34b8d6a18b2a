//! Keys or values of one head, in the layout that attention reads.

use super::quant::quantize_head;
use super::{Clip, KvFormat};
use crate::Isa;

/// Tokens whose keys lie together, dimension by dimension.
pub(crate) const BLOCK: usize = 16;
/// Dimensions of a value row whose 4-bit codes share bytes: the first half in the low nibbles.
pub(crate) const GROUP: usize = 32;

/// The elements of one head.
///
/// Keys lie in blocks of 16 tokens, `[block, dim, 16]`, so that scores need no sums across lanes;
/// the 4-bit codes of dimensions 2i and 2i + 1 share bytes. Values lie row by row, `[token, dim]`,
/// padded to a multiple of 32; within each 32 the codes of i and i + 16 share bytes.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    is_keys: bool,
    /// Dimensions with the padding.
    pub(crate) padded: usize,
    pub(crate) bits: u32,
    clip: Clip,
    /// Codes of the integer formats.
    pub(crate) codes: Vec<u8>,
    /// Elements of the f32 format.
    pub(crate) floats: Vec<f32>,
    /// Scales and zero points of the integer formats, whole blocks of tokens.
    pub(crate) scales: Vec<f32>,
    pub(crate) zeros: Vec<f32>,
    scratch: Vec<u8>,
}

impl Store {
    pub(super) fn keys(dim: usize, format: KvFormat) -> Self {
        Self::new(true, dim.next_multiple_of(2), format)
    }

    pub(super) fn values(dim: usize, format: KvFormat) -> Self {
        Self::new(false, dim.next_multiple_of(GROUP), format)
    }

    fn new(is_keys: bool, padded: usize, format: KvFormat) -> Self {
        let (bits, clip) = match format {
            KvFormat::F32 => (32, Clip::default()),
            KvFormat::Int8(clip) => (8, clip),
            KvFormat::Int4(clip) => (4, clip),
        };
        Self {
            is_keys,
            padded,
            bits,
            clip,
            codes: Vec::new(),
            floats: Vec::new(),
            scales: Vec::new(),
            zeros: Vec::new(),
            scratch: vec![0; padded],
        }
    }

    /// Memory of the first `tokens` tokens.
    pub(super) fn bytes(&self, tokens: usize) -> usize {
        let scales = if self.bits == 32 { 0 } else { 8 * tokens };
        tokens * self.padded * self.bits as usize / 8 + scales
    }

    /// Makes room for `tokens` tokens.
    pub(super) fn reserve(&mut self, tokens: usize) {
        let tokens = tokens.next_multiple_of(BLOCK);
        let grow = |v: &mut Vec<f32>, len: usize| v.resize(v.len().max(len), 0.0);
        if self.bits == 32 {
            grow(&mut self.floats, tokens * self.padded);
        } else {
            let len = tokens * self.padded * self.bits as usize / 8;
            self.codes.resize(self.codes.len().max(len), 0);
            grow(&mut self.scales, tokens);
            grow(&mut self.zeros, tokens);
        }
    }

    /// The index of an element, counted in elements (for 4 bits, of the byte, and whether the
    /// element is its high nibble).
    fn place(&self, token: usize, d: usize) -> (usize, bool) {
        match (self.is_keys, self.bits) {
            (true, 4) => {
                let first = token / BLOCK * BLOCK * self.padded / 2;
                (first + d / 2 * BLOCK + token % BLOCK, d % 2 == 1)
            }
            (true, _) => (token / BLOCK * BLOCK * self.padded + d * BLOCK + token % BLOCK, false),
            (false, 4) => {
                let half = GROUP / 2;
                (token * self.padded / 2 + d / GROUP * half + d % half, d % GROUP >= half)
            }
            (false, _) => (token * self.padded + d, false),
        }
    }

    /// Stores one token's values.
    pub(super) fn put(&mut self, isa: Isa, token: usize, x: &[f32]) {
        if self.bits == 32 {
            for (d, &x) in x.iter().enumerate() {
                let (at, _) = self.place(token, d);
                self.floats[at] = x;
            }
            return;
        }
        let mut codes = std::mem::take(&mut self.scratch);
        let (scale, zero) = quantize_head(isa, x, self.bits, self.clip, &mut codes);
        (self.scales[token], self.zeros[token]) = (scale, zero);
        match (self.bits, self.is_keys) {
            (8, _) => {
                for (d, &code) in codes.iter().enumerate() {
                    let (at, _) = self.place(token, d);
                    self.codes[at] = code;
                }
            }
            (_, true) => {
                for (d, pair) in codes.as_chunks::<2>().0.iter().enumerate() {
                    let (at, _) = self.place(token, 2 * d);
                    self.codes[at] = pair[0] | pair[1] << 4;
                }
            }
            (_, false) => {
                let row = &mut self.codes[token * self.padded / 2..][..self.padded / 2];
                let groups = codes.as_chunks::<GROUP>().0;
                for (bytes, group) in row.chunks_exact_mut(GROUP / 2).zip(groups) {
                    let (low, high) = group.split_at(GROUP / 2);
                    for ((byte, l), h) in bytes.iter_mut().zip(low).zip(high) {
                        *byte = l | h << 4;
                    }
                }
            }
        }
        self.scratch = codes;
    }

    /// Reads one token's values back.
    pub(super) fn get(&self, token: usize, out: &mut [f32]) {
        for (d, y) in out.iter_mut().enumerate() {
            let (at, high) = self.place(token, d);
            *y = match self.bits {
                32 => self.floats[at],
                8 => self.dequantize(token, self.codes[at]),
                _ if high => self.dequantize(token, self.codes[at] >> 4),
                _ => self.dequantize(token, self.codes[at] & 15),
            };
        }
    }

    fn dequantize(&self, token: usize, code: u8) -> f32 {
        (f32::from(code) - self.zeros[token]) * self.scales[token]
    }
}
