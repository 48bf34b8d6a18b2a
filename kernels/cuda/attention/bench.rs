//! Times of attention, with the heads of Llama-3-8B: 32 query heads, 8 key heads, 128 channels.

use super::{Attend, CacheFormat, Clip, KvCache, KvShape, Prepare, Queries, Rotation, Rows};
use crate::testing::random_f32;
use crate::timer::median_us;
use crate::{DeviceBuffer, Element, Gpu, GpuError};

const Q_HEADS: usize = 32;
const KV_HEADS: usize = 8;
const DIM: usize = 128;
const REPEATS: usize = 20;
/// Caches that decoding goes through in turn, as the layers of a model do.
const LAYERS: usize = 32;

const CLIP: Clip = Clip { min: 1.0, max: 1.0 };
const FORMATS: [(&str, CacheFormat); 3] = [
    ("16", CacheFormat::Element),
    ("8", CacheFormat::Int8 { keys: CLIP, values: CLIP }),
    ("4", CacheFormat::Int4 { keys: CLIP, values: CLIP }),
];

/// Prefill, decoding, and what comes before them.
///
/// # Errors
/// Those of the kernels.
pub fn bench(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    let mut lines = vec![format!("{:52} {:>9} {:>16}", "f16, Llama-3-8B's heads", "µs", "")];
    for (bits, format) in FORMATS {
        for new in [512, 2_048, 8_192] {
            lines.push(prefill(gpu, bits, format, new)?);
        }
    }
    for (bits, format) in FORMATS {
        for context in [256, 2_048, 16_384] {
            lines.push(decode(gpu, bits, format, context)?);
        }
    }
    for (bits, format) in FORMATS {
        for (new, has_matrix) in [(1, false), (1, true), (2_048, false), (2_048, true)] {
            lines.push(prepare(gpu, bits, format, new, has_matrix)?);
        }
    }
    Ok(lines)
}

/// Random halves.
fn random(gpu: &Gpu, seed: u64, n: usize) -> Result<DeviceBuffer, GpuError> {
    let bits: Vec<u16> =
        random_f32(seed, n).iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
    gpu.upload(&bits)
}

/// One layer with a full cache.
struct Layer {
    cache: KvCache,
    past: DeviceBuffer,
    q: DeviceBuffer,
    kv: DeviceBuffer,
    out: DeviceBuffer,
    new: usize,
    context: usize,
}

impl Layer {
    fn new(gpu: &Gpu, format: CacheFormat, context: usize, new: usize) -> Result<Self, GpuError> {
        let shape =
            KvShape { batch: 1, kv_heads: KV_HEADS, head_dim: DIM, element: Element::F16, format };
        let cache = KvCache::new(gpu, shape, context)?;
        let kv = random(gpu, 1, context * KV_HEADS * DIM)?;
        let rows = Rows { at: kv.ptr(), stride: KV_HEADS * DIM };
        let zero = gpu.upload(&[0i32])?;
        cache.append(gpu, rows, rows, zero.ptr(), context)?;
        gpu.synchronize()?;
        let past = gpu.upload(&[(context - new) as i32])?;
        let q = random(gpu, 2, new * Q_HEADS * DIM)?;
        let out = gpu.alloc_exact(new * Q_HEADS * DIM * 2)?;
        Ok(Self { cache, past, q, kv, out, new, context })
    }

    fn attend(&self, gpu: &Gpu) -> Result<(), GpuError> {
        let attend = Attend {
            queries: Rows { at: self.q.ptr(), stride: Q_HEADS * DIM },
            q_heads: Q_HEADS,
            past: self.past.ptr(),
            new: self.new,
            total_bound: self.context,
            scale: 1.0 / (DIM as f32).sqrt(),
            softcap: 0.0,
            causal: true,
            window: 0,
            pad_mask: None,
            out: self.out.ptr(),
        };
        self.cache.attend(gpu, &attend)
    }

