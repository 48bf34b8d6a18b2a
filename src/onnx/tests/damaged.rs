//! No damage to a file makes the reader panic.

mod common;

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

/// The smallest of the tiny models, whose file is mostly structure and not weights.
fn victim() -> Vec<u8> {
    let size = |p: &std::path::PathBuf| p.metadata().unwrap().len();
    let path = common::tiny_models().into_iter().min_by_key(size).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn cut_files_are_errors() {
    let bytes = Bytes::from(victim());
    for end in (0..bytes.len()).step_by(97) {
        assert!(read_model_bytes(bytes.slice(..end), None).is_err(), "cut at {end}");
    }
}

#[test]
fn changed_bytes_are_errors_or_another_model() {
    let original = victim();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut n_errors = 0;
    for _ in 0..2000 {
        let mut bytes = original.clone();
        for _ in 0..1 + random.below(3) {
            let position = random.below(bytes.len());
            bytes[position] ^= 1 << random.below(8);
        }
        n_errors += usize::from(read_model_bytes(bytes.into(), None).is_err());
    }
    assert!(n_errors > 0);
}

#[test]
fn noise_is_an_error() {
    let mut random = Random(42);
    for _ in 0..500 {
        let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
        assert!(read_model_bytes(bytes.into(), None).is_err());
    }
}
