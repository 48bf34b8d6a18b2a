//! Times of the kernels that move the most bytes in a model.

use super::kronecker_bench;
use super::{
    Binary, GatherSizes, Heads, Indices, Norm, Number, Positions, Product, Reduce, Rotary, Scores,
    Unary, Walk, argmax, binary, cast, copy, gather, reduce, softmax, unary,
};
use crate::{DeviceBuffer, DevicePtr, Gpu, GpuError, timer};

const ROWS: usize = 2048;
const HIDDEN: usize = 4096;
const HEADS: usize = 32;
const VOCABULARY: usize = 128_256;
/// Launches that are timed together.
const TOGETHER: usize = 20;

/// What is timed: a name, the bytes that must move, and the launches.
type Case<'a> = (String, usize, Box<dyn Fn() -> Result<(), GpuError> + 'a>);

/// Microseconds and bandwidth of f16 kernels at the sizes of Llama-3-8B.
///
/// # Errors
/// Those of the device.
pub fn bench(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    let bytes = (4 * ROWS * HIDDEN).max(kronecker_bench::BYTES);
    let buffers: Vec<_> = (0..4).map(|_| gpu.alloc(bytes)).collect::<Result<_, _>>()?;
    buffers.iter().try_for_each(|buffer| gpu.zero(buffer.ptr(), buffer.len()))?;
    let bench = Bench { gpu, buffers: &buffers };
    let cases = [ROWS, 1].into_iter().flat_map(|rows| bench.rows(rows));
    let cases = cases.chain(bench.moves()).chain(bench.others());
    let learned = kronecker_bench::cases(gpu, &buffers);
    cases.chain(learned).map(|case| bench.time(&case)).collect()
}

struct Bench<'a> {
    gpu: &'a Gpu,
    buffers: &'a [DeviceBuffer],
}

impl<'a> Bench<'a> {
    fn pointers(&self) -> [DevicePtr; 4] {
        [0, 1, 2, 3].map(|i| self.buffers[i].ptr())
    }

