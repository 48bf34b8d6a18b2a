//! Times of attention, with the heads of Llama-3-8B: 32 query heads, 8 key heads, 128 channels.

use std::rc::Rc;

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
        for context in [256, 2_048, 4_096, 16_384] {
            for clusters in [false, true] {
                lines.push(decode(gpu, bits, format, context, clusters)?);
            }
        }
    }
    for (bits, format) in FORMATS {
        for (new, has_matrix) in [(1, false), (1, true), (256, true), (2_048, false), (2_048, true)]
        {
            lines.push(prepare(gpu, bits, format, new, has_matrix)?);
        }
    }
    for context in [64, 256, 2_048, 4_096, 16_384] {
        for one_launch in [false, true] {
            lines.push(step(gpu, context, one_launch)?);
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

/// Random queries, keys and values.
#[derive(Clone)]
struct Data {
    q: Rc<DeviceBuffer>,
    kv: Rc<DeviceBuffer>,
}

impl Data {
    fn new(gpu: &Gpu, context: usize, new: usize) -> Result<Self, GpuError> {
        let q = Rc::new(random(gpu, 2, new * Q_HEADS * DIM)?);
        Ok(Self { q, kv: Rc::new(random(gpu, 1, context * KV_HEADS * DIM)?) })
    }
}

/// One layer with a full cache.
struct Layer {
    cache: KvCache,
    past: DeviceBuffer,
    data: Data,
    out: DeviceBuffer,
    new: usize,
    context: usize,
}

impl Layer {
    fn new(
        gpu: &Gpu,
        format: CacheFormat,
        (context, new): (usize, usize),
        data: &Data,
    ) -> Result<Self, GpuError> {
        let shape =
            KvShape { batch: 1, kv_heads: KV_HEADS, head_dim: DIM, element: Element::F16, format };
        let cache = KvCache::new(gpu, shape, context)?;
        let rows = Rows { at: data.kv.ptr(), stride: KV_HEADS * DIM };
        let zero = gpu.upload(&[0i32])?;
        cache.append(gpu, rows, rows, zero.ptr(), context)?;
        gpu.synchronize()?;
        let past = gpu.upload(&[(context - new) as i32])?;
        let out = gpu.alloc_exact(new * Q_HEADS * DIM * 2)?;
        Ok(Self { cache, past, data: data.clone(), out, new, context })
    }

    fn call(&self) -> Attend {
        Attend {
            queries: Rows { at: self.data.q.ptr(), stride: Q_HEADS * DIM },
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
        }
    }

    fn preparation(&self, angles: &DeviceBuffer, matrix: Option<&DeviceBuffer>) -> Prepare {
        let rows = Rows { at: self.data.kv.ptr(), stride: KV_HEADS * DIM };
        let matrix = matrix.map(DeviceBuffer::ptr);
        Prepare {
            queries: Some(Queries {
                rows: Rows { at: self.data.q.ptr(), stride: Q_HEADS * DIM },
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
        }
    }
}

/// Layers with caches of their own.
fn layers(
    gpu: &Gpu,
    format: CacheFormat,
    sizes: (usize, usize),
    n: usize,
) -> Result<Vec<Layer>, GpuError> {
    let data = Data::new(gpu, sizes.0, sizes.1)?;
    (0..n).map(|_| Layer::new(gpu, format, sizes, &data)).collect()
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
    let layer = Layer::new(gpu, format, (new, new), &Data::new(gpu, new, new)?)?;
    let us = median_us(gpu, REPEATS, || layer.cache.attend(gpu, &layer.call()))?;
    let operations = 2.0 * (new * new * DIM * Q_HEADS) as f64;
    let what = format!("prefill, {new} tokens, {bits}-bit cache");
    Ok(format!("{what:52} {us:9.1} {:7.1} TFLOP/s", operations / us / 1e6))
}

fn decode(
    gpu: &Gpu,
    bits: &str,
    format: CacheFormat,
    context: usize,
    clusters: bool,
) -> Result<String, GpuError> {
    let layers = layers(gpu, format, (context, 1), LAYERS)?;
    let us = in_graph(gpu, &layers, |layer| layer.cache.decode_in(gpu, &layer.call(), clusters))?;
    let n_bytes = layers[0].cache.bytes_used(context) as f64;
    let how = if clusters { ", clusters" } else { "" };
    let what = format!("decoding, context {context}, {bits}-bit cache, in a graph{how}");
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
    let layers = layers(gpu, format, (2_048, new), n)?;
    let angles = gpu.upload(&random_f32(3, new * DIM / 2))?;
    let matrix = random(gpu, 4, DIM * DIM)?;
    let matrix = has_matrix.then_some(&matrix);
    let us = in_graph(gpu, &layers, |layer| {
        layer.cache.prepare(gpu, &layer.preparation(&angles, matrix))
    })?;
    let read_and_written =
        new * DIM * 2 * (2 * Q_HEADS + 2 * KV_HEADS) + layers[0].cache.bytes_used(new);
    let with = if has_matrix { "rotation and matrix" } else { "rotation" };
    let what = format!("{with}, {new} tokens, {bits}-bit cache");
    Ok(format!("{what:52} {us:9.2} {:11.1} GB/s", read_and_written as f64 / us / 1e3))
}

/// A step of decoding with all that comes before it.
fn step(gpu: &Gpu, context: usize, one_launch: bool) -> Result<String, GpuError> {
    let (bits, format) = FORMATS[2];
    let layers = layers(gpu, format, (context, 1), LAYERS)?;
    let angles = gpu.upload(&random_f32(3, DIM / 2))?;
    let matrix = random(gpu, 4, DIM * DIM)?;
    let us = in_graph(gpu, &layers, |layer| {
        let (prepare, attend) = (layer.preparation(&angles, Some(&matrix)), layer.call());
        match one_launch {
            true => layer.cache.step(gpu, &prepare, &attend),
            false => layer.cache.step_in_two(gpu, &prepare, &attend),
        }
    })?;
    let n_bytes = layers[0].cache.bytes_used(context) as f64;
    let how = if one_launch { "one launch" } else { "two launches" };
    let what = format!(
        "rotation, matrix and decoding, context {context}, {bits}-bit cache, in a graph: {how}"
    );
    Ok(format!("{what:52} {us:9.2} {:11.1} GB/s", n_bytes / us / 1e3))
}
