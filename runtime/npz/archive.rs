//! Reading and writing the zip around the arrays.
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::array::NpyArray;
use super::header;
use super::sink::Sink;

/// Why an `.npz` file could not be read or written.
#[derive(Debug, Error)]
pub enum NpzError {
    /// The file cannot be opened, created, read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no zip archive, or a damaged one.
    #[error("{path} is no intact .npz archive")]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: zip::result::ZipError,
    },
    /// An array in the archive is damaged or of an unsupported kind.
    #[error("array \"{name}\" in {path} {problem}")]
    Array {
        /// The file.
        path: PathBuf,
        /// Name of the array, without `.npy`.
        name: String,
        /// The end of the sentence.
        problem: String,
    },
}

/// Reads all arrays of an `.npz` file, in the order of the archive.
///
/// # Errors
/// [`NpzError`], naming the file and the array.
pub fn read_npz(path: &Path) -> Result<Vec<(String, NpyArray)>, NpzError> {
    let io = |source| NpzError::Io { action: "read", path: path.into(), source };
    let zip = |source| NpzError::Archive { path: path.into(), source };
    if path.is_dir() {
        return Err(io(io::ErrorKind::IsADirectory.into()));
    }
    let mut archive =
        ZipArchive::new(BufReader::new(File::open(path).map_err(io)?)).map_err(zip)?;
    let mut arrays = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(zip)?;
        let name = entry.name().map_err(zip)?.into_owned();
        let name = name.strip_suffix(".npy").map(str::to_owned).unwrap_or(name);
        let mut file = Vec::new();
        entry.read_to_end(&mut file).map_err(io)?;
        let array = parse_array(&file).map_err(|problem| NpzError::Array {
            path: path.into(),
            name: name.clone(),
            problem,
        })?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// Parses one `.npy` file.
fn parse_array(file: &[u8]) -> Result<NpyArray, String> {
    let (header, data) = header::parse(file)?;
    let (dtype, shape) = (header.dtype, header.shape);
    let len = NpyArray::expected_len(dtype, &shape).ok_or("has a shape that overflows")?;
    if data.len() != len {
        return Err(format!("has {} bytes of data where {len} are needed", data.len()));
    }
    let mut bytes = data.to_vec();
    if header.big_endian {
        bytes.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
    if header.fortran_order {
        bytes = row_major(&bytes, dtype.size(), &shape);
    }
    Ok(NpyArray { dtype, shape, bytes })
}

/// Reorders column-major elements of `size` bytes to row-major ones.
fn row_major(bytes: &[u8], size: usize, shape: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..bytes.len() / size {
        // Column-major: the first extent runs fastest.
        let at = index.iter().zip(shape).rev().fold(0, |at, (i, extent)| at * extent + i);
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// Writes named arrays as an uncompressed `.npz` file. A file at `path` is replaced when the new
/// one is whole; if it does not come to that, nothing changes.
///
/// # Errors
/// [`NpzError`]; an array whose bytes do not fit its shape is refused.
pub fn write_npz(path: &Path, arrays: &[(String, NpyArray)]) -> Result<(), NpzError> {
    let io = |source| NpzError::Io { action: "write", path: path.into(), source };
    for (name, array) in arrays {
        check_len(array).map_err(|problem| NpzError::Array {
            path: path.into(),
            name: name.clone(),
            problem,
        })?;
    }
    // What a link leads to is replaced, and a device is written to, not replaced.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if target.exists() && !target.is_file() {
        return write_archive(&target, arrays).map_err(io);
    }
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written =
        write_archive(&temporary, arrays).and_then(|()| std::fs::rename(&temporary, &target));
    if written.is_err() {
        // Nothing can be done about a file that can't be removed either.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(io)
}

fn write_archive(path: &Path, arrays: &[(String, NpyArray)]) -> io::Result<()> {
    let mut writer = ZipWriter::new(Sink::new(BufWriter::new(File::create(path)?)));
    for (name, array) in arrays {
        let large = array.bytes.len() >= u32::MAX as usize / 2;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(large);
        writer.start_file(format!("{name}.npy"), options)?;
        writer.write_all(&header::write(array.dtype, &array.shape))?;
        writer.write_all(&array.bytes)?;
    }
    writer.finish()?.finish()
}

fn check_len(array: &NpyArray) -> Result<(), String> {
    let NpyArray { dtype, shape, bytes } = array;
    match NpyArray::expected_len(*dtype, shape) {
        Some(len) if len == bytes.len() => Ok(()),
        _ => Err(format!("has {} bytes, which do not fit its shape {shape:?}", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::array::NpyType;
    use super::*;

    fn models() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
    }

    #[test]
    fn numpys_compressed_archives_are_read() {
        let arrays = read_npz(&models().join("smollm2/expected.npz")).unwrap();
        let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ids", "logits", "step_ids", "step_logits"]);
        assert_eq!(arrays[0].1.shape, [1, 5]);
        assert_eq!(arrays[0].1.to_i64().unwrap(), [504, 3575, 282, 4649, 314]);
        let logits = &arrays[1].1;
        assert_eq!((logits.dtype, &logits.shape[..]), (NpyType::F32, &[1, 5, 49152][..]));
        assert_eq!(logits.to_i64(), None);
        assert!(logits.to_f32().unwrap().iter().all(|x| x.is_finite()));
    }

    #[test]
    fn arrays_of_every_type_survive_a_round_trip() {
        use NpyType::{Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        let arrays: Vec<_> = [Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64]
            .into_iter()
            .map(|dtype| {
                let bytes = (0..6 * dtype.size()).map(|b| (b % 2) as u8).collect();
                (format!("a.{}", dtype.code()), NpyArray { dtype, shape: vec![2, 3], bytes })
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        write_npz(&path, &arrays).unwrap();
        assert_eq!(read_npz(&path).unwrap(), arrays);
    }

    #[test]
    fn scalars_and_empty_arrays_survive_too() {
        let arrays = [
            ("scalar".to_owned(), NpyArray::from_f32(&[], &[1.5])),
            ("none".to_owned(), NpyArray::from_i64(&[2, 0], &[])),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        write_npz(&path, &arrays).unwrap();
        assert_eq!(read_npz(&path).unwrap(), arrays);
    }

    #[test]
    fn a_file_is_replaced_by_a_whole_one_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let array = |n: i64| [("x".to_owned(), NpyArray::from_i64(&[1], &[n]))];
        write_npz(&path, &array(1)).unwrap();
        write_npz(&path, &array(2)).unwrap();
        assert_eq!(read_npz(&path).unwrap(), array(2));
        assert!(write_npz(folder.path(), &array(3)).is_err());
        assert!(write_npz(&path.join("b.npz"), &array(3)).is_err());
        assert_eq!(read_npz(&path).unwrap(), array(2));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn fortran_order_and_big_endian_become_row_major_and_little() {
        let dict = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((dict.len() as u16).to_le_bytes());
        file.extend(dict.as_bytes());
        for value in [1i16, 4, 2, 5, 3, 6] {
            file.extend(value.to_be_bytes());
        }
        let array = parse_array(&file).unwrap();
        let expected: Vec<u8> =
            [1i16, 2, 3, 4, 5, 6].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!((array.shape, array.bytes), (vec![2, 3], expected));
        file.pop();
        assert_eq!(parse_array(&file).unwrap_err(), "has 11 bytes of data where 12 are needed");
    }

    #[test]
    fn errors_name_the_file_and_the_array() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        assert!(read_npz(&path).unwrap_err().to_string().starts_with("cannot read"));
        std::fs::write(&path, "no zip").unwrap();
        let error = read_npz(&path).unwrap_err().to_string();
        assert!(error.ends_with("a.npz is no intact .npz archive"), "{error}");
        let wrong = NpyArray { dtype: NpyType::F32, shape: vec![2], bytes: vec![0; 7] };
        let error = write_npz(&path, &[("x".to_owned(), wrong)]).unwrap_err().to_string();
        assert!(error.contains("array \"x\" in"), "{error}");
        assert!(error.ends_with("has 7 bytes, which do not fit its shape [2]"), "{error}");
    }
}
