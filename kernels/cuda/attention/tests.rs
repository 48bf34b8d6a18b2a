//! Tests of attention against plain loops.

use std::sync::Arc;

use half::{bf16, f16};

use super::{Attend, CacheFormat, Clip, KvCache, KvShape, PadMask, Rows};
use crate::testing::{gpu, random_f32};
use crate::{DeviceBuffer, DevicePtr, Element, Gpu};

const CLIPS: [Clip; 2] = [Clip { min: 0.9, max: 1.0 }, Clip { min: 1.0, max: 0.95 }];
pub(super) const INT4: CacheFormat = CacheFormat::Int4 { keys: CLIPS[0], values: CLIPS[1] };
pub(super) const INT8: CacheFormat = CacheFormat::Int8 { keys: CLIPS[0], values: CLIPS[1] };
pub(super) const FORMATS: [CacheFormat; 3] = [CacheFormat::Element, INT8, INT4];

/// As the element stores it.
pub(super) fn rounded(element: Element, x: f32) -> f32 {
    match element {
        Element::F32 => x,
        Element::F16 => f16::from_f32(x).to_f32(),
        Element::BF16 => bf16::from_f32(x).to_f32(),
    }
}

pub(super) fn upload(gpu: &Gpu, element: Element, data: &[f32]) -> DeviceBuffer {
    match element {
        Element::F32 => gpu.upload(data),
        Element::F16 => gpu.upload(&bits(data, |x| f16::from_f32(x).to_bits())),
        Element::BF16 => gpu.upload(&bits(data, |x| bf16::from_f32(x).to_bits())),
    }
    .unwrap()
}

fn bits(data: &[f32], to: impl Fn(f32) -> u16) -> Vec<u16> {
    data.iter().map(|x| to(*x)).collect()
}

pub(super) fn download(gpu: &Gpu, element: Element, at: DevicePtr, n: usize) -> Vec<f32> {
    let words = || gpu.download::<u16>(at, n).unwrap().into_iter();
    match element {
        Element::F32 => gpu.download(at, n).unwrap(),
        Element::F16 => words().map(|x| f16::from_bits(x).to_f32()).collect(),
        Element::BF16 => words().map(|x| bf16::from_bits(x).to_f32()).collect(),
    }
}

/// Memory of NaNs.
pub(super) fn poisoned(gpu: &Gpu, n_bytes: usize) -> DeviceBuffer {
    gpu.upload(&vec![0xffu8; n_bytes]).unwrap()
}

/// Random rows of the element, with an offset so that heads are not symmetric.
pub(super) fn random(element: Element, seed: u64, n: usize) -> Vec<f32> {
    random_f32(seed, n).into_iter().map(|x| rounded(element, 1.5 * x * x * x + 0.2)).collect()
}

/// Codes, scale and zero point of a head.
fn quantised(head: &[f32], n_bits: usize, clip: Clip) -> (Vec<u8>, f32, f32) {
    let q = ((1 << n_bits) - 1) as f32;
    let low = head.iter().copied().fold(f32::INFINITY, f32::min) * clip.min;
    let high = head.iter().copied().fold(f32::NEG_INFINITY, f32::max) * clip.max;
    let scale = (high - low).max(1e-8) / q;
    let zero = (-low / scale).round_ties_even();
    let code = |x: &f32| ((x / scale).round_ties_even() + zero).clamp(0.0, q) as u8;
    (head.iter().map(code).collect(), scale, zero)
}

/// What the cache gives back of rows of heads.
fn cached(rows: &[f32], shape: &KvShape, clip: Clip) -> Vec<f32> {
    if !shape.format.has_codes() {
        return rows.to_vec();
    }
    let n_bits = shape.format.bits(shape.element);
    let heads = rows.chunks(shape.head_dim).flat_map(|head| {
        let (codes, scale, zero) = quantised(head, n_bits, clip);
        codes.into_iter().map(move |c| (f32::from(c) - zero) * scale)
    });
    heads.collect()
}