    fn prepare(
        &self,
        gpu: &Gpu,
        angles: &DeviceBuffer,
        matrix: Option<&DeviceBuffer>,
    ) -> Result<(), GpuError> {
        let rows = Rows { at: self.kv.ptr(), stride: KV_HEADS * DIM };
        let matrix = matrix.map(DeviceBuffer::ptr);
        let prepare = Prepare {
            queries: Some(Queries {
                rows: Rows { at: self.q.ptr(), stride: Q_HEADS * DIM },
                heads: Q_HEADS,
                out: self.out.ptr(),
            }),
            keys: rows,
            values: rows,
            rotation: Some(Rotation {
                cos: angles.ptr(),
                sin: angles.ptr(),
                element: Element::F32,
                per_sequence: false,
                dim: DIM,
                interleaved: false,
            }),
            query_matrix: matrix,
            key_matrix: matrix,
            past: self.past.ptr(),
            new: self.new,
        };
        self.cache.prepare(gpu, &prepare)
    }
}

/// Microseconds of one of LAYERS launches in a captured graph.
fn in_graph(
    gpu: &Gpu,
    layers: &[Layer],
    step: impl Fn(&Layer) -> Result<(), GpuError>,
) -> Result<f64, GpuError> {
    layers.iter().try_for_each(&step)?;
    gpu.synchronize()?;
    let mut graph = gpu.capture(|| layers.iter().try_for_each(&step))?;
    Ok(median_us(gpu, REPEATS, || gpu.replay(&mut graph))? / layers.len() as f64)
}

fn prefill(gpu: &Gpu, bits: &str, format: CacheFormat, new: usize) -> Result<String, GpuError> {
    let layer = Layer::new(gpu, format, new, new)?;
    let us = median_us(gpu, REPEATS, || layer.attend(gpu))?;
    let operations = 2.0 * (new * new * DIM * Q_HEADS) as f64;
    let what = format!("prefill, {new} tokens, {bits}-bit cache");
    Ok(format!("{what:52} {us:9.1} {:7.1} TFLOP/s", operations / us / 1e6))
}

fn decode(gpu: &Gpu, bits: &str, format: CacheFormat, context: usize) -> Result<String, GpuError> {
    let layers: Vec<Layer> =
        (0..LAYERS).map(|_| Layer::new(gpu, format, context, 1)).collect::<Result<_, _>>()?;
    let us = in_graph(gpu, &layers, |layer| layer.attend(gpu))?;
    let n_bytes = layers[0].cache.bytes_used(context) as f64;
    let what = format!("decoding, context {context}, {bits}-bit cache, in a graph");
    Ok(format!("{what:52} {us:9.2} {:11.1} GB/s", n_bytes / us / 1e3))
}

fn prepare(
    gpu: &Gpu,
    bits: &str,
    format: CacheFormat,
    new: usize,
    has_matrix: bool,
) -> Result<String, GpuError> {
    let n = if new == 1 { LAYERS } else { 4 };
    let layers: Vec<Layer> =
        (0..n).map(|_| Layer::new(gpu, format, 2_048, new)).collect::<Result<_, _>>()?;
    let angles = gpu.upload(&random_f32(3, new * DIM / 2))?;
    let matrix = random(gpu, 4, DIM * DIM)?;
    let matrix = has_matrix.then_some(&matrix);
    let us = in_graph(gpu, &layers, |layer| layer.prepare(gpu, &angles, matrix))?;
    let read_and_written =
        new * DIM * 2 * (2 * Q_HEADS + 2 * KV_HEADS) + layers[0].cache.bytes_used(new);
    let with = if has_matrix { "rotation and matrix" } else { "rotation" };
    let what = format!("{with}, {new} tokens, {bits}-bit cache");
    Ok(format!("{what:52} {us:9.2} {:11.1} GB/s", read_and_written as f64 / us / 1e3))
}
