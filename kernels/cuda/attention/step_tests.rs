//! Tests of a step in one launch against one in two.

use std::sync::Arc;

use super::tests::{
    Case, FORMATS, INT4, INT8, PLAIN, Way, assert_near, download, poisoned, random, rounded,
    tolerance, upload,
};
use super::{Attend, CacheFormat, KvCache, KvShape, PadMask, Prepare, Rotation};
use crate::testing::{gpu, random_f32};
use crate::{DeviceBuffer, Element, Gpu};

/// What happens to queries and keys first.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Channels that are rotated, interleaved or not, by angles of which element.
    rotation: Option<(usize, bool, Element)>,
    /// Whether there are matrices on queries and keys.
    matrices: [bool; 2],
}

const SCALED: Way = Way { scale: 0.05, ..PLAIN };

fn plain_turn(d: usize) -> Turn {
    Turn { rotation: Some((d, false, Element::F32)), matrices: [true; 2] }
}

/// Everything on the device that a step reads and writes.
struct Inputs {
    prepare: Prepare,
    attend: Attend,
    out: DeviceBuffer,
    n_out: usize,
    _held: Vec<DeviceBuffer>,
}

impl Inputs {
    fn new(case: &Case, turn: Turn, way: Way, capacity: usize) -> Self {
        let (gpu, shape, new) = (&case.gpu, &case.shape, case.new);
        let (element, d) = (shape.element, shape.head_dim);
        let (q_width, width) = (case.q_heads * d, shape.kv_heads * d);
        let q = random(element, 3, shape.batch * new * q_width);
        let range = case.past..case.total();
        let (q_buffer, queries) = case.part(&q, q_width, 0..new);
        let (k_buffer, keys) = case.part(&case.keys, width, range.clone());
        let (v_buffer, values) = case.part(&case.values, width, range);
        let past = gpu.upload(&[case.past as i32]).unwrap();
        let mask = gpu.upload(&case.mask(way)).unwrap();
        let out = poisoned(gpu, q.len() * element.bytes() + 32);
        let matrix = |seed| -> DeviceBuffer {
            let data: Vec<f32> = random_f32(seed, d * d).iter().map(|x| *x * 0.3).collect();
            upload(gpu, element, &data)
        };
        let matrices = [matrix(6), matrix(7)];
        let (dim, interleaved, angle) = turn.rotation.unwrap_or((0, false, Element::F32));
        let angles = |seed| {
            let n = (shape.batch * new * dim / 2).max(1);
            let data: Vec<f32> = random_f32(seed, n).iter().map(|x| rounded(angle, *x)).collect();
            upload(gpu, angle, &data)
        };
        let (cos, sin) = (angles(4), angles(5));
        let prepare = Prepare {
            queries: None,
            keys,
            values,
            rotation: turn.rotation.map(|_| Rotation {
                cos: cos.ptr(),
                sin: sin.ptr(),
                element: angle,
                per_sequence: true,
                dim,
                interleaved,
            }),
            query_matrix: turn.matrices[0].then(|| matrices[0].ptr()),
            key_matrix: turn.matrices[1].then(|| matrices[1].ptr()),
            past: past.ptr(),
            new,
        };
        let attend = Attend {
            queries,
            q_heads: case.q_heads,
            past: past.ptr(),
            new,
            total_bound: capacity,
            scale: way.scale,
            softcap: way.softcap,
            causal: way.causal,
            window: way.window,
            pad_mask: way.padded.then_some(PadMask { at: mask.ptr(), stride: 0 }),
            out: out.ptr(),
        };
        let [a, b] = matrices;
        let _held = vec![q_buffer, k_buffer, v_buffer, past, mask, a, b, cos, sin];
        Self { prepare, attend, out, n_out: q.len(), _held }
    }

    fn output(&self, gpu: &Gpu, element: Element) -> Vec<f32> {
        let n_bytes = self.n_out * element.bytes();
        let beyond: Vec<u8> = gpu.download(self.out.ptr().offset(n_bytes), 32).unwrap();
        assert!(beyond.iter().all(|byte| *byte == 0xff), "written beyond the output");
        download(gpu, element, self.out.ptr(), self.n_out)
    }
}

/// Rows and parameters of keys and values.
fn contents(gpu: &Gpu, cache: &KvCache) -> Vec<Vec<u8>> {
    let stores = cache.stores.iter();
    let buffers = stores.flat_map(|store| [Some(&store.rows), store.parameters.as_ref()]);
    buffers.flatten().map(|b| gpu.download(b.ptr(), b.len()).unwrap()).collect()
}

