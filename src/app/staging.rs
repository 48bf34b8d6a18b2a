//! Folders in the making, beside their targets.
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Names to try before giving up; those in use belong to runs that go on or can't be locked.
const MAX_NAMES: usize = 100;

/// A new folder `.NAME.PID.partial` beside the folder NAME that it is to become. Dropped before
/// that, it is removed, and so are the folders above it that were made for it.
///
/// The folder is locked until then. The lock ends with the process, however that ends, so the
/// next run for the same target knows which folders were abandoned, and removes them.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    /// Folders that were made for this one, the innermost first.
    parents: Parents,
    /// Held, never read; `None` where the system does not lock folders.
    _lock: Option<File>,
}

impl Staging {
    /// Makes a folder in `parent` that is to be called `name`.
    ///
    /// # Errors
    /// If no folder can be made there.
    pub(super) fn create(parent: &Path, name: &OsStr) -> io::Result<Self> {
        remove_abandoned(parent, name);
        let parents = Parents::create(parent)?;
        for number in 0..MAX_NAMES {
            let path = parent.join(staging_name(name, number));
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let lock = lock(&path);
            // Between its making and its locking, another run may have taken it for abandoned.
            if !matches!(lock, Lock::OfAnother) && path.is_dir() {
                return Ok(Self { path, parents, _lock: lock.held() });
            }
        }
        Err(io::Error::other("too many unfinished folders lie there already"))
    }

    /// The folder to fill.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// If it can't be renamed; it is removed then.
    pub(super) fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.path.clear();
        self.parents.0.clear();
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Nothing can be done about a folder that can't be removed either.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Folders that did not exist before, the innermost first; removed when dropped, if empty.
#[derive(Debug)]
struct Parents(Vec<PathBuf>);

impl Parents {
    fn create(folder: &Path) -> io::Result<Self> {
        let is_missing = |path: &&Path| path.symlink_metadata().is_err();
        let missing = folder.ancestors().take_while(is_missing).map(Path::to_owned);
        let parents = Self(missing.filter(|path| !path.as_os_str().is_empty()).collect());
        fs::create_dir_all(folder)?;
        Ok(parents)
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that is not empty holds what somebody else has put there meanwhile.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn staging_name(target: &OsStr, number: usize) -> OsString {
    let mut name = OsString::from(".");
    name.push(target);
    name.push(match number {
        0 => format!(".{}.partial", std::process::id()),
        _ => format!(".{}-{number}.partial", std::process::id()),
    });
    name
}

fn is_staging_name(name: &OsStr, target: &OsStr) -> bool {
    let number = name
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(target.as_encoded_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".partial"));
    let is_number = |c: &u8| c.is_ascii_digit() || *c == b'-';
    number.is_some_and(|number| !number.is_empty() && number.iter().all(is_number))
}

/// Removes what runs for the same target left behind when they were killed.
fn remove_abandoned(parent: &Path, target: &OsStr) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !is_staging_name(&entry.file_name(), target) {
            continue;
        }
        let path = entry.path();
        if let Lock::Held(_lock) = lock(&path) {
            tracing::info!("removing {}, which an earlier run left behind", path.display());
            // What can't be removed is in nobody's way.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Whether a folder could be locked.
enum Lock {
    Held(File),
    OfAnother,
    Impossible,
}

impl Lock {
    fn held(self) -> Option<File> {
        if let Self::Held(file) = self { Some(file) } else { None }
    }
}

fn lock(folder: &Path) -> Lock {
    let Ok(file) = File::open(folder) else { return Lock::Impossible };
    match file.try_lock() {
        Ok(()) => Lock::Held(file),
        Err(TryLockError::WouldBlock) => Lock::OfAnother,
        Err(TryLockError::Error(_)) => Lock::Impossible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_made_on_the_way_go_with_it() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(&root.path().join("a/b"), OsStr::new("out")).unwrap();
        assert!(staging.path().is_dir());
        drop(staging);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn folders_that_others_use_stay() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(&root.path().join("a/b"), OsStr::new("out")).unwrap();
        fs::write(root.path().join("a/note"), "mine").unwrap();
        drop(staging);
        assert_eq!(names(&root.path().join("a")), ["note"]);
    }

    #[test]
    fn two_runs_for_one_target_do_not_touch_each_other() {
        let root = tempfile::tempdir().unwrap();
        let first = Staging::create(root.path(), OsStr::new("out")).unwrap();
        let second = Staging::create(root.path(), OsStr::new("out")).unwrap();
        assert!(first.path().is_dir() && second.path().is_dir());
        assert_ne!(first.path(), second.path());
    }

    #[cfg(unix)]
    #[test]
    fn only_abandoned_folders_of_the_target_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let others = [".out.1.2.partial", ".out.partial", ".output.7.partial", ".out.7.partially"];
        for name in [".out.7.partial", ".out.8-1.partial"].iter().chain(&others) {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("weights"), "").unwrap();
        }
        fs::write(root.path().join(".out.9.partial"), "a file").unwrap();
        std::os::unix::fs::symlink(".out.1.2.partial", root.path().join(".out.10.partial"))
            .unwrap();
        drop(Staging::create(root.path(), OsStr::new("out")).unwrap());
        let mut kept: Vec<_> =
            others.iter().chain(&[".out.9.partial", ".out.10.partial"]).collect();
        kept.sort();
        assert_eq!(names(root.path()).iter().collect::<Vec<_>>(), kept);
    }
}