    /// Of `rows` rows of the hidden state.
    fn rows(&self, rows: usize) -> Vec<Case<'a>> {
        let (gpu, [x, y, z, w]) = (self.gpu, self.pointers());
        let n = rows * HIDDEN;
        let shape = [rows, HIDDEN];
        let two = move |op| {
            let [a, b] = [x, y].map(|p| (p, &shape[..]));
            binary(gpu, op, Number::F16, a, b, (z, &shape))
        };
        let rotary = self.rotary(rows);
        let rms = Norm::rms(x, w, y, (rows, HIDDEN), 1e-5);
        let added = Norm { skip: Some(w), weight: None, sum: Some(z), ..rms };
        let reduced =
            move |over: [bool; 2]| reduce(gpu, (Reduce::Sum, Number::F16), (x, &shape), &over, y);
        let case = |what: &str, bytes, run| (format!("{what}, {rows} × {HIDDEN}"), bytes, run);
        vec![
            case("add", 6 * n, Box::new(move || two(Binary::Add)) as Box<dyn Fn() -> _>),
            case("SwiGLU", 6 * n, Box::new(move || two(Binary::SwiGlu))),
            case(
                "add a bias",
                4 * n,
                Box::new(move || {
                    let (a, b) = ((x, &shape[..]), (w, &shape[1..]));
                    binary(gpu, Binary::Add, Number::F16, a, b, (z, &shape))
                }),
            ),
            case(
                "GELU",
                4 * n,
                Box::new(move || unary(gpu, Unary::Gelu, 0.0, Number::F16, x, y, n)),
            ),
            case(
                "cast to f32",
                6 * n,
                Box::new(move || cast(gpu, (x, Number::F16), (y, Number::F32), n)),
            ),
            case("RMS norm", 4 * n, Box::new(move || rms.run(gpu, Number::F16))),
            case("RMS norm, plain", 4 * n, Box::new(move || rms.run_plain(gpu, Number::F16))),
            case("add and RMS norm", 8 * n, Box::new(move || added.run(gpu, Number::F16))),
            case(
                "softmax",
                4 * n,
                Box::new(move || softmax(gpu, Number::F16, x, y, [rows, HIDDEN, 1], false)),
            ),
            case("sum of rows", 2 * n, Box::new(move || reduced([false, true]))),
            case("sum of columns", 2 * n, Box::new(move || reduced([true, false]))),
            case("rotary embedding", 4 * n, Box::new(move || rotary.run(gpu, Number::F16))),
        ]
    }

    fn rotary(&self, rows: usize) -> Rotary {
        let [x, y, z, w] = self.pointers();
        let size = HIDDEN / HEADS;
        Rotary {
            x,
            y,
            heads: Heads { batch: 1, heads: HEADS, rows, size, head_major: false },
            cosines: z,
            sines: w,
            n_rows: rows,
            half: size / 2,
            positions: Positions::InOrder { step: 0 },
            is_interleaved: false,
        }
    }

    fn moves(&self) -> Vec<Case<'a>> {
        let (gpu, [x, y, _, w]) = (self.gpu, self.pointers());
        let n = ROWS * HIDDEN;
        let size = HIDDEN / HEADS;
        let (head, row) = (size as i64, HIDDEN as i64);
        let heads = [(HEADS, [head, head * ROWS as i64]), (ROWS, [row, head]), (size, [1, 1])];
        let turned = [(HIDDEN, [1, ROWS as i64]), (ROWS, [row, 1])];
        let half = [(ROWS, [row, row / 2]), (HIDDEN / 2, [1, 1])];
        let sizes = GatherSizes { outer: 1, size: ROWS, inner: HIDDEN, n_indices: ROWS };
        vec![
            (
                format!("heads before tokens, {ROWS} × {HEADS} × {size}"),
                4 * n,
                Box::new(move || copy(gpu, 2, x, y, &heads)) as Box<dyn Fn() -> _>,
            ),
            (
                format!("transpose, {ROWS} × {HIDDEN}"),
                4 * n,
                Box::new(move || copy(gpu, 2, x, y, &turned)),
            ),
            (
                format!("half of the columns, {ROWS} × {HIDDEN}"),
                2 * n,
                Box::new(move || copy(gpu, 2, x, y, &half)),
            ),
            (
                format!("gather {ROWS} rows of {HIDDEN}"),
                4 * n,
                Box::new(move || gather(gpu, 2, x, Indices::new(w, Number::I64)?, y, sizes)),
            ),
        ]
    }

    fn others(&self) -> Vec<Case<'a>> {
        let (gpu, [x, y, z, w]) = (self.gpu, self.pointers());
        let size = HIDDEN / HEADS;
        let heads = |heads, rows| Heads { batch: 1, heads, rows, size, head_major: true };
        let scores = Scores {
            q: (x, heads(HEADS, 1)),
            k: (y, heads(8, ROWS)),
            v: (z, heads(8, ROWS)),
            y: (w, heads(HEADS, 1)),
            stage: None,
            mask: None,
            lengths: None,
            n_past: ROWS - 1,
            is_causal: true,
            windows: [-1; 2],
            scale: 0.1,
            softcap: 0.0,
        };
        let product = move |m: usize| {
            let (k, n) = (HIDDEN, HIDDEN / 2);
            let (a, b) = ((x, [k as i64, 1]), (y, [n as i64, 1]));
            Product { a, b, bias: None, y: z, m, k, n, alpha: 1.0, batch: Walk::new(&[])? }
                .run(gpu, Number::F16)
        };
        vec![
            (
                format!("argmax of {VOCABULARY}"),
                2 * VOCABULARY,
                Box::new(move || argmax(gpu, Number::F16, x, y, (1, VOCABULARY)))
                    as Box<dyn Fn() -> _>,
            ),
            (
                format!("plain attention, 1 query, {ROWS} keys, 32 over 8 heads"),
                4 * 8 * ROWS * size,
                Box::new(move || scores.run(gpu, Number::F16)),
            ),
            (
                format!("plain product, 1 × {HIDDEN} × {}", HIDDEN / 2),
                HIDDEN * HIDDEN,
                Box::new(move || product(1)),
            ),
            (
                format!("tiled product, 256 × {HIDDEN} × {}", HIDDEN / 2),
                HIDDEN * HIDDEN,
                Box::new(move || product(256)),
            ),
        ]
    }

    /// A line of the table: median over several launches of a captured graph.
    fn time(&self, (what, bytes, run): &Case) -> Result<String, GpuError> {
        run()?;
        let mut graph = self.gpu.capture(|| (0..TOGETHER).try_for_each(|_| run()))?;
        let us = timer::median_us(self.gpu, 20, || self.gpu.replay(&mut graph))?;
        let us = us / TOGETHER as f64;
        Ok(format!("{what:58} {us:9.2} µs {:9.1} GB/s", *bytes as f64 / us / 1e3))
    }
}