/// The cache's row of a token, read back: codes or elements, scale, zero point.
pub(super) fn read_row(
    gpu: &Gpu,
    cache: &KvCache,
    values: bool,
    at: [usize; 3],
) -> (Vec<f32>, [f32; 2]) {
    let (shape, store) = (cache.shape(), &cache.stores[usize::from(values)]);
    let index = (at[0] * shape.kv_heads + at[1]) * cache.capacity() + at[2];
    let n_bytes = shape.row_bytes();
    let from = store.rows.ptr().offset(index * n_bytes);
    let parameters = store.parameters().map_or([1.0, 0.0], |p| {
        let p: Vec<f32> = gpu.download(p.offset(8 * index), 2).unwrap();
        [p[0], p[1]]
    });
    let n_bits = shape.format.bits(shape.element);
    if n_bits > 8 {
        return (download(gpu, shape.element, from, shape.head_dim), parameters);
    }
    let bytes: Vec<u8> = gpu.download(from, n_bytes).unwrap();
    let code = |c: usize| match n_bits {
        8 => bytes[c],
        _ => {
            let nibble = c % 8 / 2 + c % 2 * 4;
            bytes[c / 8 * 4 + nibble / 2] >> (nibble % 2 * 4) & 15
        }
    };
    ((0..shape.head_dim).map(|c| f32::from(code(c))).collect(), parameters)
}

/// A layer's case: sizes, and keys and values of all positions.
pub(super) struct Case {
    pub gpu: Arc<Gpu>,
    pub shape: KvShape,
    pub q_heads: usize,
    pub past: usize,
    pub new: usize,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

/// How attention is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub scale: f32,
    pub softcap: f32,
    pub causal: bool,
    pub window: usize,
    pub padded: bool,
}

pub(super) const PLAIN: Way =
    Way { scale: 0.3, softcap: 0.0, causal: true, window: 0, padded: false };

impl Case {
    pub fn new(gpu: &Arc<Gpu>, shape: KvShape, q_heads: usize, past: usize, new: usize) -> Self {
        let n = shape.batch * (past + new) * shape.kv_heads * shape.head_dim;
        let [keys, values] = [1, 2].map(|seed| random(shape.element, seed, n));
        Self { gpu: gpu.clone(), shape, q_heads, past, new, keys, values }
    }

    pub fn total(&self) -> usize {
        self.past + self.new
    }

    /// Positions `range` of all sequences, in rows with a gap, as part of a wider tensor.
    pub fn part(
        &self,
        data: &[f32],
        width: usize,
        range: std::ops::Range<usize>,
    ) -> (DeviceBuffer, Rows) {
        let stride = width + 16;
        let total = data.len() / width / self.shape.batch;
        let rows = (0..self.shape.batch).flat_map(|b| range.clone().map(move |i| b * total + i));
        let with_gap: Vec<f32> = rows
            .flat_map(|row| {
                let gap = std::iter::repeat_n(f32::NAN, 8);
                gap.clone().chain(data[row * width..][..width].iter().copied()).chain(gap)
            })
            .collect();
        let buffer = upload(&self.gpu, self.shape.element, &with_gap);
        let at = buffer.ptr().offset(8 * self.shape.element.bytes());
        (buffer, Rows { at, stride })
    }

    pub fn append(&self, cache: &KvCache, range: std::ops::Range<usize>) {
        let width = self.shape.kv_heads * self.shape.head_dim;
        let (_k, keys) = self.part(&self.keys, width, range.clone());
        let (_v, values) = self.part(&self.values, width, range.clone());
        let past = self.gpu.upload(&[range.start as i32]).unwrap();
        cache.append(&self.gpu, keys, values, past.ptr(), range.len()).unwrap();
        self.gpu.synchronize().unwrap();
    }

    /// A cache with all positions, written in two steps.
    fn cache(&self, capacity: usize) -> KvCache {
        let cache = self.poisoned_cache(capacity);
        self.append(&cache, 0..self.past);
        self.append(&cache, self.past..self.total());
        cache
    }

    /// A cache of NaNs.
    pub fn poisoned_cache(&self, capacity: usize) -> KvCache {
        let cache = KvCache::new(&self.gpu, self.shape, capacity).unwrap();
        for store in &cache.stores {
            let poison = poisoned(&self.gpu, store.rows.len());
            self.gpu.copy(poison.ptr(), store.rows.ptr(), poison.len()).unwrap();
            if let Some(p) = &store.parameters {
                let poison = poisoned(&self.gpu, p.len());
                self.gpu.copy(poison.ptr(), p.ptr(), p.len()).unwrap();
            }
        }
        cache
    }

    pub fn mask(&self, way: Way) -> Vec<u8> {
        let total = self.total();
        (0..self.shape.batch * total)
            .map(|i| u8::from(!way.padded || i % 7 != 3 && i % total != 0))
            .collect()
    }

