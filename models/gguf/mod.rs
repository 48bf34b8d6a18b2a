//! Reader for GGUF files, versions 2 and 3, little-endian (specification: ggml's `docs/gguf.md`).
//!
//! The layout is: magic, version, counts, metadata (key, type, value), tensor infos (name, axes,
//! type, offset), padding to `general.alignment`, data. Nothing read from the file is trusted:
//! every length is checked against the file's own before anything is allocated or sought.

mod error;
mod reader;
mod tensor;
#[cfg(test)]
pub(crate) mod testing;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

pub use error::GgufError;
use reader::Reader;
pub use tensor::{TensorInfo, TensorType};
pub use value::Value;

use crate::error::{Error, Result, at};

const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;

/// Everything in a GGUF file but its tensors' data.
#[derive(Clone, Debug)]
pub struct Gguf {
    metadata: BTreeMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened, [`Error::Gguf`] when it is not valid.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(at(path))?;
        let length = file.metadata().map_err(at(path))?.len();
        Self::parse(BufReader::new(file), length)
            .map_err(|error| Error::Gguf { path: path.to_owned(), error })
    }

    /// Reads the header from the start of a file of `length` bytes.
    ///
    /// # Errors
    /// [`GgufError`] when the file is truncated, or of another format, version or tensor type.
    pub fn parse(source: impl Read, length: u64) -> std::result::Result<Self, GgufError> {
        let mut reader = Reader::new(source, length);
        if reader.bytes()? != MAGIC {
            return Err(GgufError::Magic);
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = reader.u64()?;
        let metadata_count = reader.u64()?;
        let metadata = read_metadata(&mut reader, metadata_count)?;
        let tensors = read_tensors(&mut reader, tensor_count, alignment(&metadata)?)?;
        Ok(Self { metadata, tensors })
    }

    /// The metadata value under `key`, such as `llama.attention.head_count`.
    pub fn metadata(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`GgufError::NoTensor`].
    pub fn tensor(&self, name: &str) -> std::result::Result<&TensorInfo, GgufError> {
        self.tensors.get(name).ok_or_else(|| GgufError::NoTensor(name.to_owned()))
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }
}

