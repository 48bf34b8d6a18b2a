//! An output folder that appears only when it is whole.
use std::fs;
use std::path::{Path, PathBuf};

use super::error::AppError;

/// Files that travel with a model: tokenizer, templates, configs.
const COMPANIONS: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "LICENSE",
];

/// A folder that is filled beside its target and renamed at the end; dropped before that, it
/// leaves nothing behind.
pub(super) struct OutputFolder {
    target: PathBuf,
    staging: Option<PathBuf>,
}

impl OutputFolder {
    /// Starts filling a folder that is to become `target`.
    ///
    /// # Errors
    /// If `target` exists, or no folder can be made beside it.
    pub(super) fn create(target: &Path) -> Result<Self, AppError> {
        if target.symlink_metadata().is_ok() {
            let path = target.display();
            return Err(AppError::Input(format!("the output folder {path} exists already")));
        }
        let name = target.file_name().ok_or_else(|| {
            AppError::Input(format!("{} can't be an output folder", target.display()))
        })?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let staging = parent.join(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
        fs::create_dir_all(parent).map_err(|source| unwritable(parent, source))?;
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(|source| unwritable(&staging, source))?;
        }
        fs::create_dir(&staging).map_err(|source| unwritable(&staging, source))?;
        Ok(Self { target: target.to_owned(), staging: Some(staging) })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        self.staging.as_deref().unwrap_or(&self.target)
    }

    /// Copies what travels with the model at `source` (a folder). Returns the names copied.
    ///
    /// # Errors
    /// If a file can't be copied.
    pub(super) fn copy_companions(&self, source: &Path) -> Result<Vec<&'static str>, AppError> {
        let mut copied = Vec::new();
        for name in COMPANIONS {
            let from = source.join(name);
            if from.is_file() {
                let to = self.path().join(name);
                fs::copy(&from, &to).map_err(|source| unwritable(&to, source))?;
                copied.push(name);
            }
        }
        Ok(copied)
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn write(&self, name: &str, contents: &[u8]) -> Result<(), AppError> {
        let path = self.path().join(name);
        fs::write(&path, contents).map_err(|source| unwritable(&path, source))
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// If the target came into being meanwhile, or the folder can't be renamed.
    pub(super) fn finish(mut self) -> Result<(), AppError> {
        if self.target.symlink_metadata().is_ok() {
            let path = self.target.display();
            return Err(AppError::Input(format!("the output folder {path} exists already")));
        }
        if let Some(staging) = &self.staging {
            fs::rename(staging, &self.target).map_err(|source| unwritable(&self.target, source))?;
        }
        self.staging = None;
        Ok(())
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if let Some(staging) = self.staging.take() {
            // Nothing can be done about a folder that can't be removed either.
            let _ = fs::remove_dir_all(staging);
        }
    }
}

fn unwritable(path: &Path, source: std::io::Error) -> AppError {
    AppError::failed(format!("cannot write {}", path.display()), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_an_unfinished_folder() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        let folder = OutputFolder::create(&target).unwrap();
        folder.write("a.json", b"{}").unwrap();
        assert!(!target.exists());
        drop(folder);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_finished_folder_has_its_files_and_companions() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("tokenizer.json"), "{}").unwrap();
        let target = parent.path().join("deep/out");
        let folder = OutputFolder::create(&target).unwrap();
        assert_eq!(folder.copy_companions(parent.path()).unwrap(), ["tokenizer.json"]);
        folder.finish().unwrap();
        assert!(target.join("tokenizer.json").is_file());
        assert_eq!(fs::read_dir(parent.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_exists_is_refused_by_name() {
        let parent = tempfile::tempdir().unwrap();
        let error = OutputFolder::create(parent.path()).err().unwrap();
        assert!(error.to_string().contains("exists already"), "{error}");
    }
}
