//! Compiled kernels on disk.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::source::HEADERS;
use crate::{GpuError, Source, nvrtc};

/// The cubin of a source: from disk if it was compiled before, by the same compiler, for the same
/// architecture, from the same text.
pub(crate) fn cubin(source: &Source, arch: &str, defines: &[String]) -> Result<Vec<u8>, GpuError> {
    let Some(folder) = folder() else { return nvrtc::compile(source, arch, defines) };
    let path = folder.join(format!("{}.cubin", key(source, arch, defines)));
    if let Ok(cubin) = std::fs::read(&path) {
        return Ok(cubin);
    }
    let cubin = nvrtc::compile(source, arch, defines)?;
    // A cache that can't be written costs time at the next start, nothing else.
    let _ = store(&folder, &path, &cubin);
    Ok(cubin)
}

/// `$PLANISH_CACHE/cuda`, or `planish/cuda` in the user's cache folder.
fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("PLANISH_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("planish")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/planish")))?;
    Some(base.join("cuda"))
}

fn key(source: &Source, arch: &str, defines: &[String]) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    add(source.text);
    HEADERS.iter().for_each(|(_, text)| add(text));
    nvrtc::options(arch, defines).iter().for_each(|option| add(option));
    add(&format!("{:?}", nvrtc::version()));
    let digest = hash.finalize();
    digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}

/// Writes whole files only: another process may read at any time.
fn store(folder: &Path, path: &Path, cubin: &[u8]) -> Result<(), std::io::Error> {
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(cubin)?;
    file.persist(path)?;
    Ok(())
}
