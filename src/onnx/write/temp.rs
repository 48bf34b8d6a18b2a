//! Files that appear under their name only when they are whole.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file under a temporary name beside its target; removed unless persisted.
pub(super) struct TempFile {
    path: PathBuf,
    target: PathBuf,
}

impl TempFile {
    /// Creates a new, empty file in the folder of `target`.
    pub(super) fn create(target: &Path) -> io::Result<(Self, File)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        if target.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let unique = format!(".{}.{}-{number}.tmp", name.to_string_lossy(), std::process::id());
        let path = target.with_file_name(unique);
        let file = File::create_new(&path)?;
        Ok((Self { path, target: target.to_owned() }, file))
    }

    /// Gives the file its name, in place of what had that name.
    pub(super) fn persist(mut self) -> io::Result<()> {
        std::fs::rename(&self.path, &self.target)?;
        self.path.clear();
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Nothing can be done about a file that can't be removed either.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
