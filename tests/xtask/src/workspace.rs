//! Where the workspace lies.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Root folder of the workspace that this binary was built in.
pub fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().with_context(|| format!("no workspace at {}", root.display()))
}
