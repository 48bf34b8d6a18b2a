//! Tests of what comes before attention, against plain loops.

use std::sync::Arc;

use super::tests::{
    Case, INT4, INT8, assert_near, check_rows, download, poisoned, random, read_row, rounded,
    upload,
};
use super::{CacheFormat, KvCache, KvShape, Prepare, Queries, Rotation};
use crate::testing::{gpu, random_f32};
use crate::{Element, Gpu};

const Q_HEADS: usize = 6;
const KV_HEADS: usize = 2;
const BATCH: usize = 2;

/// What is prepared.
#[derive(Debug, Clone, Copy)]
struct Setting {
    element: Element,
    format: CacheFormat,
    head_dim: usize,
    /// Channels that are rotated.
    dim: usize,
    interleaved: bool,
    angle: Element,
    /// Whether there are matrices on queries and keys.
    matrices: [bool; 2],
    new: usize,
}

/// By which products, and whether sequences have angles of their own.
#[derive(Debug, Clone, Copy)]
struct Way {
    wgmma: bool,
    per_sequence: bool,
}

const F16: Setting = Setting {
    element: Element::F16,
    format: INT4,
    head_dim: 128,
    dim: 128,
    interleaved: false,
    angle: Element::F32,
    matrices: [true; 2],
    new: 5,
};
const BF16: Setting = Setting { element: Element::BF16, angle: Element::BF16, ..F16 };
const F32: Setting = Setting { element: Element::F32, new: 4, ..F16 };
const ELEMENTS: CacheFormat = CacheFormat::Element;

impl Setting {
    const fn heads(self, head_dim: usize, dim: usize) -> Self {
        Self { head_dim, dim, ..self }
    }
    const fn cached(self, format: CacheFormat) -> Self {
        Self { format, ..self }
    }
    const fn multiplied(self, queries: bool, keys: bool) -> Self {
        Self { matrices: [queries, keys], ..self }
    }
    const fn tokens(self, new: usize) -> Self {
        Self { new, ..self }
    }
}

#[test]
fn few_rows_are_rotated_multiplied_and_written() {
    let Some(gpu) = gpu() else { return };
    let half_angles = Setting { angle: Element::F16, ..F16 };
    let neighbours = Setting { interleaved: true, ..half_angles };
    let settings = [
        F16.multiplied(false, false),
        half_angles,
        F16.cached(INT8).tokens(3),
        F16.heads(80, 32).cached(INT8).multiplied(false, true).tokens(9),
        F16.heads(80, 80).cached(ELEMENTS).tokens(9),
        half_angles.heads(24, 20).tokens(6),
        neighbours.heads(8, 4).tokens(6),
        F16.heads(256, 256).tokens(1),
        Setting { interleaved: true, ..BF16 }
            .heads(64, 64)
            .cached(ELEMENTS)
            .multiplied(false, false)
            .tokens(4),
        F32,
        F32.heads(40, 40).cached(ELEMENTS).multiplied(false, false),
    ];
    settings.iter().for_each(|setting| setting.check(&gpu));
}

#[test]
fn many_rows_are_rotated_multiplied_and_written() {
    let Some(gpu) = gpu() else { return };
    let half_angles = Setting { angle: Element::F16, ..F16 };
    let settings = [
        F16.tokens(701),
        half_angles.multiplied(false, false).tokens(702),
        F16.heads(64, 64).cached(INT8).multiplied(false, true).tokens(701),
        F16.cached(ELEMENTS).tokens(703),
        F16.heads(64, 64).cached(ELEMENTS).tokens(800),
        BF16.heads(64, 64).multiplied(true, false).tokens(705),
        Setting { interleaved: true, ..F16 }.heads(128, 64).tokens(700),
        F16.heads(80, 80).tokens(700),
    ];
    settings.iter().for_each(|setting| setting.check(&gpu));
}

impl Setting {
    fn shape(&self) -> KvShape {
        let &Self { element, format, head_dim, .. } = self;
        KvShape { batch: BATCH, kv_heads: KV_HEADS, head_dim, element, format }
    }

    fn check(&self, gpu: &Arc<Gpu>) {
        let inputs = Inputs::new(gpu, *self);
        inputs.check(Way { wgmma: false, per_sequence: true });
        inputs.check(Way { wgmma: gpu.properties().has_wgmma(), per_sequence: false });
    }

    /// Of what size errors may be, for values up to 1.
    fn tolerance(&self) -> f32 {
        match self.element {
            Element::F32 => 1e-6,
            Element::F16 => 1e-3,
            Element::BF16 => 8e-3,
        }
    }
}

/// What it is prepared from.
struct Inputs {
    setting: Setting,
    case: Case,
    queries: Vec<f32>,
    /// Cosines and sines of all sequences.
    angles: [Vec<f32>; 2],
    matrices: [Vec<f32>; 2],
}

