//! Times of the kernels that move the most bytes in a model.

use super::{Binary, Norm, Number, argmax, binary, copy, softmax};
use crate::{DevicePtr, Gpu, GpuError, timer};

const ROWS: usize = 2048;
const HIDDEN: usize = 4096;
const VOCABULARY: usize = 128_256;
/// Launches that are timed together.
const TOGETHER: usize = 20;

/// Microseconds and bandwidth of f16 kernels at the sizes of Llama-3-8B.
///
/// # Errors
/// Those of the device.
pub fn bench(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    let n = ROWS * HIDDEN;
    let buffers: Vec<_> = (0..4).map(|_| gpu.alloc(2 * n)).collect::<Result<_, _>>()?;
    let [x, y, z, w] = [0, 1, 2, 3].map(|i| buffers[i].ptr());
    buffers.iter().try_for_each(|buffer| gpu.zero(buffer.ptr(), buffer.len()))?;
    let mut lines = Vec::new();
    for rows in [ROWS, 1] {
        let n = rows * HIDDEN;
        let shape = [rows, HIDDEN];
        let mut line = |what: &str, bytes: usize, run: &dyn Fn() -> Result<(), GpuError>| {
            time(gpu, &format!("{what}, {rows} × {HIDDEN}"), bytes, run).map(|l| lines.push(l))
        };
        line("add", 6 * n, &|| two(gpu, Binary::Add, (x, &shape), (y, &shape), (z, &shape)))?;
        line("SwiGLU", 6 * n, &|| two(gpu, Binary::SwiGlu, (x, &shape), (y, &shape), (z, &shape)))?;
        line("add a bias", 4 * n, &|| {
            two(gpu, Binary::Add, (x, &shape), (w, &[HIDDEN]), (z, &shape))
        })?;
        let rms = Norm::rms(x, w, y, (rows, HIDDEN), 1e-5);
        line("RMS norm", 4 * n, &|| rms.run(gpu, Number::F16))?;
        line("RMS norm, plain", 4 * n, &|| rms.run_plain(gpu, Number::F16))?;
        let added = Norm { skip: Some(w), weight: None, sum: Some(z), ..rms };
        line("add and RMS norm", 8 * n, &|| added.run(gpu, Number::F16))?;
        line("softmax", 4 * n, &|| softmax(gpu, Number::F16, x, y, [rows, HIDDEN, 1], false))?;
    }
    let axes = [(32, [64, 64 * 2048]), (2048, [2048, 64]), (64, [1, 1])].map(|a| (a.0, a.1));
    lines.push(time(gpu, "heads before tokens, 2048 × 32 × 64", 4 * 32 * 2048 * 64, &|| {
        copy(gpu, 2, x, y, &axes)
    })?);
    let transposed = [(HIDDEN, [1, ROWS as i64]), (ROWS, [HIDDEN as i64, 1])];
    lines.push(time(gpu, &format!("transpose, {ROWS} × {HIDDEN}"), 4 * n, &|| {
        copy(gpu, 2, x, y, &transposed)
    })?);
    lines.push(time(gpu, &format!("argmax of {VOCABULARY}"), 2 * VOCABULARY, &|| {
        argmax(gpu, Number::F16, x, y, (1, VOCABULARY))
    })?);
    Ok(lines)
}

type Operand<'a> = (DevicePtr, &'a [usize]);

fn two(gpu: &Gpu, op: Binary, a: Operand, b: Operand, y: Operand) -> Result<(), GpuError> {
    binary(gpu, op, Number::F16, a, b, y)
}

/// A line of the table: median over several launches of a captured graph.
fn time(
    gpu: &Gpu,
    what: &str,
    bytes: usize,
    run: &dyn Fn() -> Result<(), GpuError>,
) -> Result<String, GpuError> {
    run()?;
    let mut graph = gpu.capture(|| (0..TOGETHER).try_for_each(|_| run()))?;
    let us = timer::median_us(gpu, 20, || gpu.replay(&mut graph))? / TOGETHER as f64;
    Ok(format!("{what:45} {us:9.2} µs {:9.1} GB/s", bytes as f64 / us / 1e3))
}
