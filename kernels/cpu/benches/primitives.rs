//! Times the primitives on the shapes of a small language model, and prints a table.
//!
//! Arguments: words that the wanted rows contain (all rows without any).

use planish_cpu::*;
use std::time::Instant;

/// What a row's rate counts.
enum Work {
    Operations(f64),
    Bytes(f64),
    None,
}

struct Bench {
    pool: ThreadPool,
    isa: Isa,
    filters: Vec<String>,
}

impl Bench {
    /// Prints the median and the least time of `f`.
    fn row(&self, op: &str, shape: &str, work: Work, mut f: impl FnMut(&ThreadPool, Isa)) {
        let name = format!("{op} {shape}");
        if !self.filters.is_empty() && !self.filters.iter().any(|w| name.contains(w.as_str())) {
            return;
        }
        let start = Instant::now();
        f(&self.pool, self.isa);
        let once = start.elapsed().as_secs_f64().max(1e-7);
        let inner = (2e-5 / once).ceil().clamp(1.0, 100.0) as usize;
        let samples = (0.25 / (once * inner as f64)).clamp(15.0, 2_000.0) as usize;
        let mut times: Vec<f64> = (0..samples)
            .map(|_| {
                let start = Instant::now();
                (0..inner).for_each(|_| f(&self.pool, self.isa));
                start.elapsed().as_secs_f64() / inner as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (median, least) = (times[times.len() / 2], times[0]);
        let rate = |t: f64| match work {
            Work::Operations(n) => format!("{:8.1} GOP/s", n / t * 1e-9),
            Work::Bytes(n) => format!("{:8.1} GB/s ", n / t * 1e-9),
            Work::None => String::new(),
        };
        println!(
            "{op:<22} {shape:<28} {:>10.2} us {:>10.2} us  {:<16} {}",
            median * 1e6,
            least * 1e6,
            rate(median),
            rate(least)
        );
    }
}

fn floats(n: usize) -> Vec<f32> {
    let mut state = 12345u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

fn codes(n: usize) -> Vec<i8> {
    floats(n).iter().map(|x| (x * 7.4).round() as i8).collect()
}

fn weights(bits: u32, k: usize, n: usize, group: Option<usize>) -> PackedWeights {
    let scales = vec![0.01; n * group.map_or(1, |g| k.div_ceil(g))];
    let spec = WeightSpec { k, n, layout: WeightLayout::Kn, scales: &scales, group };
    let packed = match bits {
        4 => PackedWeights::pack_int4_bytes(&codes(k * n), spec),
        _ => PackedWeights::pack_int8(&codes(k * n), spec),
    };
    packed.expect("the lengths fit")
}

fn main() {
    let filters = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let bench = Bench { pool: ThreadPool::default(), isa: Isa::best(), filters };
    println!("{:?}, {} threads", bench.isa, bench.pool.n_threads());
    println!("{:<22} {:<28} {:>13} {:>13}  rate at each", "op", "shape", "median", "least");
    bench.row("fork-join", "empty", Work::None, |pool, _| pool.run(|_| {}));
    integer(&bench);
    weight_only(&bench);
    float(&bench);
    products(&bench);
    narrow(&bench);
    transforms(&bench);
    rows(&bench);
    gradients(&bench);
    fake_quantizers(&bench);
    inverses(&bench);
    attentions(&bench);
    trained_attention(&bench);
}

fn integer(bench: &Bench) {
    for (k, n) in [(576, 1536), (1536, 576), (576, 576), (576, 192), (4096, 4096)] {
        for (bits, group) in [(4, None), (8, None), (4, Some(128))] {
            if group.is_some_and(|g| k % g != 0) {
                continue;
            }
            let w = weights(bits, k, n, group);
            for m in [1, 4, 8, 16, 64, 512] {
                let (a, scales) = (codes(m * k), vec![0.1; m]);
                let mut out = vec![0.0; m * n];
                let work = match m {
                    1 => Work::Bytes((k * n) as f64 * f64::from(bits) / 8.0),
                    _ => Work::Operations(2.0 * (m * k * n) as f64),
                };
                let name = format!("qgemm w{bits}{}", group.map_or("", |_| " g128"));
                bench.row(&name, &format!("m={m} k={k} n={n}"), work, |pool, isa| {
                    qgemm(pool, isa, &a, &scales, &w, None, &mut out, false);
                });
            }
        }
    }
    streaming(bench);
}

/// Many weights in turn, so that none stays in a core's own cache.
fn streaming(bench: &Bench) {
    let (k, n, count) = (1536, 576, 128);
    let ws: Vec<_> = (0..count).map(|_| weights(4, k, n, None)).collect();
    let (a, mut out, mut i) = (codes(k), vec![0.0; n], 0);
    let work = Work::Bytes((k * n / 2) as f64);
    bench.row("qgemm w4 cold", &format!("m=1 k={k} n={n}"), work, |pool, isa| {
        qgemm(pool, isa, &a, &[0.1], &ws[i % count], None, &mut out, false);
        i += 1;
    });
}

fn weight_only(bench: &Bench) {
    for (bits, k, n) in [(8, 576, 49_152), (4, 576, 1536)] {
        let w = weights(bits, k, n, None);
        for m in [1, 64] {
            let (a, mut out) = (floats(m * k), vec![0.0; m * n]);
            for precision in [Precision::Fixed16, Precision::Exact] {
                let work = match m {
                    1 => Work::Bytes((k * n) as f64 * f64::from(bits) / 8.0),
                    _ => Work::Operations(2.0 * (m * k * n) as f64),
                };
                let name = format!("wgemm w{bits} {precision:?}");
                bench.row(&name, &format!("m={m} k={k} n={n}"), work, |pool, isa| {
                    wgemm(pool, isa, precision, &a, &w, None, &mut out);
                });
            }
        }
    }
}

fn float(bench: &Bench) {
    for (m, k, n) in
        [(1, 576, 1536), (1, 576, 49_152), (8, 576, 1536), (512, 576, 1536), (512, 1536, 576)]
    {
        let (a, b, mut c) = (floats(m * k), floats(k * n), vec![0.0; m * n]);
        for (name, b) in
            [("sgemm [K,N]", MatRef::new(&b, k, n)), ("sgemm [N,K]", MatRef::new(&b, n, k).t())]
        {
            let work = match m {
                1 => Work::Bytes((k * n * 4) as f64),
                _ => Work::Operations(2.0 * (m * k * n) as f64),
            };
            bench.row(name, &format!("m={m} k={k} n={n}"), work, |pool, isa| {
                let (a, c) = (MatRef::new(&a, m, k), MatMut::new(&mut c, m, n));
                sgemm(pool, isa, 1.0, a, b, 0.0, c);
            });
        }
    }
}

/// The products of a calibration step over 2048 tokens: forward, back to the input, and to the
/// weight.
fn products(bench: &Bench) {
    let tokens = 2048;
    for (k, n) in [(576, 576), (576, 192), (576, 1536), (1536, 576)] {
        let (x, w, dy) = (floats(tokens * k), floats(k * n), floats(tokens * n));
        let (x, w) = (MatRef::new(&x, tokens, k), MatRef::new(&w, k, n));
        let dy = MatRef::new(&dy, tokens, n);
        for (name, a, b) in [("X W", x, w), ("dY Wt", dy, w.t()), ("Xt dY", x.t(), dy)] {
            both_precisions(bench, name, a, b);
        }
    }
}

/// Products with the small matrices of transforms.
fn narrow(bench: &Bench) {
    let n = 49_152;
    let long = floats(n * 64);
    for d in [24, 32, 48, 64] {
        let square = floats(d * d);
        let (p, x) = (MatRef::new(&square, d, d), MatRef::new(&long, n, d));
        both_precisions(bench, "tall", x, p);
        both_precisions(bench, "tall Pt", x, p.t());
        both_precisions(bench, "wide", p, MatRef::new(&long, d, n));
        both_precisions(bench, "wide Pt", p.t(), MatRef::new(&long, d, n));
        both_precisions(bench, "deep Xt X", x.t(), x);
    }
}

fn both_precisions(bench: &Bench, name: &str, a: MatRef<'_>, b: MatRef<'_>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let mut c = vec![0.0; m * n];
    for precision in [ProductPrecision::F32, ProductPrecision::BF16] {
        let work = Work::Operations(2.0 * (m * k * n) as f64);
        let name = format!("gemm {precision:?} {name}");
        bench.row(&name, &format!("m={m} k={k} n={n}"), work, |pool, isa| {
            gemm(pool, isa, precision, 1.0, a, b, 0.0, MatMut::new(&mut c, m, n));
        });
    }
}

fn transforms(bench: &Bench) {
    for (n1, n2) in [(24, 24), (32, 48)] {
        let n = n1 * n2;
        let (p1, p2, weight) = (floats(n1 * n1), floats(n2 * n2), floats(n));
        let t = Kronecker { n1, n2, p1: Some(&p1), p2: Some(&p2) };
        for m in [1, 512] {
            let (x, y) = (floats(m * n), floats(m * n));
            let (mut out, mut scales) = (vec![0; m * n], vec![0.0; m]);
            let norm = RowSource::RmsNorm { x: &x, weight: &weight, eps: 1e-5 };
            let gated = RowSource::SwiGlu { gate: &x, up: &y };
            for (name, source) in [
                ("transform", RowSource::Plain(&x)),
                ("norm+transform", norm),
                ("swiglu+transform", gated),
            ] {
                let work = Work::Operations((2 * m * n * (n1 + n2)) as f64);
                bench.row(name, &format!("m={m} n={n1}*{n2}"), work, |pool, isa| {
                    let spec = QuantSpec::new(4);
                    transform_quantize(pool, isa, source, t, spec, &mut out, &mut scales);
                });
            }
        }
    }
}

fn rows(bench: &Bench) {
    let n = 576;
    for m in [1, 512] {
        let (x, y, mut out) = (floats(m * n), floats(m * n), vec![0.0; m * n]);
        let (weight, table) = (floats(n), floats(m * 32));
        let shape = format!("m={m} n={n}");
        let bytes = |arrays: usize| Work::Bytes((m * n * 4 * arrays) as f64);
        bench.row("rms_norm", &shape, bytes(2), |pool, isa| {
            rms_norm(pool, isa, &x, None, &weight, 1e-5, &mut out);
        });
        bench.row("silu_mul", &shape, bytes(3), |pool, isa| silu_mul(pool, isa, &x, &y, &mut out));
        bench
            .row("softmax", &shape, bytes(2), |pool, isa| softmax_rows(pool, isa, &x, n, &mut out));
        let spec = RotarySpec { n_heads: 9, head_dim: 64, rotary_dim: 64, interleaved: false };
        bench.row("rotary", &shape, bytes(2), |pool, isa| {
            rotary(pool, isa, &x, spec, &table, &table, &mut out);
        });
        let (mut codes, mut scales) = (vec![0; m * n], vec![0.0; m]);
        bench.row("quantize_rows", &shape, bytes(1), |pool, isa| {
            quantize_rows(pool, isa, &x, n, QuantSpec::new(8), &mut codes, &mut scales);
        });
    }
}

/// Forward and backward at the rows of a training step.
fn gradients(bench: &Bench) {
    let m = 2048;
    for (n1, n2) in [(24, 24), (32, 48), (9, 64), (112, 128)] {
        let n = n1 * n2;
        let (p1, p2) = (floats(n1 * n1), floats(n2 * n2));
        let p2 = (n1 != 9).then_some(&p2[..]);
        let t = Kronecker { n1, n2, p1: Some(&p1), p2 };
        let (x, dy, mut dx) = (floats(m * n), floats(m * n), vec![0.0; m * n]);
        let mut factors = vec![0.0; n1 * n1 + p2.map_or(0, <[f32]>::len)];
        let k2 = if p2.is_some() { n2 } else { 0 };
        let shape = format!("m={m} n={n1}*{n2}");
        let work = |k: usize| Work::Operations((2 * m * n * k) as f64);
        bench.row("transform_rows", &shape, work(n1 + k2), |pool, isa| {
            transform_rows(pool, isa, RowSource::Plain(&x), t, &mut dx);
        });
        let k = if p2.is_some() { 3 * n1 + 2 * n2 } else { 2 * n1 };
        bench.row("transform_rows_grad", &shape, work(k), |pool, isa| {
            transform_rows_grad(pool, isa, &dy, &x, t, &mut dx, &mut factors);
        });
    }
    for n in [576, 1536] {
        let (x, y, dy) = (floats(m * n), floats(m * n), floats(m * n));
        let (mut out, mut second) = (vec![0.0; m * n], vec![0.0; m * n]);
        let (weight, mut sums) = (floats(n), vec![0.0; 2 * n]);
        let shape = format!("m={m} n={n}");
        let bytes = |arrays: usize| Work::Bytes((m * n * 4 * arrays) as f64);
        bench.row("rms_norm", &shape, bytes(2), |pool, isa| {
            rms_norm(pool, isa, &x, None, &weight, 1e-5, &mut out);
        });
        bench.row("rms_norm_grad", &shape, bytes(3), |pool, isa| {
            rms_norm_grad(pool, isa, &dy, &x, &weight, 1e-5, &mut out, &mut sums[..n]);
        });
        bench.row("layer_norm", &shape, bytes(2), |pool, isa| {
            layer_norm(pool, isa, &x, None, &weight, None, 1e-5, &mut out);
        });
        bench.row("layer_norm_grad", &shape, bytes(3), |pool, isa| {
            layer_norm_grad(pool, isa, &dy, &x, &weight, 1e-5, &mut out, &mut sums);
        });
        bench.row("silu_mul", &shape, bytes(3), |pool, isa| silu_mul(pool, isa, &x, &y, &mut out));
        bench.row("silu_mul_grad", &shape, bytes(5), |pool, isa| {
            silu_mul_grad(pool, isa, &dy, &x, &y, &mut out, &mut second);
        });
        bench.row("gelu_tanh", &shape, bytes(2), |pool, isa| gelu_tanh(pool, isa, &x, &mut out));
        bench.row("gelu_tanh_grad", &shape, bytes(3), |pool, isa| {
            gelu_tanh_grad(pool, isa, &dy, &x, &mut out);
        });
    }
}

fn fake_quantizers(bench: &Bench) {
    for (m, n) in [(2048, 1536), (2048, 576)] {
        let (x, dy, mut out) = (floats(m * n), floats(m * n), vec![0.0; m * n]);
        let shape = format!("m={m} n={n}");
        let bytes = |arrays: usize| Work::Bytes((m * n * 4 * arrays) as f64);
        let spec = QuantSpec { bits: 4, clip_min: 0.9, clip_max: 0.9 };
        bench.row("fake rows", &shape, bytes(2), |pool, isa| {
            fake_quantize_rows(pool, isa, &x, n, spec, &mut out);
        });
        bench.row("fake rows grad", &shape, bytes(3), |pool, isa| {
            fake_quantize_rows_grad(pool, isa, &dy, &x, n, spec, &mut out);
        });
    }
    for (k, n, block) in [(576, 1536, 0), (1536, 576, 0), (1536, 576, 128), (4096, 4096, 0)] {
        let (w, dy, mut out) = (floats(k * n), floats(k * n), vec![0.0; k * n]);
        let n_clips = n * k.checked_div(block).unwrap_or(1);
        let (clip, mut of_max, mut of_min) =
            (vec![0.9; n_clips], vec![0.0; n_clips], vec![0.0; n_clips]);
        let shape = format!("k={k} n={n} block={block}");
        let bytes = |arrays: usize| Work::Bytes((k * n * 4 * arrays) as f64);
        let (spec, clips) =
            (ColumnSpec { n, block, bits: 4 }, ColumnClips { max: &clip, min: &clip });
        bench.row("fake columns", &shape, bytes(2), |pool, isa| {
            fake_quantize_columns(pool, isa, &w, spec, clips, &mut out);
        });
        bench.row("fake columns grad", &shape, bytes(3), |pool, isa| {
            let of_clips = ColumnClipsMut { max: &mut of_max, min: &mut of_min };
            fake_quantize_columns_grad(pool, isa, &dy, &w, spec, clips, &mut out, of_clips);
        });
    }
    let (m, heads, d) = (2048, 3, 64);
    let n = m * heads * d;
    let (x, dy, mut out) = (floats(n), floats(n), vec![0.0; n]);
    let (shape, clip) = (format!("m={m} n={heads}*{d}"), Clip { min: 0.9, max: 0.9 });
    let bytes = |arrays: usize| Work::Bytes((n * 4 * arrays) as f64);
    bench.row("fake heads", &shape, bytes(2), |pool, isa| {
        quantize_dequantize_heads(pool, isa, &x, heads, d, 4, clip, &mut out);
    });
    bench.row("fake heads grad", &shape, bytes(3), |pool, isa| {
        fake_quantize_heads_grad(pool, isa, &dy, &x, d, 4, clip, &mut out);
    });
}

fn inverses(bench: &Bench) {
    for n in [24, 64, 128, 576, 1536] {
        let (x, mut out) = (floats(n * n), vec![0.0; n * n]);
        let work = Work::Operations(2.0 * (n as f64).powi(3));
        bench.row("inverse", &format!("n={n}"), work, |pool, isa| {
            inverse(pool, isa, &x, n, &mut out).expect("random matrices have inverses");
        });
    }
}

fn attentions(bench: &Bench) {
    let (n_heads, n_kv_heads, head_dim) = (9, 3, 64);
    let int4 = KvFormat::Int4(Clip::default());
    for (name, format) in
        [("int4", int4), ("int8", KvFormat::Int8(Clip::default())), ("f32", KvFormat::F32)]
    {
        let kv = KvSpec { n_kv_heads, head_dim, keys: format, values: format };
        let spec = AttentionSpec {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: 0.125,
            softcap: None,
            causal: true,
            window: None,
            pad_mask: None,
        };
        let rows = floats(512 * n_kv_heads * head_dim);
        let mut cache = KvCache::new(kv);
        bench.row("kv append", &format!("{name} t=512"), Work::None, |pool, isa| {
            cache.clear();
            cache.append(pool, isa, &rows, &rows);
        });
        cache.clear();
        cache.append(&bench.pool, bench.isa, &rows, &rows);
        for (s, past) in [(1, 511), (512, 0)] {
            let q = floats(s * n_heads * head_dim);
            let mut out = vec![0.0; q.len()];
            let pairs = if s == 1 { 512 } else { 512 * 513 / 2 };
            let work = Work::Operations((4 * n_heads * head_dim * pairs) as f64);
            bench.row("attention", &format!("{name} s={s} past={past}"), work, |pool, isa| {
                attention(pool, isa, &q, &cache, past, spec, &mut out);
            });
        }
    }
}

/// Causal attention over activations, forward and backward; operations that the causal mask saves
/// are not counted.
fn trained_attention(bench: &Bench) {
    let (n_heads, n_kv_heads, dim) = (9, 3, 64);
    for (batch, rows) in [(4, 512), (1, 2048)] {
        let layout = |heads| HeadLayout { batch, heads, rows, dim, head_major: false };
        let (wide, narrow) = (layout(n_heads), layout(n_kv_heads));
        let spec = DenseAttention {
            q: wide,
            k: narrow,
            v: narrow,
            y: wide,
            scale: 0.125,
            softcap: None,
            causal: true,
            window: None,
            first_position: 0,
            mask: None,
        };
        let (q, k) = (floats(wide.n_elements()), floats(narrow.n_elements()));
        let x = AttentionInputs { q: &q, k: &k, v: &k };
        let (mut y, mut dk, mut dv) = (q.clone(), k.clone(), k.clone());
        let product = (2 * batch * n_heads * dim) as f64 * (rows * (rows + 1) / 2) as f64;
        let shape = format!("b={batch} s={rows}");
        bench.row("attention forward", &shape, Work::Operations(2.0 * product), |pool, isa| {
            attention_forward(pool, isa, &spec, x, &mut y);
        });
        bench.row("attention backward", &shape, Work::Operations(5.0 * product), |pool, isa| {
            let out = AttentionGradients { dq: &mut y, dk: &mut dk, dv: &mut dv };
            attention_backward(pool, isa, &spec, x, &q, out);
        });
    }
}
