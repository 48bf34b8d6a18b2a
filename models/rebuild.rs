//! Writes an external data file out of a GGUF file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use crate::assemble::Assembler;
use crate::error::{Error, Result, at};
use crate::gguf::Gguf;
use crate::hash::{sha256, sha256_of};
use crate::manifest::{Manifest, TensorEntry};
use crate::progress::Progress;

/// More threads would only wait for the disk.
const MAX_THREADS: usize = 8;

// Tensors are written as they lie in memory, and ONNX external data is little-endian.
const _: () = assert!(cfg!(target_endian = "little"));

/// Writes the data file that `manifest` describes to `data`, from the GGUF file at `gguf`.
///
/// The file grows under the name `<data>.partial` and is renamed when it is whole. Tensors that
/// an earlier, interrupted call left there with the right hash are kept; so are those of a file
/// that already has its final name. Every thread holds one tensor at a time.
///
/// # Errors
/// [`Error::Io`], [`Error::Gguf`] when the GGUF file is damaged, [`Error::Tensor`] when its
/// tensors do not fit the manifest's, [`Error::Hash`] when a rebuilt tensor differs from the
/// manifest's hash.
pub fn rebuild(
    manifest: &Manifest,
    gguf: &Path,
    data: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let partial = partial_path(data);
    if data.exists() {
        fs::rename(data, &partial).map_err(at(&partial))?;
    }
    let resumed = prepare(manifest, &partial).map_err(at(&partial))?;
    let header = Gguf::open(gguf)?;
    let mut order: Vec<_> = manifest.tensors.iter().collect();
    // The largest first, so that no thread is left alone with it at the end.
    order.sort_by_key(|entry| std::cmp::Reverse(entry.length));
    let next = AtomicUsize::new(0);
    let work = Work { order, next, header: &header, gguf, partial: &partial, resumed };
    work.run(&mut |done| {
        progress(Progress::Rebuilding { done, total: manifest.tensor_bytes() });
    })?;
    fs::rename(&partial, data).map_err(at(data))
}

fn partial_path(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Gives the file its length and its zero padding; true when it had contents before.
fn prepare(manifest: &Manifest, partial: &Path) -> io::Result<bool> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial)?;
    let length = file.metadata()?.len();
    if length != manifest.bytes {
        file.set_len(manifest.bytes)?;
    }
    for gap in manifest.gaps() {
        let zeros = vec![0; (gap.end - gap.start) as usize];
        let mut present = zeros.clone();
        file.seek(SeekFrom::Start(gap.start))?;
        file.read_exact(&mut present)?;
        if present != zeros {
            file.seek(SeekFrom::Start(gap.start))?;
            file.write_all(&zeros)?;
        }
    }
    Ok(length > 0)
}

/// The tensors to write, shared by the threads that write them.
struct Work<'a> {
    order: Vec<&'a TensorEntry>,
    /// Index into `order` of the tensor that is taken next.
    next: AtomicUsize,
    header: &'a Gguf,
    gguf: &'a Path,
    partial: &'a Path,
    resumed: bool,
}

impl Work<'_> {
    /// Works until every tensor is in place or one has failed; `report` hears the bytes so far.
    fn run(&self, report: &mut dyn FnMut(u64)) -> Result<()> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let spawn = |_| {
                let sender = sender.clone();
                scope.spawn(move || self.work(&sender).inspect_err(|_| self.stop()))
            };
            let handles: Vec<_> = (0..threads).map(spawn).collect();
            drop(sender);
            receiver.into_iter().fold(0, |done, length: u64| {
                report(done + length);
                done + length
            });
            handles
                .into_iter()
                .try_for_each(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// One thread's part: sends the length of each tensor that it has put in place.
    fn work(&self, sender: &Sender<u64>) -> Result<()> {
        let options = OpenOptions::new().read(true).write(true).open(self.partial);
        let file = options.map_err(at(self.partial))?;
        let assembler = Assembler::open(self.header, self.gguf)?;
        let mut writer = Writer { assembler, file, path: self.partial };
        while let Some(entry) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if !(self.resumed && writer.holds(entry)?) {
                writer.write(entry)?;
            }
            // The receiver lives as long as the scope, so this cannot fail.
            let _ = sender.send(entry.length);
        }
        Ok(())
    }

    /// Lets the other threads finish their tensor and take no other.
    fn stop(&self) {
        self.next.store(self.order.len(), Ordering::Relaxed);
    }
}

/// One thread's handles.
struct Writer<'a> {
    assembler: Assembler<'a>,
    file: File,
    path: &'a Path,
}

impl Writer<'_> {
    /// Whether the tensor's bytes are already in place.
    fn holds(&mut self, entry: &TensorEntry) -> Result<bool> {
        self.file.seek(SeekFrom::Start(entry.offset)).map_err(at(self.path))?;
        let found = sha256_of((&self.file).take(entry.length)).map_err(at(self.path))?;
        Ok(found == entry.sha256)
    }

    fn write(&mut self, entry: &TensorEntry) -> Result<()> {
        let values = self.assembler.assemble(entry)?;
        let bytes: &[u8] = bytemuck::cast_slice(&values);
        let found = sha256(bytes);
        if found != entry.sha256 {
            let what = format!("tensor \"{}\"", entry.name);
            return Err(Error::Hash { what, expected: entry.sha256.clone(), found });
        }
        self.file.seek(SeekFrom::Start(entry.offset)).map_err(at(self.path))?;
        self.file.write_all(bytes).map_err(at(self.path))
    }
}

#[cfg(test)]
mod tests;
