//! Times of this area's kernels, against the time in which the device could move their bytes once.

use super::{Factors, Method, Output, PackedFactors, RowSource, TransformRows, method};
use crate::testing::random_f32;
use crate::timer::median_us;
use crate::{DeviceBuffer, DevicePtr, Element, Gpu, GpuError};

/// Bytes a microsecond that the limit is counted with: what an H100 reads and writes, measured.
const BYTES_PER_US: f64 = 3.0e6;

struct Shape {
    what: &'static str,
    n1: usize,
    n2: usize,
    swiglu: bool,
    add: bool,
}

#[rustfmt::skip]
const SHAPES: &[Shape] = &[
    Shape { what: "norm, 64·64", n1: 64, n2: 64, swiglu: false, add: false },
    Shape { what: "add, norm, 64·64", n1: 64, n2: 64, swiglu: false, add: true },
    Shape { what: "SwiGLU, 112·128", n1: 112, n2: 128, swiglu: true, add: false },
];

/// Buffers of one call; several sets, so that rows do not come from the cache.
struct Set {
    rows: TransformRows,
    _buffers: Vec<DeviceBuffer>,
    _packed: PackedFactors,
}

fn set(gpu: &Gpu, shape: &Shape, rows: usize, bits: u32) -> Result<Set, GpuError> {
    let n = shape.n1 * shape.n2;
    let mut buffers = Vec::new();
    let mut random = |seed, n: usize| -> Result<DevicePtr, GpuError> {
        // A pattern of some length again and again is as good as random data of the whole length.
        let some = random_f32(seed, n.min(1 << 16));
        let data: Vec<u16> =
            (0..n).map(|i| half::f16::from_f32(some[i % some.len()]).to_bits()).collect();
        buffers.push(gpu.upload(&data)?);
        Ok(buffers.last().map_or(DevicePtr::NULL, DeviceBuffer::ptr))
    };
    let source = if shape.swiglu {
        RowSource::SwiGlu { gate: random(1, rows * n)?, up: random(2, rows * n)?, stride: n }
    } else {
        let x = random(1, rows * n)?;
        let weight = random(2, n)?;
        let add = match shape.add {
            true => Some((random(3, rows * n)?, random(4, rows * n)?)),
            false => None,
        };
        RowSource::RmsNorm { x, weight, epsilon: 1e-5, add }
    };
    let p1 = Some(random(5, shape.n1 * shape.n1)?);
    let p2 = Some(random(6, shape.n2 * shape.n2)?);
    let mut factors = Factors { p1, p2, element: Element::F16, packed: None };
    let packed = PackedFactors::new(gpu, shape.n1, shape.n2, &factors)?;
    factors.packed = Some(packed.ptr());
    let (codes, scales) = (random(7, rows * n)?, random(8, rows * 2)?);
    let output = Output::Codes { bits, clip_min: 1.0, clip_max: 1.0, codes, scales };
    let (n1, n2, element) = (shape.n1, shape.n2, Element::F16);
    let rows = TransformRows { rows, n1, n2, source, factors, output, element };
    Ok(Set { rows, _buffers: buffers, _packed: packed })
}

impl Shape {
    fn bytes(&self, rows: usize) -> usize {
        let per_element = if self.swiglu { 5 } else { 3 } + if self.add { 4 } else { 0 };
        rows * self.n1 * self.n2 * per_element
    }
}

/// Median microseconds of a call, in a graph of many over several sets of buffers.
fn time(gpu: &Gpu, sets: &[Set], method: Option<Method>) -> Result<f64, GpuError> {
    let n = 60;
    let work = || -> Result<(), GpuError> {
        for i in 0..n {
            let rows = &sets[i % sets.len()].rows;
            rows.launch_by(gpu, method.unwrap_or_else(|| rows.method(gpu)))?;
        }
        Ok(())
    };
    work()?;
    let mut graph = gpu.capture(work)?;
    Ok(median_us(gpu, 15, || gpu.replay(&mut graph))? / n as f64)
}

fn line(shape: &Shape, rows: usize, bits: u32, us: f64, note: &str) -> String {
    let limit = shape.bytes(rows) as f64 / BYTES_PER_US;
    format!(
        "{:<20} {rows:>5} rows, {bits} bits: {us:>8.2} µs, {:>7.2} µs at 3 TB/s, {:>6.2} times{note}",
        shape.what,
        limit,
        us / limit
    )
}

/// The table.
///
/// # Errors
/// Those of the kernels.
pub fn bench(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    let mut lines = Vec::new();
    let tuning = std::env::var("PLANISH_BENCH_SHAPES").ok();
    let which = std::env::var("PLANISH_BENCH_ONLY").unwrap_or_default();
    let only: Option<usize> = tuning.as_ref().and_then(|rows| rows.parse().ok());
    for shape in SHAPES.iter().filter(|shape| shape.what.contains(&which)) {
        for rows in [1, 16, 2048].into_iter().filter(|rows| only.is_none_or(|only| only == *rows)) {
            for bits in if only.is_some() { vec![4] } else { vec![4, 8] } {
                let n_sets = if rows > 100 { 8 } else { 2 };
                let sets = (0..n_sets).map(|_| set(gpu, shape, rows, bits));
                let sets = sets.collect::<Result<Vec<_>, _>>()?;
                lines.push(line(shape, rows, bits, time(gpu, &sets, None)?, ""));
                if tuning.is_some() {
                    lines.extend(all_shapes(gpu, shape, &sets, rows, bits)?);
                }
            }
        }
    }
    Ok(lines)
}

/// Other shapes of the tensor kernel, for tuning.
fn all_shapes(
    gpu: &Gpu,
    shape: &Shape,
    sets: &[Set],
    rows: usize,
    bits: u32,
) -> Result<Vec<String>, GpuError> {
    let mut lines = Vec::new();
    let split = bits > 4;
    if rows < 100 {
        for blocks in [2, 4, 8] {
            let us = time(gpu, sets, Some(Method::Cluster { blocks, split }));
            let note = format!("  cluster of {blocks}");
            lines.push(us.map_or(note.clone(), |us| line(shape, rows, bits, us, &note)));
        }
    }
    if rows < 100 && sets[0].rows.suits_block(gpu, split) {
        let us = time(gpu, sets, Some(Method::Block { split }))?;
        lines.push(line(shape, rows, bits, us, "  a block"));
    }
    for wgmma in [true] {
        for (groups, resident) in [(1, 4), (2, 2), (4, 1), (5, 1), (1, 1), (2, 1)] {
            for p1_shared in [true, false] {
                let prefetch = true;
                let tensor = method::Tensor {
                    tiles: 1,
                    groups,
                    resident,
                    prefetch,
                    p1_shared,
                    wgmma,
                    split,
                    load: 8,
                };
                if (rows < 100 && groups * resident > 1) || !tensor.fits(gpu, &sets[0].rows) {
                    continue;
                }
                let us = time(gpu, sets, Some(Method::Tensor(tensor)))?;
                let note = format!(
                    "  {groups} groups, {resident} resident, wgmma {wgmma}, P1 shared {p1_shared}"
                );
                println!("{}", line(shape, rows, bits, us, &note));
            }
        }
    }
    Ok(lines)
}