    /// Runs attention over the cache and compares; `plainly` by the plain kernel.
    fn check(&self, cache: &KvCache, way: Way, plainly: bool, tolerance: f32) {
        let (gpu, shape) = (&self.gpu, &self.shape);
        let width = self.q_heads * shape.head_dim;
        let q = random(shape.element, 3, shape.batch * self.new * width);
        let (_buffer, queries) = self.part(&q, width, 0..self.new);
        let past = gpu.upload(&[self.past as i32]).unwrap();
        let mask = gpu.upload(&self.mask(way)).unwrap();
        let n_bytes = q.len() * shape.element.bytes();
        let out = poisoned(gpu, n_bytes + 32);
        let attend = Attend {
            queries,
            q_heads: self.q_heads,
            past: past.ptr(),
            new: self.new,
            total_bound: cache.capacity(),
            scale: way.scale,
            softcap: way.softcap,
            causal: way.causal,
            window: way.window,
            pad_mask: way.padded.then_some(PadMask { at: mask.ptr(), stride: 0 }),
            out: out.ptr(),
        };
        match plainly {
            true => cache.attend_plainly(gpu, &attend).unwrap(),
            false => cache.attend(gpu, &attend).unwrap(),
        }
        let got = download(gpu, shape.element, out.ptr(), q.len());
        let expected = self.reference(&q, way);
        let what =
            format!("{shape:?}, {} heads, {} + {}, {way:?}", self.q_heads, self.past, self.new);
        assert_near(&got, &expected, tolerance, &what);
        if !plainly && self.new <= 8 && shape.element != Element::F32 {
            cache.decode_in(gpu, &attend, false).unwrap();
            let got = download(gpu, shape.element, out.ptr(), q.len());
            assert_near(&got, &expected, tolerance, &format!("without clusters, {what}"));
        }
        let beyond: Vec<u8> = gpu.download(out.ptr().offset(n_bytes), 32).unwrap();
        assert!(beyond.iter().all(|byte| *byte == 0xff), "written beyond the output: {what}");
    }

