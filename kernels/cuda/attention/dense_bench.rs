//! Times of attention over whole sequences and its gradients, with the heads of SmolLM2-135M (9 query
//! heads, 3 key heads, 64 channels) and Llama-3-8B (32, 8, 128).

use super::dense::{DenseAttention, DenseGradients};
use crate::elementwise::Heads;
use crate::testing::random_f32;
use crate::timer::median_us;
use crate::{Gpu, GpuError};

const REPEATS: usize = 20;

/// Each kernel by itself.
///
/// # Errors
/// Those of the kernels.
pub fn bench(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    let mut lines =
        vec![format!("{:52} {:>9} {:>16}", "attention for learning, bf16 products", "µs", "")];
    for sizes in [(4, 9, 3, 2_048, 64), (1, 32, 8, 2_048, 128)] {
        lines.extend(times(gpu, sizes)?);
    }
    Ok(lines)
}

fn times(
    gpu: &Gpu,
    (batch, heads, kv_heads, rows, size): (usize, usize, usize, usize, usize),
) -> Result<Vec<String>, GpuError> {
    let of_q = Heads { batch, heads, rows, size, head_major: false };
    let of_k = Heads { heads: kv_heads, ..of_q };
    let random = |seed, heads: Heads| gpu.upload(&random_f32(seed, heads.n()));
    let (q, k, v, dy) = (random(1, of_q)?, random(2, of_k)?, random(3, of_k)?, random(4, of_q)?);
    let out = |heads: Heads| gpu.alloc(4 * heads.n());
    let (y, dq, dk, dv) = (out(of_q)?, out(of_q)?, out(of_k)?, out(of_k)?);
    let (scale, is_causal) = (1.0 / (size as f32).sqrt(), true);
    let (q, k, v) = ((q.ptr(), of_q), (k.ptr(), of_k), (v.ptr(), of_k));
    let attention = DenseAttention { q, k, v, is_causal, scale };
    let gradients = DenseGradients { dy: dy.ptr(), dq: dq.ptr(), dk: dk.ptr(), dv: dv.ptr() };
    // Of one product of scores under the diagonal.
    let operations = (batch * heads * rows * rows * size) as f64;
    let line = |what: &str, us: f64, products: f64| {
        let what = format!("{what}, {batch} × {rows} tokens, {heads} heads of {size}");
        format!("{what:52} {us:9.1} {:7.1} TFLOP/s", products * operations / us / 1e6)
    };
    let mut lines = Vec::new();
    attention.forward(gpu, y.ptr())?;
    let forward = median_us(gpu, REPEATS, || attention.forward(gpu, y.ptr()))?;
    lines.push(line("attention", forward, 2.0));
    let backward = median_us(gpu, REPEATS, || attention.backward(gpu, &gradients))?;
    lines.push(line("gradients", backward, 7.0));
    for (what, products, us) in attention.times(gpu, &gradients, REPEATS)? {
        lines.push(line(what, us, products));
    }
    Ok(lines)
}
