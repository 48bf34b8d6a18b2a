//! Recognising a finished folder without reading its half gigabyte again.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Result, at};

const NAME: &str = ".complete.json";

/// State of a folder when it was finished.
#[derive(PartialEq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Digest of what the folder was made from.
    sources: String,
    files: Vec<FileState>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct FileState {
    name: String,
    bytes: u64,
    modified: SystemTime,
}

impl Stamp {
    /// Of the files called `names` in `folder`, made from what has the digest `sources`.
    pub(crate) fn of(folder: &Path, names: &[&str], sources: &str) -> Result<Self> {
        let state = |name: &&str| {
            let path = folder.join(name);
            FileState::of(&path, name).map_err(at(&path))
        };
        let files = names.iter().map(state).collect::<Result<Vec<_>>>()?;
        Ok(Self { sources: sources.to_owned(), files })
    }

    /// Whether `folder` carries this very stamp.
    pub(crate) fn is_on(&self, folder: &Path) -> bool {
        let read = fs::read(folder.join(NAME)).ok();
        read.and_then(|text| serde_json::from_slice::<Self>(&text).ok())
            .is_some_and(|stamp| stamp == *self)
    }

    /// Puts the stamp on `folder`.
    pub(crate) fn put_on(&self, folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from).map_err(at(&path))?;
        fs::write(&path, text).map_err(at(&path))
    }
}

impl FileState {
    fn of(path: &Path, name: &str) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { name: name.to_owned(), bytes: metadata.len(), modified: metadata.modified()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_a_file_or_the_sources_change() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("a"), "1").unwrap();
        let stamp = |sources| Stamp::of(folder, &["a"], sources).unwrap();
        assert!(!stamp("x").is_on(folder));
        stamp("x").put_on(folder).unwrap();
        assert!(stamp("x").is_on(folder));
        assert!(!stamp("y").is_on(folder));
        fs::write(folder.join("a"), "12").unwrap();
        assert!(!stamp("x").is_on(folder));
    }

    #[test]
    fn a_later_modification_of_the_same_length_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "1").unwrap();
        Stamp::of(folder.path(), &["a"], "x").unwrap().put_on(folder.path()).unwrap();
        let file = fs::File::options().write(true).open(&file).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!Stamp::of(folder.path(), &["a"], "x").unwrap().is_on(folder.path()));
    }

    #[test]
    fn a_missing_file_is_an_error_and_a_damaged_stamp_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Stamp::of(folder.path(), &["a"], "x").is_err());
        fs::write(folder.path().join(NAME), "{").unwrap();
        assert!(!Stamp::of(folder.path(), &[], "x").unwrap().is_on(folder.path()));
    }
}
