//! The file that holds the data of large initializers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use planish_ir::Tensor;

use super::temp::TempFile;
use crate::error::WriteError;
use crate::proto::StringStringEntryProto;

/// Tensors from this size on start at a page, so that readers can map them one by one.
const PAGE_ALIGNED_FROM: usize = 1 << 20;
const PAGE: u64 = 4096;
/// Alignment of the smaller ones: a cache line, the widest that vector loads ask for.
const CACHE_LINE: u64 = 64;

/// Where the data of initializers goes.
pub(super) enum Data {
    /// Into the ONNX file.
    Inline,
    /// Into a file that is being written.
    New(DataFile),
    /// Nowhere: it lies in a file already.
    Existing(ExistingFile),
}

impl Data {
    /// Sees to it that the tensor lies in an external file, if it is to, and says where.
    pub(super) fn place(
        &mut self,
        tensor: &Tensor,
    ) -> Result<Option<Vec<StringStringEntryProto>>, WriteError> {
        match self {
            Self::Inline => Ok(None),
            Self::New(file) => file.place(tensor),
            Self::Existing(file) => Ok(file.find(tensor)),
        }
    }

    /// Size in bytes of the external file, which has its name from now on.
    pub(super) fn finish(self) -> Result<u64, WriteError> {
        match self {
            Self::Inline => Ok(0),
            Self::New(file) => file.finish(),
            Self::Existing(file) => Ok(file.range.len() as u64),
        }
    }
}

/// An external data file that was there before.
pub(super) struct ExistingFile {
    file_name: String,
    /// Addresses of its bytes.
    range: Range<usize>,
}

impl ExistingFile {
    /// The file `file_name` beside `model`, whose contents are `data`.
    pub(super) fn new(model: &Path, file_name: &str, data: &Bytes) -> Result<Self, WriteError> {
        check_name(model, file_name)?;
        let start = data.as_ptr() as usize;
        Ok(Self { file_name: file_name.to_owned(), range: start..start + data.len() })
    }

    /// Where the tensor lies, if it is a view of the file.
    fn find(&self, tensor: &Tensor) -> Option<Vec<StringStringEntryProto>> {
        let (start, length) = (tensor.bytes().as_ptr() as usize, tensor.bytes().len());
        let lies_inside = start >= self.range.start && start + length <= self.range.end;
        let offset = || (start - self.range.start) as u64;
        (length > 0 && lies_inside).then(|| entries(&self.file_name, offset(), length))
    }
}

/// Refuses what is no plain file name, or the model's own.
fn check_name(model: &Path, file_name: &str) -> Result<(), WriteError> {
    let mut components = Path::new(file_name).components();
    let is_plain = matches!(components.next(), Some(Component::Normal(n)) if n == file_name)
        && components.next().is_none();
    if !is_plain || model.file_name().is_some_and(|n| n == file_name) {
        return Err(WriteError::FileName(file_name.to_owned()));
    }
    Ok(())
}

/// A tensor's `external_data`.
fn entries(file_name: &str, offset: u64, length: usize) -> Vec<StringStringEntryProto> {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    vec![
        entry("location", file_name.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ]
}

/// An external data file in the making.
pub(super) struct DataFile {
    path: PathBuf,
    file_name: String,
    min_bytes: usize,
    temp: TempFile,
    writer: BufWriter<File>,
    /// Bytes written so far.
    end: u64,
    /// Offsets of the tensors written so far, by the address and length of their bytes. The
    /// model is borrowed while it is written, so an address means the same bytes throughout.
    offsets: HashMap<(usize, usize), u64>,
}

impl DataFile {
    /// Begins the file `file_name` beside `model`.
    pub(super) fn create(
        model: &Path,
        file_name: &str,
        min_bytes: usize,
    ) -> Result<Self, WriteError> {
        check_name(model, file_name)?;
        let path = model.with_file_name(file_name);
        let io = |source| WriteError::Io { path: path.clone(), source };
        let (temp, file) = TempFile::create(&path).map_err(io)?;
        Ok(Self {
            file_name: file_name.to_owned(),
            min_bytes,
            temp,
            writer: BufWriter::new(file),
            end: 0,
            offsets: HashMap::new(),
            path,
        })
    }

    /// Writes the tensor if it is large enough, and says where it lies.
    fn place(
        &mut self,
        tensor: &Tensor,
    ) -> Result<Option<Vec<StringStringEntryProto>>, WriteError> {
        let bytes = tensor.bytes();
        if bytes.is_empty() || bytes.len() < self.min_bytes {
            return Ok(None);
        }
        let key = (bytes.as_ptr() as usize, bytes.len());
        let offset = match self.offsets.get(&key) {
            Some(offset) => *offset,
            None => self.append(bytes).map_err(|source| self.error(source))?,
        };
        self.offsets.insert(key, offset);
        Ok(Some(entries(&self.file_name, offset, bytes.len())))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let alignment = if bytes.len() >= PAGE_ALIGNED_FROM { PAGE } else { CACHE_LINE };
        let offset = self.end.next_multiple_of(alignment);
        let padding = [0; PAGE as usize];
        self.writer.write_all(&padding[..(offset - self.end) as usize])?;
        self.writer.write_all(bytes)?;
        self.end = offset + bytes.len() as u64;
        Ok(offset)
    }

    fn error(&self, source: io::Error) -> WriteError {
        WriteError::Io { path: self.path.clone(), source }
    }

    /// Gives the file its name, if there is anything in it; returns its size in bytes.
    fn finish(mut self) -> Result<u64, WriteError> {
        self.writer.flush().map_err(|source| self.error(source))?;
        if self.end > 0 {
            let path = self.path;
            self.temp.persist().map_err(|source| WriteError::Io { path, source })?;
        }
        Ok(self.end)
    }
}