impl TensorInfo {
    /// Reads the tensor's stored bytes out of `file`, the file that the info came from.
    ///
    /// # Errors
    /// [`GgufError::Io`] when the file cannot be read, for instance since it has shrunk.
    pub fn read(&self, file: &mut (impl Read + Seek)) -> std::result::Result<Vec<u8>, GgufError> {
        let length = usize::try_from(self.bytes).map_err(|_| GgufError::Truncated)?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(self.offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn read_metadata(
    reader: &mut Reader<impl Read>,
    count: u64,
) -> std::result::Result<BTreeMap<String, Value>, GgufError> {
    (0..count).map(|_| Ok((reader.string()?, Value::read(reader)?))).collect()
}

fn alignment(metadata: &BTreeMap<String, Value>) -> std::result::Result<u64, GgufError> {
    let Some(value) = metadata.get(ALIGNMENT_KEY) else { return Ok(DEFAULT_ALIGNMENT) };
    value.as_u64().filter(|alignment| *alignment > 0).ok_or(GgufError::Alignment)
}

/// Tensor offsets are stored relative to the data's start, which is only known once all infos
/// are read: they are made absolute, and checked, afterwards.
fn read_tensors(
    reader: &mut Reader<impl Read>,
    count: u64,
    alignment: u64,
) -> std::result::Result<HashMap<String, TensorInfo>, GgufError> {
    let mut tensors = (0..count)
        .map(|_| {
            let name = reader.string()?;
            let info = TensorInfo::parse(reader, &name)?;
            Ok((name, info))
        })
        .collect::<std::result::Result<HashMap<_, _>, GgufError>>()?;
    let start = reader.position().next_multiple_of(alignment);
    for (name, info) in &mut tensors {
        info.make_absolute(start, reader.length())
            .ok_or_else(|| GgufError::TensorOutside(name.clone()))?;
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::testing::{Builder, f32_bytes};
    use super::*;

    fn parse(bytes: &[u8]) -> std::result::Result<Gguf, GgufError> {
        Gguf::parse(Cursor::new(bytes), bytes.len() as u64)
    }

    fn sample() -> Vec<u8> {
        Builder::new(3)
            .text("general.architecture", "llama")
            .u32("llama.attention.head_count", 9)
            .text_array("tokenizer.ggml.tokens", &["a", "bc"])
            .tensor("first", &[3, 1], 0, &f32_bytes(&[1.0, 2.0, 3.0]))
            .tensor("second", &[2], 0, &f32_bytes(&[4.0, 5.0]))
            .build()
    }

    #[test]
    fn metadata_and_tensors_are_read() {
        let bytes = sample();
        let gguf = parse(&bytes).unwrap();
        assert_eq!(gguf.metadata("general.architecture").and_then(Value::as_str), Some("llama"));
        assert_eq!(gguf.metadata("llama.attention.head_count").and_then(Value::as_u64), Some(9));
        assert_eq!(gguf.metadata("tokenizer.ggml.tokens"), Some(&Value::Array { length: 2 }));
        assert_eq!(gguf.tensor_count(), 2);
        let second = gguf.tensor("second").unwrap();
        assert_eq!(second.read(&mut Cursor::new(&bytes)).unwrap(), f32_bytes(&[4.0, 5.0]));
    }

    #[test]
    fn axes_are_given_outermost_first() {
        assert_eq!(parse(&sample()).unwrap().tensor("first").unwrap().shape, [1, 3]);
    }

    #[test]
    fn version_2_reads_like_version_3() {
        let bytes = Builder::new(2).tensor("t", &[1], 0, &f32_bytes(&[1.0])).build();
        assert_eq!(parse(&bytes).unwrap().tensor_count(), 1);
    }

    #[test]
    fn a_stated_alignment_moves_the_data() {
        let bytes = Builder::new(3)
            .u32(ALIGNMENT_KEY, 256)
            .tensor("t", &[1], 0, &f32_bytes(&[6.5]))
            .build_aligned(256);
        let gguf = parse(&bytes).unwrap();
        let info = gguf.tensor("t").unwrap();
        assert_eq!(info.offset % 256, 0);
        assert_eq!(info.read(&mut Cursor::new(&bytes)).unwrap(), f32_bytes(&[6.5]));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_huge_string_length_is_an_error_and_allocates_nothing() {
        let mut bytes = Builder::new(3).text("key", "value").build();
        bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(parse(&bytes), Err(GgufError::Truncated)));
    }

    #[test]
    fn other_formats_versions_and_alignments_are_refused() {
        let mut other = sample();
        other[0] = b'X';
        assert!(matches!(parse(&other), Err(GgufError::Magic)));
        let old = Builder::new(1).build();
        assert!(matches!(parse(&old), Err(GgufError::Version(1))));
        let zero = Builder::new(3).u32(ALIGNMENT_KEY, 0).build();
        assert!(matches!(parse(&zero), Err(GgufError::Alignment)));
    }

    #[test]
    fn unknown_tensor_types_and_names_are_refused_by_name() {
        let bytes = Builder::new(3).tensor("odd", &[4], 77, &[0; 16]).build();
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(error.contains("odd") && error.contains("77"), "{error}");
        let error = parse(&sample()).unwrap().tensor("absent").unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
    }

    #[test]
    fn axes_that_overflow_or_split_a_block_are_refused() {
        let overflow = Builder::new(3).tensor("t", &[1 << 40, 1 << 40], 0, &[0; 16]).build();
        assert!(matches!(parse(&overflow), Err(GgufError::TensorShape { .. })));
        let split = Builder::new(3).tensor("t", &[33], 8, &[0; 68]).build();
        assert!(matches!(parse(&split), Err(GgufError::TensorShape { .. })));
    }

    #[test]
    fn arrays_nested_without_end_are_refused() {
        let mut value = 9u32.to_le_bytes().to_vec();
        for _ in 0..100_000 {
            value.extend(9u32.to_le_bytes());
            value.extend(1u64.to_le_bytes());
        }
        let bytes = Builder::new(3).raw("deep", &value).build();
        assert!(matches!(parse(&bytes), Err(GgufError::Nesting)));
    }
}
