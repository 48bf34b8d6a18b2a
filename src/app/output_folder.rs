//! An output folder that appears only when it is whole.
use std::fs;
use std::path::{Path, PathBuf};

use super::error::AppError;
use super::staging::Staging;

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
#[derive(Debug)]
pub(super) struct OutputFolder {
    target: PathBuf,
    staging: Staging,
}

impl OutputFolder {
    /// Starts filling a folder that is to become `target`.
    ///
    /// # Errors
    /// If `target` exists, or no folder can be made beside it.
    pub(super) fn create(target: &Path) -> Result<Self, AppError> {
        refuse_existing(target)?;
        let name = target.file_name().ok_or_else(|| {
            AppError::Input(format!("{} can't be an output folder", target.display()))
        })?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Without a slash at the end, which would hide a file of that name.
        let target = target.with_file_name(name);
        refuse_existing(&target)?;
        let staging =
            Staging::create(parent, name).map_err(|source| unwritable(&target, source))?;
        Ok(Self { target, staging })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Copies what travels with a model from the first of `sources` (folders) that has it.
    /// Links are followed.
    ///
    /// # Errors
    /// If a file can't be copied.
    pub(super) fn copy_companions(&self, sources: &[&Path]) -> Result<(), AppError> {
        for name in COMPANIONS {
            let mut candidates = sources.iter().map(|folder| folder.join(name));
            if let Some(from) = candidates.find(|path| path.is_file()) {
                let to = self.path().join(name);
                let what = || format!("cannot copy {} to {}", from.display(), to.display());
                fs::copy(&from, &to).map_err(|source| AppError::failed(what(), source))?;
            }
        }
        Ok(())
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
    pub(super) fn finish(self) -> Result<(), AppError> {
        refuse_existing(&self.target)?;
        let Self { target, staging } = self;
        staging.rename(&target).map_err(|source| unwritable(&target, source))
    }
}

fn refuse_existing(target: &Path) -> Result<(), AppError> {
    let path = target.display();
    match target.symlink_metadata() {
        Ok(_) => Err(AppError::Input(format!("the output folder {path} exists already"))),
        Err(_) => Ok(()),
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
        folder.copy_companions(&[parent.path()]).unwrap();
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

    #[test]
    fn companions_come_from_the_first_folder_that_has_them() {
        let parent = tempfile::tempdir().unwrap();
        let (inner, target) = (parent.path().join("onnx"), parent.path().join("out"));
        fs::create_dir(&inner).unwrap();
        fs::write(parent.path().join("tokenizer.json"), "outer").unwrap();
        fs::write(parent.path().join("config.json"), "outer").unwrap();
        fs::write(inner.join("config.json"), "inner").unwrap();
        fs::write(inner.join("genai_config.json"), "of another graph").unwrap();
        let folder = OutputFolder::create(&target).unwrap();
        folder.copy_companions(&[&inner, parent.path()]).unwrap();
        folder.finish().unwrap();
        let text = |name: &str| fs::read_to_string(target.join(name)).unwrap_or_default();
        assert_eq!((text("tokenizer.json"), text("config.json")), ("outer".into(), "inner".into()));
        assert!(!target.join("genai_config.json").exists());
    }

    #[test]
    fn a_slash_at_the_end_does_not_hide_a_file() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("out"), "mine").unwrap();
        let error = OutputFolder::create(&parent.path().join("out/")).unwrap_err();
        assert!(error.to_string().ends_with("out exists already"), "{error}");
    }
}
