//! Little-endian primitives, bounded by the file's length.

use std::io::Read;

use super::GgufError;

/// Counts what it reads, so that no length in the file is believed beyond the file's end.
pub(super) struct Reader<R> {
    source: R,
    position: u64,
    length: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R, length: u64) -> Self {
        Self { source, position: 0, length }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the whole file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A length in bytes (u64), then that many bytes of UTF-8.
    pub(super) fn string(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        if length > self.length.saturating_sub(self.position) {
            return Err(GgufError::Truncated);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| GgufError::Truncated)?];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Utf8)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        let end = self.position + bytes.len() as u64;
        if end > self.length {
            return Err(GgufError::Truncated);
        }
        self.source.read_exact(bytes)?;
        self.position = end;
        Ok(())
    }
}
