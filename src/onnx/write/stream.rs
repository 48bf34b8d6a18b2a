//! A protobuf sink that writes to a file as it goes.

use std::io::{self, Write};

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut};

const CAPACITY: usize = 64 * 1024;

/// Collects small pieces and passes large ones straight on, so that encoding a message takes no
/// memory of the message's size. The first error is kept until [`Stream::finish`].
pub(super) struct Stream<W> {
    writer: W,
    buffer: Box<[u8]>,
    n_filled: usize,
    error: Option<io::Error>,
}

impl<W: Write> Stream<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, buffer: vec![0; CAPACITY].into(), n_filled: 0, error: None }
    }

    /// Writes out what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush_buffer();
        match self.error {
            Some(error) => Err(error),
            None => self.writer.flush(),
        }
    }

    fn flush_buffer(&mut self) {
        let n_filled = std::mem::take(&mut self.n_filled);
        if self.error.is_none() {
            self.error = self.writer.write_all(&self.buffer[..n_filled]).err();
        }
    }
}

// SAFETY: `chunk_mut` is never empty, and `advance_mut` checks that it stays within the buffer,
// all of which is initialised.
unsafe impl<W: Write> BufMut for Stream<W> {
    fn remaining_mut(&self) -> usize {
        usize::MAX
    }

    unsafe fn advance_mut(&mut self, n: usize) {
        assert!(n <= CAPACITY - self.n_filled, "advanced beyond the chunk");
        self.n_filled += n;
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        if self.n_filled == CAPACITY {
            self.flush_buffer();
        }
        UninitSlice::new(&mut self.buffer[self.n_filled..])
    }

    fn put<T: Buf>(&mut self, mut source: T) {
        while source.has_remaining() {
            let n = source.chunk().len();
            self.put_slice(source.chunk());
            source.advance(n);
        }
    }

    fn put_slice(&mut self, source: &[u8]) {
        if source.len() > CAPACITY - self.n_filled {
            self.flush_buffer();
        }
        if source.len() < CAPACITY {
            self.buffer[self.n_filled..self.n_filled + source.len()].copy_from_slice(source);
            self.n_filled += source.len();
        } else if self.error.is_none() {
            self.error = self.writer.write_all(source).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_all_sizes_come_out_in_order() {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        let mut stream = Stream::new(&mut out);
        for (i, size) in [1, 65_535, 65_536, 0, 7, 200_000, 3].into_iter().enumerate() {
            let piece = vec![i as u8; size];
            expected.extend(&piece);
            expected.push(0xAB);
            stream.put(piece.as_slice());
            stream.put_u8(0xAB);
        }
        stream.finish().unwrap();
        assert!(out == expected);
    }

    #[test]
    fn a_full_disk_is_reported() {
        let mut space = [0u8; 100];
        let mut stream = Stream::new(space.as_mut_slice());
        stream.put_slice(&[1; 101]);
        assert_eq!(stream.finish().unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
