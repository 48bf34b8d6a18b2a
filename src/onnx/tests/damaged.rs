//! No damage to a file makes the reader panic.

mod common;

use std::path::PathBuf;

use bytes::Bytes;
use planish_onnx::read_model_bytes;

/// A generator of pseudo-random numbers (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// The smallest of the tiny models, whose file is all structure: its weights lie in its folder.
fn victim() -> (Vec<u8>, PathBuf) {
    let size = |p: &PathBuf| p.metadata().unwrap().len();
    let path = common::tiny_models().into_iter().min_by_key(size).unwrap();
    (std::fs::read(&path).unwrap(), path.parent().unwrap().to_owned())
}

#[test]
fn cut_files_are_errors() {
    let (bytes, folder) = victim();
    let bytes = Bytes::from(bytes);
    read_model_bytes(bytes.clone(), Some(&folder)).unwrap();
    for end in (0..bytes.len()).step_by(97) {
        let cut = read_model_bytes(bytes.slice(..end), Some(&folder));
        assert!(cut.is_err(), "cut at {end}");
    }
}

#[test]
fn changed_bytes_are_errors_or_another_model() {
    let (original, folder) = victim();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut n_errors, mut n_models) = (0, 0);
    for _ in 0..2000 {
        let mut bytes = original.clone();
        for _ in 0..1 + random.below(3) {
            let position = random.below(bytes.len());
            bytes[position] ^= 1 << random.below(8);
        }
        match read_model_bytes(bytes.into(), Some(&folder)) {
            Ok(_) => n_models += 1,
            Err(_) => n_errors += 1,
        }
    }
    assert!(n_errors > 100 && n_models > 100, "{n_errors} errors, {n_models} models");
}

#[test]
fn noise_is_an_error() {
    let mut random = Random(42);
    for _ in 0..500 {
        let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
        assert!(read_model_bytes(bytes.into(), None).is_err());
    }
}
