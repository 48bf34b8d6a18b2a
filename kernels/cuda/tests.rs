//! Tests of the device layer, and that every kernel compiles.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::testing::{gpu, random_codes, random_f32};
use crate::{
    Archs, Args, DeviceBuffer, GpuError, Launch, PackedWeights, Source, WeightOrder, cublas,
};
use crate::{Element, compile, nvrtc_is_present, sources};

/// Without a GPU this needs NVRTC alone, which pip has.
#[test]
fn every_kernel_compiles_for_every_architecture() {
    if !nvrtc_is_present() {
        assert!(std::env::var_os("PLANISH_REQUIRE_NVRTC").is_none(), "NVRTC was not found");
        eprintln!("skipped: NVRTC is not installed");
        return;
    }
    let all: Vec<_> = sources().chain([&crate::weights::PACK]).flat_map(variants).collect();
    assert!(all.len() >= 100, "only {} are there", all.len());
    let next = AtomicUsize::new(0);
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                let cubin = compile(one.source, one.arch, &one.defines);
                assert!(cubin.unwrap_or_else(|e| panic!("{e}")).starts_with(b"\x7fELF"));
            }
        };
        (0..n_threads).for_each(|_| {
            scope.spawn(work);
        });
    });
}

/// A source with its definitions, for an architecture.
struct Variant {
    source: &'static Source,
    arch: &'static str,
    defines: Vec<String>,
}

fn variants(source: &'static Source) -> Vec<Variant> {
    let defines = source.variants.iter().map(|variant| {
        variant.iter().map(|(name, value)| format!("-D{name}={value}")).collect::<Vec<_>>()
    });
    let for_arch = |defines: Vec<String>| {
        let archs = source.archs.names().iter();
        archs.map(move |arch| Variant { source, arch, defines: defines.clone() })
    };
    defines.flat_map(for_arch).collect()
}

static BROKEN: Source = Source {
    name: "broken.cu",
    text: "extern \"C\" __global__ void f( {",
    archs: Archs::All,
    variants: &[],
};

#[test]
fn a_source_that_does_not_compile_gives_the_compilers_log() {
    if nvrtc_is_present() {
        let error = compile(&BROKEN, "90a", &[]).unwrap_err().to_string();
        assert!(error.contains("broken.cu") && error.contains("error"), "{error}");
    }
}

static SCALE: Source = Source {
    name: "scale.cu",
    text: "#include \"common.cuh\"\n\
        extern \"C\" __global__ void scale(const T *x, T *y, float by, int n)\n\
        { int i = blockIdx.x * blockDim.x + threadIdx.x;\n\
          wait_for_previous_kernel(); let_next_kernel_start();\n\
          if (i < n) y[i] = from_f32<T>(to_f32(x[i]) * by); }",
    archs: Archs::All,
    variants: &[],
};

#[test]
fn a_kernel_runs_alone_and_in_a_graph() {
    let Some(gpu) = gpu() else { return };
    let scale = gpu.function(&SCALE, "scale", &[Element::F32.define()]).unwrap();
    let data = random_f32(1, 1000);
    let x = gpu.upload(&data).unwrap();
    let y = gpu.alloc(4000).unwrap();
    let launch = Launch::linear(4, 256).overlapping();
    let run =
        |from, to| gpu.launch(&scale, launch, &Args::new().ptr(from).ptr(to).f32(2.0).i32(1000));
    run(x.ptr(), y.ptr()).unwrap();
    let doubled: Vec<f32> = gpu.download(y.ptr(), 1000).unwrap();
    assert!(data.iter().zip(&doubled).all(|(a, b)| 2.0 * a == *b));
    // In place, twice a replay.
    let mut graph = gpu
        .capture(|| {
            run(x.ptr(), x.ptr())?;
            run(x.ptr(), x.ptr())
        })
        .unwrap();
    gpu.replay(&mut graph).unwrap();
    gpu.replay(&mut graph).unwrap();
    let powers: Vec<f32> = gpu.download(x.ptr(), 1000).unwrap();
    assert!(data.iter().zip(&powers).all(|(a, b)| 16.0 * a == *b));
}

