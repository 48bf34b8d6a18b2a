//! The folder that downloads and rebuilt models are kept in.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, at};

/// `$PLANISH_CACHE`, else `$XDG_CACHE_HOME/planish`, else `$HOME/.cache/planish`.
///
/// # Errors
/// [`Error::NoCacheDir`] when none of the three is set.
pub fn default_cache_dir() -> Result<PathBuf> {
    cache_dir_by(|name| env::var_os(name)).ok_or(Error::NoCacheDir)
}

/// An empty variable counts as unset, a relative `XDG_CACHE_HOME` as well (XDG Base Directory
/// Specification).
fn cache_dir_by(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("PLANISH_CACHE")
        .or_else(|| Some(path("XDG_CACHE_HOME").filter(|dir| dir.is_absolute())?.join("planish")))
        .or_else(|| Some(path("HOME")?.join(".cache/planish")))
}

/// Keeps other processes and threads out of `folder` until the returned file is dropped;
/// `waiting` is called when one of them is inside.
pub(crate) fn lock(folder: &Path, waiting: impl FnOnce()) -> Result<File> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => waiting(),
        Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
    }
    file.lock().map_err(at(&path))?;
    Ok(file)
}

/// Copies a small file so that a reader sees the old one or the new one, never a part.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).map_err(at(from))?;
    let partial = to.with_extension("partial");
    fs::write(&partial, bytes).map_err(at(&partial))?;
    fs::rename(&partial, to).map_err(at(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        cache_dir_by(|name| find(name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_first_variable_that_is_set_wins() {
        let home = ("HOME", "/h");
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(dir(&[("PLANISH_CACHE", "p"), xdg, home]), Some("p".into()));
        assert_eq!(dir(&[xdg, home]), Some("/x/planish".into()));
        assert_eq!(dir(&[home]), Some("/h/.cache/planish".into()));
        assert_eq!(dir(&[]), None);
    }

    #[test]
    fn empty_and_relative_variables_are_passed_over() {
        let home = ("HOME", "/h");
        assert_eq!(dir(&[("PLANISH_CACHE", ""), home]), Some("/h/.cache/planish".into()));
        assert_eq!(dir(&[("XDG_CACHE_HOME", "x"), home]), Some("/h/.cache/planish".into()));
    }

    #[test]
    fn a_second_lock_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path(), || panic!("nobody else is inside")).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = folder.path().to_owned();
        let second = std::thread::spawn(move || lock(&path, || sender.send(()).unwrap()).map(drop));
        receiver.recv().unwrap();
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_copy_replaces_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
    }
}
