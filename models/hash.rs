//! SHA-256 in the lower-case hexadecimal form that the manifests use.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Bytes read at a time: large enough that system calls do not count.
const CHUNK: usize = 1 << 20;

/// SHA-256 of a slice.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of everything that `reader` gives.
pub(crate) fn sha256_of(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&chunk[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_slice_and_a_reader_hash_alike() {
        assert_eq!(sha256(b"abc"), ABC);
        assert_eq!(sha256_of(&b"abc"[..]).unwrap(), ABC);
    }

    #[test]
    fn a_reader_longer_than_a_chunk_is_hashed_whole() {
        let bytes = vec![7; CHUNK + 3];
        assert_eq!(sha256_of(&bytes[..]).unwrap(), sha256(&bytes));
    }
}
