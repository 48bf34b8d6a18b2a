//! Tensors in files beside the model.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::map_file;
use crate::error::TensorProblem;
use crate::proto::StringStringEntryProto;

/// The external data files of one model, each mapped once.
pub(super) struct ExternalFiles {
    folder: Option<PathBuf>,
    /// Resolved folders in which the files must lie: that of the model as named, and, where the
    /// model's file is a link (as in download caches), that of the file it leads to.
    roots: Vec<PathBuf>,
    maps: HashMap<String, Bytes>,
}

impl ExternalFiles {
    /// For a model in memory that has no folder.
    pub(super) fn none() -> Self {
        Self { folder: None, roots: Vec::new(), maps: HashMap::new() }
    }

    /// Files relative to `folder`, for the model file `model` in it.
    pub(super) fn beside(folder: &Path, model: &Path) -> Self {
        let target = model.canonicalize().ok();
        let target = target.as_deref().filter(|t| t.is_file()).and_then(Path::parent);
        let roots = folder.canonicalize().into_iter().chain(target.map(Path::to_owned)).collect();
        Self { folder: Some(folder.to_owned()), roots, maps: HashMap::new() }
    }

    /// The `needed` bytes that the entries of a tensor's `external_data` point to.
    pub(super) fn slice(
        &mut self,
        entries: &[StringStringEntryProto],
        needed: usize,
    ) -> Result<Bytes, TensorProblem> {
        let location = find(entries, "location").ok_or(TensorProblem::NoLocation)?;
        let offset = number(entries, "offset")?.unwrap_or(0);
        let length = number(entries, "length")?;
        if let Some(length) = length.filter(|l| *l != needed as u64) {
            return Err(TensorProblem::ExternalLength { needed, length });
        }
        let (path, bytes) = self.open(location)?;
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(needed)?));
        match range.filter(|r| r.end <= bytes.len()) {
            Some(range) => Ok(bytes.slice(range)),
            None => Err(TensorProblem::TooShort { path, offset, needed, actual: bytes.len() }),
        }
    }

    fn open(&mut self, location: &str) -> Result<(PathBuf, Bytes), TensorProblem> {
        let folder = self.folder.as_deref().ok_or(TensorProblem::NoFolder)?;
        let path = folder.join(location);
        if let Some(bytes) = self.maps.get(location) {
            return Ok((path, bytes.clone()));
        }
        let outside =
            || TensorProblem::Outside { location: location.to_owned(), folder: folder.to_owned() };
        if !stays_inside(Path::new(location)) {
            return Err(outside());
        }
        let io = |source| TensorProblem::ExternalFile { path: path.clone(), source };
        let resolved = path.canonicalize().map_err(io)?;
        if !self.roots.iter().any(|root| resolved.starts_with(root)) {
            return Err(outside());
        }
        let bytes = map_file(&resolved).map_err(io)?;
        self.maps.insert(location.to_owned(), bytes.clone());
        Ok((path, bytes))
    }
}

/// Whether a relative path has neither a root nor a step upwards.
fn stays_inside(path: &Path) -> bool {
    let is_plain = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
    path.components().next().is_some() && path.components().all(is_plain)
}

fn find<'a>(entries: &'a [StringStringEntryProto], key: &str) -> Option<&'a str> {
    entries.iter().find(|e| e.key() == key).map(StringStringEntryProto::value)
}

fn number(
    entries: &[StringStringEntryProto],
    key: &'static str,
) -> Result<Option<u64>, TensorProblem> {
    let Some(text) = find(entries, key) else { return Ok(None) };
    let bad = |_| TensorProblem::BadNumber { key, value: text.to_owned() };
    text.trim().parse().map(Some).map_err(bad)
}
