//! What was learned so far, on disk, so that a run that was stopped goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};

use super::CalibrationError;
use crate::npz::{NpyArray, read_npz, write_npz};

/// Name of the file that says what the folder belongs to.
const KEY_FILE: &str = "run.txt";

/// A folder with one file for every finished block.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    key: String,
}

/// A finished block.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The values of its parameters, in their order.
    pub values: Vec<Vec<f32>>,
    /// The loss of every step.
    pub losses: Vec<f32>,
}

impl Store {
    /// Opens the folder. `key` says everything that what is learned depends on. Nothing is written
    /// before something is saved: a run that fails at once leaves nothing behind.
    ///
    /// # Errors
    /// If the folder belongs to another key, or can't be used.
    pub fn open(folder: &Path, key: &str) -> Result<Self, CalibrationError> {
        let store = Self { folder: folder.to_owned(), key: key.to_owned() };
        match store.is_begun()? {
            Some(false) => Err(CalibrationError::OtherRun { path: folder.to_owned() }),
            Some(true) | None => Ok(store),
        }
    }

    /// Whether what the folder has is of the key; nothing if there is nothing.
    fn is_begun(&self) -> Result<Option<bool>, CalibrationError> {
        let path = self.folder.join(KEY_FILE);
        match fs::read_to_string(&path) {
            Ok(found) => Ok(Some(found == self.key)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(&path, error)),
        }
    }

    /// Makes the folder if there is none.
    fn begin(&self) -> Result<(), CalibrationError> {
        if self.is_begun()?.is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(|error| self.io(&self.folder, error))?;
        self.write_whole(KEY_FILE, |path| {
            fs::write(path, &self.key).map_err(|error| self.io(path, error))
        })
    }

    /// The block or stage called `name`, if it is finished.
    ///
    /// # Errors
    /// If its file can't be read.
    pub fn load(&self, name: &str) -> Result<Option<Finished>, CalibrationError> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(None);
        }
        let arrays = read_npz(&path)
            .map_err(|error| CalibrationError::Store { path: path.clone(), error })?;
        let mut arrays: Vec<(String, Vec<f32>)> =
            arrays.into_iter().filter_map(|(name, array)| Some((name, array.to_f32()?))).collect();
        arrays.sort_by(|a, b| a.0.cmp(&b.0));
        let losses = arrays.iter().find(|(name, _)| name == "losses");
        let losses = losses.map(|(_, values)| values.clone()).unwrap_or_default();
        let is_value = |(name, _): &(String, Vec<f32>)| name.starts_with("parameter_");
        let values = arrays.into_iter().filter(is_value).map(|(_, values)| values).collect();
        Ok(Some(Finished { values, losses }))
    }

    /// Saves a finished block or stage.
    ///
    /// # Errors
    /// If the file can't be written; then there is none.
    pub fn save(&self, name: &str, finished: &Finished) -> Result<(), CalibrationError> {
        self.begin()?;
        let flat = |values: &[f32]| NpyArray::from_f32(&[values.len()], values);
        let mut arrays: Vec<(String, NpyArray)> = finished
            .values
            .iter()
            .enumerate()
            .map(|(i, values)| (format!("parameter_{i:06}"), flat(values)))
            .collect();
        arrays.push(("losses".into(), flat(&finished.losses)));
        self.write_whole(&format!("{name}.npz"), |path| {
            write_npz(path, &arrays)
                .map_err(|error| CalibrationError::Store { path: path.to_owned(), error })
        })
    }

    /// Removes the folder: what was learned has gone into a model.
    pub fn remove(self) {
        // What is left behind is in nobody's way.
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.npz"))
    }

    /// Writes beside the file and renames, so that it is whole or not there.
    fn write_whole(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<(), CalibrationError>,
    ) -> Result<(), CalibrationError> {
        let (partial, whole) =
            (self.folder.join(format!(".{name}.partial")), self.folder.join(name));
        let written = write(&partial)
            .and_then(|()| fs::rename(&partial, &whole).map_err(|error| self.io(&whole, error)));
        if written.is_err() {
            self.clear(&partial);
        }
        written
    }

    /// Removes what could not be written whole, and the folder if it holds nothing of use.
    fn clear(&self, partial: &Path) {
        // Nothing can be done about what can't be removed either.
        let _ = fs::remove_file(partial);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        if entries.into_iter().all(|entry| entry.file_name() == KEY_FILE) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    fn io(&self, path: &Path, error: std::io::Error) -> CalibrationError {
        CalibrationError::Io { path: path.to_owned(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_comes_back_for_the_same_run_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let store = Store::open(&folder, "seed 1").unwrap();
        assert_eq!(store.load("block_0000").unwrap(), None);
        assert!(!folder.exists(), "nothing is saved yet");
        let values: Vec<Vec<f32>> = (0..12).map(|i| vec![i as f32; i % 3 + 1]).collect();
        let finished = Finished { values, losses: vec![2.0, 1.0] };
        store.save("block_0000", &finished).unwrap();
        let again = Store::open(&folder, "seed 1").unwrap();
        assert_eq!(again.load("block_0000").unwrap(), Some(finished));
        let other = Store::open(&folder, "seed 2").unwrap_err().to_string();
        assert!(other.contains("other options"), "{other}");
        again.remove();
        assert!(!folder.exists());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), "k").unwrap();
        std::fs::write(root.path().join("block_0001.npz"), "nonsense").unwrap();
        assert!(store.load("block_0001").unwrap_err().to_string().contains("block_0001.npz"));
    }
}