#[test]
fn a_kernel_keeps_its_shared_memory_when_others_ask_for_less() {
    let Some(gpu) = gpu() else { return };
    let find = || gpu.function(&SCALE, "scale", &[Element::F32.define()]).unwrap();
    let (one, other) = (find(), find());
    let x = gpu.upload(&random_f32(1, 1000)).unwrap();
    let run = |f, shared| {
        let args = Args::new().ptr(x.ptr()).ptr(x.ptr()).f32(2.0).i32(1000);
        gpu.launch(f, Launch::linear(4, 256).with_shared(shared), &args)
    };
    run(&one, 96 << 10).unwrap();
    run(&other, 64 << 10).unwrap();
    run(&one, 96 << 10).unwrap();
    gpu.synchronize().unwrap();
}

#[test]
fn what_runs_side_by_side_waits_for_what_it_needs() {
    const N: usize = 1 << 20;
    let Some(gpu) = gpu() else { return };
    let scale = gpu.function(&SCALE, "scale", &[Element::F32.define()]).unwrap();
    let x = gpu.upload(&random_f32(1, N)).unwrap();
    let outputs = [gpu.alloc(4 * N).unwrap(), gpu.alloc(4 * N).unwrap()];
    let run = |from, to, by| {
        let args = Args::new().ptr(from).ptr(to).f32(by).i32(N as i32);
        gpu.launch(&scale, Launch::linear(N / 256, 256).overlapping(), &args)
    };
    // Two chains in turns, each doubling and halving what it has; memory goes from one to the other.
    let mut graph = gpu
        .capture_woven(|| {
            let mut chains: [Option<DeviceBuffer>; 2] = [None, None];
            for step in 0..65 {
                for (chain, output) in chains.iter_mut().zip(&outputs) {
                    let from = chain.as_ref().map_or(x.ptr(), DeviceBuffer::ptr);
                    gpu.begin_piece()?;
                    gpu.piece_reads(from, 4 * N)?;
                    let made = gpu.alloc(4 * N)?;
                    run(from, made.ptr(), if step % 2 == 0 { 2.0 } else { 0.5 })?;
                    if step == 64 {
                        run(made.ptr(), output.ptr(), 1.0)?;
                    }
                    gpu.end_piece()?;
                    *chain = Some(made);
                }
            }
            Ok::<_, GpuError>(())
        })
        .unwrap();
    for _ in 0..3 {
        gpu.zero(outputs[0].ptr(), 4 * N).unwrap();
        gpu.zero(outputs[1].ptr(), 4 * N).unwrap();
        gpu.replay(&mut graph).unwrap();
        for output in &outputs {
            let doubled: Vec<f32> = gpu.download(output.ptr(), N).unwrap();
            assert!(random_f32(1, N).iter().zip(&doubled).all(|(a, b)| 2.0 * a == *b));
        }
    }
}

#[test]
fn what_other_threads_start_is_not_recorded() {
    let Some(gpu) = gpu() else { return };
    let scale = gpu.function(&SCALE, "scale", &[Element::F32.define()]).unwrap();
    let x = gpu.upload(&[1f32; 4]).unwrap();
    let double = || {
        let args = Args::new().ptr(x.ptr()).ptr(x.ptr()).f32(2.0).i32(4);
        gpu.launch(&scale, Launch::linear(1, 32), &args)
    };
    let started = std::sync::Barrier::new(2);
    let mut graph = std::thread::scope(|scope| {
        scope.spawn(|| {
            started.wait();
            double().unwrap();
        });
        gpu.capture(|| {
            started.wait();
            std::thread::sleep(std::time::Duration::from_millis(20));
            double()
        })
        .unwrap()
    });
    gpu.replay(&mut graph).unwrap();
    assert_eq!(gpu.download::<f32>(x.ptr(), 4).unwrap(), [4.0; 4]);
}

#[test]
fn other_threads_go_on_while_one_weaves() {
    let Some(gpu) = gpu() else { return };
    let x = gpu.upload(&[1f32; 4]).unwrap();
    let started = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            started.wait();
            gpu.piece_reads(x.ptr(), 16).unwrap();
            gpu.zero(x.ptr(), 16).unwrap();
        });
        gpu.capture_woven(|| {
            started.wait();
            std::thread::sleep(std::time::Duration::from_millis(20));
            gpu.begin_piece()?;
            drop(gpu.alloc(16)?);
            gpu.end_piece()
        })
        .unwrap();
    });
    assert_eq!(gpu.download::<f32>(x.ptr(), 4).unwrap(), [0.0; 4]);
}