impl Inputs {
    fn new(gpu: &Arc<Gpu>, setting: Setting) -> Self {
        let Setting { element, angle, head_dim, dim, new, .. } = setting;
        let random_as = |element, seed, n, size: f32| -> Vec<f32> {
            random_f32(seed, n).iter().map(|x| rounded(element, *x * size)).collect()
        };
        Self {
            setting,
            case: Case::new(gpu, setting.shape(), Q_HEADS, 0, new),
            queries: random(element, 3, BATCH * new * Q_HEADS * head_dim),
            angles: [4, 5].map(|seed| random_as(angle, seed, BATCH * new * dim / 2, 1.0)),
            matrices: [6, 7].map(|seed| random_as(element, seed, head_dim * head_dim, 0.3)),
        }
    }

    /// Queries as they come out, and a cache of `capacity` positions.
    fn run(&self, way: Way, capacity: usize) -> (Vec<f32>, KvCache) {
        let Setting { element, head_dim, dim, interleaved, angle, new, .. } = self.setting;
        let gpu = &self.case.gpu;
        let (_q, rows) = self.case.part(&self.queries, Q_HEADS * head_dim, 0..new);
        let (_k, keys) = self.case.part(&self.case.keys, KV_HEADS * head_dim, 0..new);
        let (_v, values) = self.case.part(&self.case.values, KV_HEADS * head_dim, 0..new);
        let [cos, sin] = [0, 1].map(|i| upload(gpu, angle, &self.angles[i]));
        let matrices = [0, 1].map(|i| upload(gpu, element, &self.matrices[i]));
        let matrix = |i: usize| self.setting.matrices[i].then(|| matrices[i].ptr());
        let past = gpu.upload(&[0i32]).unwrap();
        let out = poisoned(gpu, self.queries.len() * element.bytes());
        let cache = self.case.poisoned_cache(capacity);
        let what = Prepare {
            queries: Some(Queries { rows, heads: Q_HEADS, out: out.ptr() }),
            keys,
            values,
            rotation: Some(Rotation {
                cos: cos.ptr(),
                sin: sin.ptr(),
                element: angle,
                per_sequence: way.per_sequence,
                dim,
                interleaved,
            }),
            query_matrix: matrix(0),
            key_matrix: matrix(1),
            past: past.ptr(),
            new,
        };
        cache.prepare_by(gpu, &what, way.wgmma).unwrap();
        (download(gpu, element, out.ptr(), self.queries.len()), cache)
    }

    fn check(&self, way: Way) {
        let (setting, what) = (&self.setting, format!("{:?}, {way:?}", self.setting));
        let (queries, cache) = self.run(way, setting.new + 3);
        let expected = self.turned(&self.queries, Q_HEADS, 0, way);
        let size = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        let near = size * setting.tolerance();
        assert_near(&queries, &expected, near, &what);
        let ties = match (setting.format.has_codes(), setting.matrices[1]) {
            (true, false) => 0.0,
            (true, true) => 2e-3,
            (false, _) => f64::from(near),
        };
        check_rows(&self.case, &cache, |keys| self.turned(keys, KV_HEADS, 1, way), ties);
        if setting.new > 1 {
            self.check_without_room(way, &queries, &cache);
        }
    }

    /// The last position is dropped where the cache has no room for it: it does not become the next
    /// head's first.
    fn check_without_room(&self, way: Way, queries: &[f32], whole: &KvCache) {
        let (gpu, new) = (&self.case.gpu, self.setting.new);
        let (same_queries, cache) = self.run(way, new - 1);
        assert!(queries == same_queries, "{:?}, {way:?}", self.setting);
        for (b, head) in (0..BATCH).flat_map(|b| (0..KV_HEADS).map(move |head| (b, head))) {
            for (values, at) in [(false, 0), (false, new - 2), (true, 0), (true, new - 2)] {
                let row = |cache| read_row(gpu, cache, values, [b, head, at]);
                assert!(row(&cache) == row(whole), "{:?}, {way:?}, {b}, {head}", self.setting);
            }
        }
    }

    /// Heads rotated, and multiplied by the matrix of queries (0) or keys (1), if that has one.
    fn turned(&self, x: &[f32], heads: usize, kind: usize, way: Way) -> Vec<f32> {
        let d = self.setting.head_dim;
        let mut out = x.to_vec();
        for (row, head) in out.chunks_mut(d).enumerate() {
            self.rotate(head, row / heads, way);
            if self.setting.matrices[kind] {
                let matrix = &self.matrices[kind];
                let product = |n: usize| -> f64 {
                    (0..d).map(|k| f64::from(head[k]) * f64::from(matrix[k * d + n])).sum()
                };
                let product: Vec<f32> = (0..d).map(|n| product(n) as f32).collect();
                head.copy_from_slice(&product);
            }
        }
        out
    }

    /// Rotates a head of token `token` of all sequences.
    fn rotate(&self, head: &mut [f32], token: usize, way: Way) {
        let (half, new) = (self.setting.dim / 2, self.setting.new);
        let token = if way.per_sequence { token } else { token % new };
        let [cos, sin] = &self.angles;
        for i in 0..half {
            let (a, b) = match self.setting.interleaved {
                true => (2 * i, 2 * i + 1),
                false => (i, i + half),
            };
            let (x, y, c, s) = (head[a], head[b], cos[token * half + i], sin[token * half + i]);
            head[a] = c * x - s * y;
            head[b] = s * x + c * y;
        }
    }
}