/// A case in one launch, with clusters and without, against the same in two.
fn check(case: &Case, turn: Turn, way: Way, capacity: usize) {
    let (gpu, element) = (&case.gpu, case.shape.element);
    let inputs = Inputs::new(case, turn, way, capacity);
    let filled = || {
        let cache = case.poisoned_cache(capacity);
        case.append(&cache, 0..case.past);
        cache
    };
    let two = filled();
    two.step_in_two(gpu, &inputs.prepare, &inputs.attend).unwrap();
    let expected = inputs.output(gpu, element);
    let cached = contents(gpu, &two);
    for clusters in [true, false] {
        let what = format!(
            "{:?}, {} heads, {} + {} of {capacity}, {turn:?}, {way:?}, clusters: {clusters}",
            case.shape, case.q_heads, case.past, case.new
        );
        let one = filled();
        let plan = one.decode_plan(gpu, &inputs.attend, clusters).unwrap();
        assert!(one.is_one_launch(gpu, &inputs.prepare, &plan), "two launches for {what}");
        one.step_in(gpu, &inputs.prepare, &inputs.attend, &plan).unwrap();
        assert_near(&inputs.output(gpu, element), &expected, tolerance(element), &what);
        assert!(contents(gpu, &one) == cached, "another cache, {what}");
    }
}

fn shape(element: Element, format: CacheFormat, head_dim: usize) -> KvShape {
    KvShape { batch: 2, kv_heads: 2, head_dim, element, format }
}

/// Contexts about the borders of groups of 16, and how many are new.
fn check_lengths(gpu: &Arc<Gpu>, shape: KvShape, turn: Turn) {
    let sizes = [
        (1, 0, 1),
        (4, 1, 1),
        (4, 15, 1),
        (4, 16, 1),
        (8, 17, 2),
        (3, 100, 5),
        (1, 13, 8),
        (2, 2047, 8),
    ];
    for (group, past, new) in sizes {
        let case = Case::new(gpu, shape, group * shape.kv_heads, past, new);
        check(&case, turn, SCALED, past + new + 203);
    }
}

#[test]
fn a_step_in_one_launch_with_heads_of_128() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        check_lengths(&gpu, shape(Element::F16, format, 128), plain_turn(128));
    }
}

#[test]
fn a_step_in_one_launch_with_heads_of_64() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        check_lengths(&gpu, shape(Element::F16, format, 64), plain_turn(64));
    }
}

#[test]
fn a_step_in_one_launch_with_heads_of_80_in_bf16() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let turn = Turn { rotation: Some((32, false, Element::BF16)), ..plain_turn(80) };
        check_lengths(&gpu, shape(Element::BF16, format, 80), turn);
    }
}

#[test]
fn a_step_in_one_launch_with_small_heads() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let turn = Turn { rotation: Some((20, false, Element::F16)), ..plain_turn(24) };
        check_lengths(&gpu, shape(Element::F16, format, 24), turn);
    }
    let turn = Turn { rotation: Some((4, true, Element::F32)), ..plain_turn(8) };
    check_lengths(&gpu, shape(Element::F16, INT4, 8), turn);
}

#[test]
fn a_step_in_one_launch_with_heads_of_256() {
    let Some(gpu) = gpu() else { return };
    // Both matrices do not fit.
    for (format, matrices) in
        [(INT4, [false; 2]), (INT8, [true, false]), (INT4, [false, true]), (FORMATS[0], [false; 2])]
    {
        let turn = Turn { matrices, ..plain_turn(256) };
        check_lengths(&gpu, shape(Element::F16, format, 256), turn);
    }
}

#[test]
fn a_step_in_one_launch_for_every_turn() {
    let Some(gpu) = gpu() else { return };
    let rotations = [None, Some((128, true, Element::F32)), Some((64, false, Element::F16))];
    for format in FORMATS {
        for rotation in rotations {
            for matrices in [[false; 2], [true, false], [false, true], [true; 2]] {
                let case = Case::new(&gpu, shape(Element::F16, format, 128), 8, 150, 2);
                check(&case, Turn { rotation, matrices }, SCALED, 400);
            }
        }
    }
}

