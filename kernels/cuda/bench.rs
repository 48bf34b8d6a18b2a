//! `cuda-bench AREA`: times the kernels of an area.

use std::process::ExitCode;

use planish_cuda::{Gpu, GpuError};

fn main() -> ExitCode {
    let areas: Vec<String> = std::env::args().skip(1).collect();
    match run(&areas) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Bench = fn(&Gpu) -> Result<Vec<String>, GpuError>;

/// The areas that have benchmarks.
const AREAS: &[(&str, Bench)] = &[
    ("gemm", planish_cuda::gemm::bench),
    ("gemv", planish_cuda::gemv::bench),
    ("transform", planish_cuda::transform::bench),
    ("attention", planish_cuda::attention::bench),
    ("learning", planish_cuda::attention::bench_learning),
    ("elementwise", planish_cuda::elementwise::bench::bench),
];

fn run(areas: &[String]) -> Result<(), GpuError> {
    let gpu = Gpu::open(0)?;
    println!("{}", gpu.properties().name);
    for (name, bench) in
        AREAS.iter().filter(|(n, _)| areas.is_empty() || areas.iter().any(|a| a == n))
    {
        println!("\n{name}");
        bench(&gpu)?.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}