    fn reference(&self, q: &[f32], way: Way) -> Vec<f32> {
        let (d, total, kv_heads) = (self.shape.head_dim, self.total(), self.shape.kv_heads);
        let [key_clip, value_clip] = self.shape.format.clips();
        let keys = cached(&self.keys, &self.shape, key_clip);
        let values = cached(&self.values, &self.shape, value_clip);
        let mask = self.mask(way);
        let mut out = Vec::with_capacity(q.len());
        for (row, query) in q.chunks(d).enumerate() {
            let (h, i, b) =
                (row % self.q_heads, row / self.q_heads % self.new, row / self.q_heads / self.new);
            let at = self.past + i;
            let head = h / (self.q_heads / kv_heads);
            let of = |data: &[f32], j: usize| -> Vec<f32> {
                data[((b * total + j) * kv_heads + head) * d..][..d].to_vec()
            };
            let sees = |j: usize| {
                (!way.causal || j <= at)
                    && (way.window == 0 || j + way.window > at)
                    && mask[b * total + j] != 0
            };
            let score = |j: usize| {
                let product: f64 =
                    query.iter().zip(of(&keys, j)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum();
                let x = product * f64::from(way.scale);
                let cap = f64::from(way.softcap);
                if cap > 0.0 { cap * (x / cap).tanh() } else { x }
            };
            let seen: Vec<(usize, f64)> =
                (0..total).filter(|j| sees(*j)).map(|j| (j, score(j))).collect();
            let most = seen.iter().map(|(_, s)| *s).fold(f64::NEG_INFINITY, f64::max);
            let weight: f64 = seen.iter().map(|(_, s)| (s - most).exp()).sum();
            let mut sums = vec![0f64; d];
            for (j, s) in seen {
                let share = (s - most).exp() / weight;
                sums.iter_mut()
                    .zip(of(&values, j))
                    .for_each(|(sum, v)| *sum += share * f64::from(v));
            }
            out.extend(sums.iter().map(|x| *x as f32));
        }
        out
    }
}

pub(super) fn assert_near(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    let mut worst = (0f32, 0);
    for (i, (x, y)) in got.iter().zip(expected).enumerate() {
        let error = if x.is_nan() { f32::INFINITY } else { (x - y).abs() };
        if error > worst.0 {
            worst = (error, i);
        }
    }
    let i = worst.1;
    assert!(worst.0 <= tolerance, "{} off at {i}: {} for {}; {what}", worst.0, got[i], expected[i]);
}

fn shape(element: Element, format: CacheFormat, head_dim: usize) -> KvShape {
    KvShape { batch: 2, kv_heads: 2, head_dim, element, format }
}

pub(super) fn tolerance(element: Element) -> f32 {
    match element {
        Element::F32 => 1e-5,
        Element::F16 => 2.5e-3,
        Element::BF16 => 1.6e-2,
    }
}

/// The ways that attention is asked for.
fn ways() -> [Way; 6] {
    [
        PLAIN,
        Way { softcap: 2.0, ..PLAIN },
        Way { window: 5, ..PLAIN },
        Way { padded: true, window: 40, ..PLAIN },
        Way { causal: false, padded: true, ..PLAIN },
        Way { causal: false, window: 37, scale: -0.2, ..PLAIN },
    ]
}

#[test]
fn codes_are_those_of_the_reference() {
    let Some(gpu) = gpu() else { return };
    for (element, format, d) in [
        (Element::F16, INT4, 128),
        (Element::F16, INT8, 80),
        (Element::F16, CacheFormat::Element, 64),
        (Element::BF16, INT4, 24),
        (Element::F32, INT4, 256),
        (Element::F32, INT8, 8),
        (Element::F32, CacheFormat::Element, 16),
    ] {
        let case = Case::new(&gpu, shape(element, format, d), 2, 13, 7);
        let cache = case.cache(29);
        check_rows(&case, &cache, |rows| rows.to_vec(), 0.0);
    }
}

/// Every row of the cache against what is expected of the case's keys and values; a share of
/// `ties` of the codes may be off by one.
pub(super) fn check_rows(
    case: &Case,
    cache: &KvCache,
    keys: impl Fn(&[f32]) -> Vec<f32>,
    ties: f64,
) {
    let (shape, d) = (&case.shape, case.shape.head_dim);
    let [key_clip, value_clip] = shape.format.clips();
    let (mut n, mut off) = (0, 0);
    for (values, data, clip) in
        [(false, keys(&case.keys), key_clip), (true, case.values.clone(), value_clip)]
    {
        for (index, head) in data.chunks(d).enumerate() {
            let at = [
                index / shape.kv_heads / case.total(),
                index % shape.kv_heads,
                index / shape.kv_heads % case.total(),
            ];
            let (got, [scale, zero]) = read_row(&case.gpu, cache, values, at);
            if !shape.format.has_codes() {
                assert_near(&got, head, ties as f32, &format!("{shape:?}, {at:?}"));
                continue;
            }
            let (codes, s, z) = quantised(head, shape.format.bits(shape.element), clip);
            let exact = ties == 0.0 || values;
            let near = |a: f32, b: f32| (a - b).abs() <= if exact { 0.0 } else { 2e-5 * b.abs() };
            assert!(near(scale, s), "scale {scale} for {s}, {shape:?}, {at:?}");
            assert!(
                (zero - z).abs() <= if exact { 0.0 } else { 1.0 },
                "zero {zero} for {z}, {at:?}"
            );
            for (got, code) in got.iter().zip(&codes) {
                let error = (got - f32::from(*code)).abs();
                assert!(
                    error <= if exact { 0.0 } else { 1.0 },
                    "code {got} for {code}, {shape:?}, {at:?}"
                );
                off += usize::from(error > 0.0);
                n += 1;
            }
        }
    }
    assert!(off as f64 <= ties * n as f64, "{off} of {n} codes are off, {shape:?}");
}

#[test]
fn decoding_in_every_format() {
    let Some(gpu) = gpu() else { return };
    for (element, d) in [
        (Element::F16, 128),
        (Element::F16, 64),
        (Element::BF16, 80),
        (Element::F16, 16),
        (Element::F16, 256),
    ] {
        for format in FORMATS {
            for (q_heads, past, new) in
                [(2, 0, 1), (8, 150, 1), (8, 299, 3), (6, 31, 8), (16, 61, 8)]
            {
                let case = Case::new(&gpu, shape(element, format, d), q_heads, past, new);
                let cache = case.cache(past + new + 203);
                for way in ways() {
                    case.check(&cache, way, false, tolerance(element));
                }
            }
        }
    }
}

#[test]
fn decoding_over_a_long_context() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let shape = KvShape { batch: 1, ..shape(Element::F16, format, 128) };
        let case = Case::new(&gpu, shape, 8, 5000, 1);
        let cache = case.cache(9000);
        case.check(&cache, PLAIN, false, 2e-3);
        case.check(&cache, Way { window: 1000, ..PLAIN }, false, 2e-3);
    }
}

