//! Integer weights in the tile layout of the integer kernels.

use crate::scratch::Line;

/// Columns of a tile.
pub(crate) const TILE_N: usize = 16;
/// Each scale group is padded to a multiple of this many rows of K.
pub(crate) const K_ALIGN: usize = 8;

/// Why weights could not be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackError {
    /// The code array does not hold K·N codes.
    Codes {
        /// Elements (bytes for packed INT4) that K·N codes take.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// The scale array does not hold one scale a group and column.
    Scales {
        /// Number of groups times N.
        expected: usize,
        /// Scales given.
        got: usize,
    },
    /// The group size is 0.
    Group,
}

impl std::fmt::Display for PackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Codes { expected, got } => {
                write!(f, "the weight codes take {expected} elements, but {got} were given")
            }
            Self::Scales { expected, got } => {
                write!(f, "the weight needs {expected} scales, but {got} were given")
            }
            Self::Group => write!(f, "the group size of a weight's scales is 0"),
        }
    }
}

impl std::error::Error for PackError {}

/// Order of the codes given to the packing functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// Row-major `[K, N]`, as the B input of ONNX MatMul.
    Kn,
    /// Row-major `[N, K]`, as the weight of ONNX Gemm with `transB` or of a linear layer.
    Nk,
}

/// Shape, order and scales of the weight to pack.
#[derive(Clone, Copy, Debug)]
pub struct WeightSpec<'a> {
    /// Depth: length of the sums.
    pub k: usize,
    /// Output columns.
    pub n: usize,
    /// Order of the codes.
    pub layout: WeightLayout,
    /// One scale a column, `[N]`, or a group of `group` rows and column, `[ceil(K/group), N]`.
    pub scales: &'a [f32],
    /// Rows of K that share a scale; `None` for all of K.
    pub group: Option<usize>,
}

/// A K x N matrix of 4- or 8-bit signed codes with f32 scales, w\[k, n\] = code·scale.
///
/// Layout: the columns are cut into panels of 16, and each panel into lines of 64 bytes in the
/// order of K. A line of 8-bit codes holds 4 rows of K for the 16 columns, byte 4·column + row; a
/// line of 4-bit codes holds 8 rows, the first four in the low nibbles, the next four in the high
/// ones. Codes are stored unsigned, plus 8 or plus 128. Each scale group is padded with codes of
/// 0 to a multiple of 8 rows, and N to a multiple of 16 columns.
#[derive(Clone)]
pub struct PackedWeights {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) bits: u32,
    /// Rows of K in a scale group (K when there is one group).
    pub(crate) group: usize,
    /// Rows of K in a group with the padding.
    pub(crate) group_padded: usize,
    pub(crate) n_groups: usize,
    pub(crate) lines: Vec<Line>,
    /// `[n_groups, padded N]`.
    pub(crate) scales: Vec<f32>,
}

impl std::fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (k, n, bits, groups) = (self.k, self.n, self.bits, self.n_groups);
        write!(f, "PackedWeights {{ k: {k}, n: {n}, bits: {bits}, n_groups: {groups} }}")
    }
}

impl PackedWeights {
    /// Packs 4-bit codes (−8..7), two a byte along the flat order of `spec.layout`, the first in
    /// the low nibble, as ONNX stores INT4.
    ///
    /// # Errors
    /// When the lengths do not fit the shape.
    pub fn pack_int4(packed: &[u8], spec: WeightSpec<'_>) -> Result<Self, PackError> {
        let expected = (spec.k * spec.n).div_ceil(2);
        if packed.len() != expected {
            return Err(PackError::Codes { expected, got: packed.len() });
        }
        let nibble = |i: usize| ((packed[i / 2] >> (4 * (i % 2))) << 4) as i8 >> 4;
        Self::from_fn(4, spec, |k, n| nibble(spec.position(k, n)))
    }

    /// Packs 8-bit codes.
    ///
    /// # Errors
    /// When the lengths do not fit the shape.
    pub fn pack_int8(codes: &[i8], spec: WeightSpec<'_>) -> Result<Self, PackError> {
        if codes.len() != spec.k * spec.n {
            return Err(PackError::Codes { expected: spec.k * spec.n, got: codes.len() });
        }
        Self::from_fn(8, spec, |k, n| codes[spec.position(k, n)])
    }

    /// Packs 4-bit codes given one a byte; bits above the low four are ignored.
    ///
    /// # Errors
    /// When the lengths do not fit the shape.
    pub fn pack_int4_bytes(codes: &[i8], spec: WeightSpec<'_>) -> Result<Self, PackError> {
        if codes.len() != spec.k * spec.n {
            return Err(PackError::Codes { expected: spec.k * spec.n, got: codes.len() });
        }
        Self::from_fn(4, spec, |k, n| codes[spec.position(k, n)])
    }

