//! A writer that keeps its first error for the end.
use std::io::{self, Seek, SeekFrom, Write};

/// Writes until something fails, and from then on does nothing. `ZipWriter` complains on stderr
/// when it is dropped over a writer that fails; over this one it has no reason to.
pub(super) struct Sink<W> {
    writer: W,
    position: u64,
    error: Option<io::Error>,
}

impl<W: Write + Seek> Sink<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, position: 0, error: None }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The first error of all.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.attempt(W::flush);
        self.error.map_or(Ok(()), Err)
    }

    fn attempt(&mut self, act: impl FnOnce(&mut W) -> io::Result<()>) {
        if self.error.is_none() {
            self.error = act(&mut self.writer).err();
        }
    }
}

impl<W: Write + Seek> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|writer| writer.write_all(bytes));
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(W::flush);
        Ok(())
    }
}

impl<W: Write + Seek> Seek for Sink<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if self.error.is_none() {
            match self.writer.seek(to) {
                Ok(position) => self.position = position,
                Err(error) => self.error = Some(error),
            }
        }
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_first_error_is_told_at_the_end() {
        let mut space = [0u8; 4];
        let mut sink = Sink::new(Cursor::new(space.as_mut_slice()));
        sink.write_all(b"abc").unwrap();
        assert_eq!(sink.stream_position().unwrap(), 3);
        sink.write_all(b"defg").unwrap();
        sink.write_all(b"h").unwrap();
        assert_eq!(sink.finish().unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