#[test]
fn memory_beyond_the_device_is_an_error_with_both_numbers() {
    let Some(gpu) = gpu() else { return };
    let error = gpu.alloc_exact(1 << 45).unwrap_err();
    assert!(matches!(error, GpuError::Memory { needed, free } if needed == 1 << 45 && free > 0));
}

#[test]
fn packed_codes_lie_where_the_format_says() {
    let Some(gpu) = gpu() else { return };
    let (k, n) = (70, 19);
    for bits in [4, 8] {
        let codes = random_codes(3, k * n, bits);
        let raw: Vec<u8> = match bits {
            8 => codes.iter().map(|c| *c as u8).collect(),
            _ => codes.chunks(2).map(|p| (p[0] as u8 & 15) | (p[1] as u8) << 4).collect(),
        };
        let packed = PackedWeights::pack(&gpu, &raw, bits, (k, n), WeightOrder::Kn).unwrap();
        let bytes: Vec<u8> = gpu.download(packed.ptr(), packed.bytes()).unwrap();
        for input in 0..128 {
            for output in 0..64 {
                let inside = input < k && output < n;
                let expected = if inside { codes[input * n + output] } else { 0 };
                assert_eq!(read_packed(&bytes, bits, 128, input, output), expected);
            }
        }
    }
}

/// The code at (input, output) of packed weights.
fn read_packed(bytes: &[u8], bits: u32, padded_k: usize, input: usize, output: usize) -> i8 {
    let tile_k = if bits == 4 { 64 } else { 32 };
    let tile = output / 16 * (padded_k / tile_k) + input / tile_k;
    let (o, i) = (output % 16, input % 32);
    let lane = o % 8 * 4 + i % 16 / 4;
    let word = o / 8 + 2 * (i / 16);
    let byte = bytes[tile * 512 + lane * 16 + word * 4 + i % 4];
    match (bits, input % tile_k / 32) {
        (8, _) => byte as i8,
        (_, 0) => (byte << 4) as i8 >> 4,
        _ => byte as i8 >> 4,
    }
}

#[test]
fn cublas_multiplies_row_major_matrices() {
    let Some(gpu) = gpu() else { return };
    let (rows, k, n) = (5, 7, 3);
    let (x_host, w_host) = (random_f32(1, rows * k), random_f32(2, k * n));
    let turned = |data: &[f32], rows: usize, columns: usize| -> Vec<f32> {
        (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect()
    };
    let (x_turned, w_turned) = (turned(&x_host, rows, k), turned(&w_host, k, n));
    let [x_at, x_turned] = [&x_host, &x_turned].map(|data| gpu.upload(data).unwrap());
    let [w_at, w_turned] = [&w_host, &w_turned].map(|data| gpu.upload(data).unwrap());
    let out = gpu.alloc(4 * rows * n).unwrap();
    for (trans_x, trans_w) in [(false, false), (false, true), (true, false), (true, true)] {
        let x = if trans_x { x_turned.ptr() } else { x_at.ptr() };
        let w = if trans_w { w_turned.ptr() } else { w_at.ptr() };
        let out = out.ptr();
        let element = Element::F32;
        let gemm = cublas::Gemm {
            rows,
            k,
            n,
            x,
            w,
            trans_w,
            out,
            element,
            trans_x,
            alpha: -2.0,
            accumulate: false,
            tf32: false,
        };
        cublas::gemm(&gpu, gemm).unwrap();
        let got: Vec<f32> = gpu.download(out, rows * n).unwrap();
        for (i, value) in got.iter().enumerate() {
            let (row, column) = (&rows_of(&x_host, k)[i / n], i % n);
            let expected: f32 = -2.0 * (0..k).map(|i| row[i] * w_host[i * n + column]).sum::<f32>();
            assert!((value - expected).abs() < 1e-5, "{value} for {expected}");
        }
    }
}

fn rows_of(data: &[f32], width: usize) -> Vec<&[f32]> {
    data.chunks(width).collect()
}