    fn from_fn(
        bits: u32,
        spec: WeightSpec<'_>,
        code: impl Fn(usize, usize) -> i8,
    ) -> Result<Self, PackError> {
        let mut packed = Self::zeros(bits, spec)?;
        for panel in 0..packed.n_panels() {
            for column in 0..TILE_N.min(spec.n - panel * TILE_N) {
                let n = panel * TILE_N + column;
                for k in 0..spec.k {
                    packed.set(k, n, code(k, n));
                }
            }
        }
        Ok(packed)
    }

    /// All codes 0, and the scales of `spec`.
    fn zeros(bits: u32, spec: WeightSpec<'_>) -> Result<Self, PackError> {
        let group = spec.group.unwrap_or(spec.k.max(1));
        if group == 0 {
            return Err(PackError::Group);
        }
        let group = group.min(spec.k.max(1));
        let n_groups = spec.k.div_ceil(group).max(1);
        if spec.scales.len() != n_groups * spec.n {
            return Err(PackError::Scales { expected: n_groups * spec.n, got: spec.scales.len() });
        }
        let n_padded = spec.n.next_multiple_of(TILE_N);
        let mut scales = vec![0.0; n_groups * n_padded];
        for g in 0..n_groups {
            scales[g * n_padded..][..spec.n].copy_from_slice(&spec.scales[g * spec.n..][..spec.n]);
        }
        let group_padded = group.next_multiple_of(K_ALIGN);
        let lines_per_panel = n_groups * group_padded * bits as usize / 32;
        let zero = Line([if bits == 4 { 0x88 } else { 0x80 }; 64]);
        let lines = vec![zero; lines_per_panel * n_padded / TILE_N];
        Ok(Self { k: spec.k, n: spec.n, bits, group, group_padded, n_groups, lines, scales })
    }

    /// The line, byte and high-nibble flag of a code.
    fn place(&self, k: usize, n: usize) -> (usize, usize, bool) {
        let padded = k / self.group * self.group_padded + k % self.group;
        let byte = 4 * (n % TILE_N) + padded % 4;
        let first = n / TILE_N * self.lines_per_panel();
        match self.bits {
            4 => (first + padded / 8, byte, padded % 8 >= 4),
            _ => (first + padded / 4, byte, false),
        }
    }

    fn set(&mut self, k: usize, n: usize, code: i8) {
        let (line, byte, high) = self.place(k, n);
        let slot = &mut self.lines[line].0[byte];
        let nibble = (code as u8 & 15) ^ 8;
        *slot = match (self.bits, high) {
            (4, false) => *slot & 0xF0 | nibble,
            (4, true) => *slot & 0x0F | nibble << 4,
            _ => code as u8 ^ 0x80,
        };
    }

    /// The code at row `k` and column `n`.
    ///
    /// # Panics
    /// When the position lies outside the matrix.
    pub fn code(&self, k: usize, n: usize) -> i8 {
        assert!(k < self.k && n < self.n, "weight position outside the matrix");
        let (line, byte, high) = self.place(k, n);
        let raw = self.lines[line].0[byte];
        match (self.bits, high) {
            (4, false) => (raw & 15) as i8 - 8,
            (4, true) => (raw >> 4) as i8 - 8,
            _ => (raw ^ 0x80) as i8,
        }
    }

    /// The scale that applies at row `k` and column `n`.
    ///
    /// # Panics
    /// When the position lies outside the matrix.
    pub fn scale(&self, k: usize, n: usize) -> f32 {
        assert!(k < self.k && n < self.n, "weight position outside the matrix");
        self.scales[k / self.group * self.n_padded() + n]
    }

    /// Depth K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns N.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bits of a code: 4 or 8.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Memory taken by codes and scales, in bytes.
    pub fn bytes(&self) -> usize {
        self.lines.len() * 64 + self.scales.len() * 4
    }

    /// What was added to each code: 8 or 128.
    pub(crate) fn offset(&self) -> i32 {
        if self.bits == 4 { 8 } else { 128 }
    }

    pub(crate) fn n_panels(&self) -> usize {
        self.n.div_ceil(TILE_N)
    }

    pub(crate) fn n_padded(&self) -> usize {
        self.n_panels() * TILE_N
    }

    /// K with the padding of every group.
    pub(crate) fn k_padded(&self) -> usize {
        self.n_groups * self.group_padded
    }

    pub(crate) fn lines_per_panel(&self) -> usize {
        self.k_padded() * self.bits as usize / 32
    }

    /// The bytes of one panel.
    pub(crate) fn panel(&self, panel: usize) -> &[Line] {
        &self.lines[panel * self.lines_per_panel()..][..self.lines_per_panel()]
    }
}

impl WeightSpec<'_> {
    fn position(&self, k: usize, n: usize) -> usize {
        match self.layout {
            WeightLayout::Kn => k * self.n + n,
            WeightLayout::Nk => n * self.k + k,
        }
    }
}