#[test]
fn a_step_in_one_launch_in_every_way() {
    let Some(gpu) = gpu() else { return };
    let ways = [
        Way { softcap: 2.0, ..SCALED },
        Way { window: 1, ..SCALED },
        Way { window: 5, ..SCALED },
        Way { padded: true, window: 40, ..SCALED },
        Way { causal: false, padded: true, ..SCALED },
        Way { causal: false, window: 37, scale: -0.05, ..SCALED },
    ];
    for format in FORMATS {
        for (past, new) in [(0, 3), (14, 4), (299, 1), (640, 8)] {
            let case = Case::new(&gpu, shape(Element::F16, format, 128), 4, past, new);
            ways.iter().for_each(|way| check(&case, plain_turn(128), *way, past + new + 203));
        }
    }
}

#[test]
fn a_step_in_one_launch_over_a_long_context() {
    let Some(gpu) = gpu() else { return };
    let shape = KvShape { batch: 1, ..shape(Element::F16, INT4, 128) };
    for past in [4_095, 5_000] {
        let case = Case::new(&gpu, shape, 8, past, 1);
        check(&case, plain_turn(128), SCALED, 9_000);
        check(&case, plain_turn(128), Way { window: 1_000, ..SCALED }, 9_000);
    }
}

#[test]
fn a_step_in_one_launch_drops_what_has_no_room() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        for (past, new, capacity) in [(14, 4, 16), (16, 1, 16), (130, 3, 131)] {
            let shape = shape(Element::F16, format, 64);
            let case = Case::new(&gpu, shape, 4, past, new);
            check(&case, plain_turn(64), SCALED, capacity);
            check(&case, plain_turn(64), Way { window: 3, ..SCALED }, capacity);
        }
    }
}

#[test]
fn steps_in_a_row_and_in_a_graph() {
    let Some(gpu) = gpu() else { return };
    const N: usize = 40;
    for format in FORMATS {
        let shape = KvShape { batch: 1, ..shape(Element::F16, format, 128) };
        let whole = Case::new(&gpu, shape, 8, 0, N);
        let width = shape.kv_heads * shape.head_dim;
        let steps: Vec<Inputs> = (0..N)
            .map(|past| {
                let n = (past + 1) * width;
                let keys = whole.keys[..n].to_vec();
                let values = whole.values[..n].to_vec();
                let gpu = gpu.clone();
                let case = Case { gpu, shape, q_heads: 8, past, new: 1, keys, values };
                Inputs::new(&case, plain_turn(128), SCALED, 512)
            })
            .collect();
        let outputs =
            || -> Vec<f32> { steps.iter().flat_map(|s| s.output(&gpu, Element::F16)).collect() };
        let two = whole.poisoned_cache(512);
        for step in &steps {
            two.step_in_two(&gpu, &step.prepare, &step.attend).unwrap();
        }
        let expected = outputs();
        let one = whole.poisoned_cache(512);
        let run = || steps.iter().try_for_each(|s| one.step(&gpu, &s.prepare, &s.attend));
        run().unwrap();
        assert_near(&outputs(), &expected, tolerance(Element::F16), "in a row");
        assert!(contents(&gpu, &one) == contents(&gpu, &two), "another cache, {format:?}");
        let mut graph = gpu.capture(run).unwrap();
        gpu.replay(&mut graph).unwrap();
        gpu.replay(&mut graph).unwrap();
        assert_near(&outputs(), &expected, tolerance(Element::F16), "in a graph");
        assert!(contents(&gpu, &one) == contents(&gpu, &two), "in a graph, {format:?}");
    }
}

#[test]
fn a_step_that_is_too_large_takes_two_launches() {
    let Some(gpu) = gpu() else { return };
    // More rows than a tile, more positions than decoding takes, and f32.
    for (element, group, new) in [(Element::F16, 8, 3), (Element::F16, 2, 9), (Element::F32, 2, 1)]
    {
        let case = Case::new(&gpu, shape(element, INT4, 64), 2 * group, 20, new);
        let inputs = Inputs::new(&case, plain_turn(64), SCALED, 64);
        let caches = [case.poisoned_cache(64), case.poisoned_cache(64)];
        caches.iter().for_each(|cache| case.append(cache, 0..20));
        caches[0].step_in_two(&gpu, &inputs.prepare, &inputs.attend).unwrap();
        let expected = inputs.output(&gpu, element);
        caches[1].step(&gpu, &inputs.prepare, &inputs.attend).unwrap();
        assert_near(&inputs.output(&gpu, element), &expected, 0.0, "two launches");
        assert!(contents(&gpu, &caches[0]) == contents(&gpu, &caches[1]));
    }
}
