//! Writing random weights to a file, by several threads.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use half::f16;
use half::slice::HalfFloatSliceExt;
use planish_ir::DataType;

use super::random::Sequence;
use super::weights::{Kind, Layout, Placed};
use crate::error::{Result, at};
use crate::progress::Progress;

/// Elements that are made and written together, about.
const PART: usize = 1 << 20;
/// More threads than this would wait for the disk.
const MAX_THREADS: usize = 32;

/// Standard deviation of matrices.
const DEVIATION: f32 = 0.02;
/// The same of a norm's weight around 1.
const NORM_DEVIATION: f32 = 0.1;
/// One channel of the residual stream in so many is large…
const CHANNELS_PER_OUTLIER: usize = 512;
/// …by this factor.
const OUTLIER: f32 = 8.0;
/// The sequence of random numbers that says which: no weight has it.
const OUTLIER_SEQUENCE: u64 = u64::MAX;

/// Some rows of a weight.
struct Part {
    /// Number of the weight.
    weight: usize,
    first_row: usize,
    rows: usize,
}

/// Makes the file at `path` with all weights of the layout.
pub(super) fn fill(
    layout: &Layout,
    seed: u64,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let file = File::create(path).and_then(|file| file.set_len(layout.bytes));
    file.map_err(at(path))?;
    let parts: Vec<Part> = layout.weights.iter().enumerate().flat_map(parts_of).collect();
    let next = AtomicUsize::new(0);
    let n_threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..n_threads)
            .map(|_| {
                let (sender, parts, next) = (sender.clone(), &parts[..], &next);
                scope.spawn(move || write_parts(layout, seed, path, parts, next, &sender))
            })
            .collect();
        drop(sender);
        let mut done = 0;
        for written in receiver {
            done += written;
            progress(Progress::Generating { done, total: layout.bytes });
        }
        let results = workers.into_iter().map(|worker| worker.join().expect("no worker panics"));
        results.collect::<io::Result<()>>()
    })
    .map_err(at(path))
}

fn parts_of((weight, placed): (usize, &Placed)) -> Vec<Part> {
    let rows = (PART / placed.weight.columns().max(1)).max(1);
    let n_rows = placed.weight.rows();
    let part = |first_row| Part { weight, first_row, rows: rows.min(n_rows - first_row) };
    (0..n_rows).step_by(rows).map(part).collect()
}

/// Takes parts, as long as there are any, and reports the bytes of each.
fn write_parts(
    layout: &Layout,
    seed: u64,
    path: &Path,
    parts: &[Part],
    next: &AtomicUsize,
    report: &Sender<u64>,
) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let (mut floats, mut halves) = (Vec::new(), Vec::new());
    while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
        let placed = &layout.weights[part.weight];
        make(placed, Sequence::new(seed, part.weight as u64), seed, part, &mut floats);
        let bytes: &[u8] = if layout.dtype == DataType::F16 {
            halves.resize(floats.len(), f16::ZERO);
            halves.convert_from_f32_slice(&floats);
            bytemuck::cast_slice(&halves)
        } else {
            bytemuck::cast_slice(&floats)
        };
        let row_bytes = placed.weight.columns() * layout.dtype.bits() / 8;
        file.seek(SeekFrom::Start(placed.offset + (part.first_row * row_bytes) as u64))?;
        file.write_all(bytes)?;
        // The other side waits until every sender is gone.
        let _ = report.send(bytes.len() as u64);
    }
    Ok(())
}

/// The elements of a part.
fn make(placed: &Placed, sequence: Sequence, seed: u64, part: &Part, floats: &mut Vec<f32>) {
    let columns = placed.weight.columns();
    let first = (part.first_row * columns) as u64;
    let (mean, deviation) = match placed.weight.kind {
        Kind::Norm => (1.0, NORM_DEVIATION),
        _ => (0.0, DEVIATION),
    };
    let indices = first..first + (part.rows * columns) as u64;
    floats.clear();
    floats.extend(indices.map(|i| mean + deviation * sequence.normal(i)));
    if placed.weight.kind == Kind::IntoStream {
        for channel in outliers(seed, columns) {
            for row in floats.chunks_mut(columns) {
                row[channel] *= OUTLIER;
            }
        }
    }
}

/// The channels of the residual stream that are large, the same everywhere in a model.
fn outliers(seed: u64, channels: usize) -> Vec<usize> {
    let sequence = Sequence::new(seed, OUTLIER_SEQUENCE);
    let n_outliers = (channels / CHANNELS_PER_OUTLIER).max(1);
    let channel = |i| (sequence.bits(i as u64) % channels as u64) as usize;
    let mut found: Vec<usize> = (0..n_outliers).map(channel).collect();
    found.sort_unstable();
    found.dedup();
    found
}