fn check_prefill(element: Element, d: usize) {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        for (q_heads, past, new) in [(2, 0, 9), (4, 70, 64), (6, 3, 141), (2, 150, 33)] {
            let case = Case::new(&gpu, shape(element, format, d), q_heads, past, new);
            let cache = case.cache(past + new + 3);
            for way in ways() {
                case.check(&cache, way, false, tolerance(element));
            }
        }
    }
}

#[test]
fn prefill_with_heads_of_128() {
    check_prefill(Element::F16, 128);
}

#[test]
fn prefill_of_many_tiles() {
    let Some(gpu) = gpu() else { return };
    let case =
        Case::new(&gpu, KvShape { batch: 1, ..shape(Element::BF16, INT8, 128) }, 4, 333, 600);
    let cache = case.cache(1000);
    for way in ways() {
        case.check(&cache, way, false, tolerance(Element::BF16));
    }
}

#[test]
fn prefill_with_heads_of_64() {
    check_prefill(Element::F16, 64);
}

#[test]
fn prefill_with_heads_of_80_in_bf16() {
    check_prefill(Element::BF16, 80);
}

#[test]
fn prefill_with_heads_of_24() {
    check_prefill(Element::F16, 24);
}

#[test]
fn prefill_with_heads_of_256() {
    check_prefill(Element::F16, 256);
}

#[test]
fn prefill_for_all_architectures() {
    let Some(gpu) = gpu() else { return };
    let elements = CacheFormat::Element;
    for (d, format) in
        [(128, INT4), (128, INT8), (24, INT4), (80, INT4), (128, elements), (64, elements)]
    {
        let case = Case::new(&gpu, shape(Element::F16, format, d), 4, 70, 90);
        let cache = case.cache(200);
        for way in ways() {
            case.check_prefill_by_tiles(&cache, way);
        }
    }
}

impl Case {
    fn check_prefill_by_tiles(&self, cache: &KvCache, way: Way) {
        let (gpu, shape) = (&self.gpu, &self.shape);
        let width = self.q_heads * shape.head_dim;
        let q = random(shape.element, 3, shape.batch * self.new * width);
        let (_buffer, queries) = self.part(&q, width, 0..self.new);
        let past = gpu.upload(&[self.past as i32]).unwrap();
        let mask = gpu.upload(&self.mask(way)).unwrap();
        let out = poisoned(gpu, q.len() * 2);
        let attend = Attend {
            queries,
            q_heads: self.q_heads,
            past: past.ptr(),
            new: self.new,
            total_bound: cache.capacity(),
            scale: way.scale,
            softcap: way.softcap,
            causal: way.causal,
            window: way.window,
            pad_mask: way.padded.then_some(PadMask { at: mask.ptr(), stride: self.total() }),
            out: out.ptr(),
        };
        cache.prefill_by_tiles(gpu, &attend, None).unwrap();
        let got = download(gpu, shape.element, out.ptr(), q.len());
        assert_near(&got, &self.reference(&q, way), 2.5e-3, &format!("{shape:?}, {way:?}"));
    }
}

#[test]
fn the_plain_kernel_and_f32() {
    let Some(gpu) = gpu() else { return };
    for (element, format, d) in [
        (Element::F32, CacheFormat::Element, 80),
        (Element::F32, INT4, 256),
        (Element::F32, INT8, 16),
        (Element::F16, INT4, 64),
    ] {
        for (q_heads, past, new) in [(4, 0, 1), (4, 140, 2), (2, 30, 150)] {
            let case = Case::new(&gpu, shape(element, format, d), q_heads, past, new);
            let cache = case.cache(past + new);
            for way in ways() {
                case.check(&cache, way, true, tolerance(element));
                if element == Element::F32 {
                    case.check(&cache, way, false, tolerance(element));
                }
            }
        }
    }
}

#[test]
fn a_cache_that_grows_keeps_its_contents() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let case = Case::new(&gpu, shape(Element::F16, format, 64), 4, 20, 2);
        let mut cache = KvCache::new(&gpu, case.shape, 20).unwrap();
        case.append(&cache, 0..20);
        // Without room nothing is written.
        case.append(&cache, 20..22);
        cache.grow(&gpu, 50).unwrap();
        assert_eq!(cache.capacity(), 50);
        case.append(&cache, 20..22);
        case.check(&cache, PLAIN, false, 2e-3);
        assert_eq!(cache.bytes_used(50), cache.bytes());
    }
}

#[test]
fn a_captured_step_serves_a_growing_context() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let shape = KvShape { batch: 1, ..shape(Element::F16, format, 128) };
        let case = Case::new(&gpu, shape, 8, 299, 1);
        let cache = KvCache::new(&gpu, shape, 512).unwrap();
        case.append(&cache, 0..250);
        let width = 2 * 128;
        let new_keys = gpu.alloc(2 * width).unwrap();
        let new_values = gpu.alloc(2 * width).unwrap();
        let past = gpu.upload(&[0i32]).unwrap();
        let q = random(Element::F16, 3, 8 * 128);
        let queries = upload(&gpu, Element::F16, &q);
        let out = poisoned(&gpu, 2 * q.len());
        let rows = |b: &DeviceBuffer, stride| Rows { at: b.ptr(), stride };
        let attend = Attend {
            queries: rows(&queries, 8 * 128),
            q_heads: 8,
            past: past.ptr(),
            new: 1,
            total_bound: 512,
            scale: PLAIN.scale,
            softcap: 0.0,
            causal: true,
            window: 0,
            pad_mask: None,
            out: out.ptr(),
        };
        let step = || -> Result<(), crate::GpuError> {
            cache.append(&gpu, rows(&new_keys, width), rows(&new_values, width), past.ptr(), 1)?;
            cache.attend(&gpu, &attend)
        };
        // Compiles and allocates before the capture.
        gpu.write(past.ptr(), &[511i32]).unwrap();
        step().unwrap();
        gpu.synchronize().unwrap();
        let mut graph = gpu.capture(step).unwrap();
        for length in 250..300 {
            let case = Case { past: length, new: 1, ..Case::new(&gpu, shape, 8, 299, 1) };
            let row = |data: &[f32]| {
                bits(&data[length * width..][..width], |x| f16::from_f32(x).to_bits())
            };
            gpu.write(new_keys.ptr(), &row(&case.keys)).unwrap();
            gpu.write(new_values.ptr(), &row(&case.values)).unwrap();
            gpu.write(past.ptr(), &[length as i32]).unwrap();
            gpu.replay(&mut graph).unwrap();
            if length % 10 != 9 {
                continue;
            }
            let got = download(&gpu, Element::F16, out.ptr(), q.len());
            let n = (length + 1) * width;
            let short =
                Case { keys: case.keys[..n].to_vec(), values: case.values[..n].to_vec(), ..case };
            assert_near(
                &got,
                &short.reference(&q, PLAIN),
                2e-3,
                &format!("{format:?} at {length}"),
            );
        }
    }
}

#[test]
fn a_head_has_less_than_2_gib() {
    for (format, bytes) in [(CacheFormat::Element, 256), (INT4, 64)] {
        let shape = shape(Element::F16, format, 128);
        assert!(shape.check_capacity((1 << 31) / bytes - 1).is_ok());
        assert!(shape.check_capacity((1 << 31) / bytes).is_err());
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let Some(gpu) = gpu() else { return };
    for head_dim in [0, 12, 264] {
        assert!(KvCache::new(&gpu, shape(Element::F16, INT4, head_dim), 8).is_err());
    }
    let cache = KvCache::new(&gpu, shape(Element::F16, INT4, 64), 8).unwrap();
    let buffer = gpu.alloc(1 << 16).unwrap();
    let rows = |stride| Rows { at: buffer.ptr(), stride };
    assert!(cache.append(&gpu, rows(120), rows(128), buffer.ptr(), 1).is_err());
    assert!(cache.append(&gpu, rows(132), rows(128), buffer.ptr(), 1).is_err());
    let attend = Attend {
        queries: rows(256),
        q_heads: 4,
        past: buffer.ptr(),
        new: 1,
        total_bound: 9,
        scale: 1.0,
        softcap: 0.0,
        causal: true,
        window: 0,
        pad_mask: None,
        out: buffer.ptr(),
    };
    assert!(cache.attend(&gpu, &attend).is_err());
    assert!(cache.attend(&gpu, &Attend { q_heads: 3, total_bound: 8, ..attend }).is_err());
    cache.attend(&gpu, &Attend { new: 0, ..attend }).unwrap();
}
