//! ggml's tensor encodings to f32.
//!
//! Block layouts: ggml's `ggml-common.h`, structures `block_q4_1` and `block_q8_0`. Products and
//! sums are rounded to f32 one after the other, which is what the published hashes were made with.

use half::f16;

use crate::gguf::{GgufError, TensorType};

/// Decodes a tensor's stored bytes; elements come in storage order.
///
/// # Errors
/// [`GgufError::PartBlock`] when `bytes` is no whole number of blocks.
pub fn dequantize(dtype: TensorType, bytes: &[u8]) -> Result<Vec<f32>, GgufError> {
    let blocks = bytes.len() / dtype.block_bytes();
    let mut out = Vec::with_capacity(blocks * dtype.block_elements());
    match dtype {
        TensorType::F32 => each_block(bytes, |block| out.push(f32::from_le_bytes(*block))),
        TensorType::F16 => each_block(bytes, |block| out.push(half(*block))),
        TensorType::Q4_1 => each_block(bytes, |block| q4_1(block, &mut out)),
        TensorType::Q8_0 => each_block(bytes, |block| q8_0(block, &mut out)),
    }?;
    Ok(out)
}

fn each_block<const N: usize>(bytes: &[u8], decode: impl FnMut(&[u8; N])) -> Result<(), GgufError> {
    let (blocks, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(GgufError::PartBlock { bytes: bytes.len(), block: N });
    }
    blocks.iter().for_each(decode);
    Ok(())
}

/// d (f16), m (f16), 16 bytes of codes: element j is the low half of byte j, element j + 16 the
/// high half; value = code · d + m.
fn q4_1(block: &[u8; 20], out: &mut Vec<f32>) {
    let [d0, d1, m0, m1, codes @ ..] = block;
    let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
    out.extend(codes.iter().map(|byte| f32::from(byte & 0xf) * d + m));
    out.extend(codes.iter().map(|byte| f32::from(byte >> 4) * d + m));
}

/// d (f16), 32 signed bytes; value = code · d.
fn q8_0(block: &[u8; 34], out: &mut Vec<f32>) {
    let [d0, d1, codes @ ..] = block;
    let d = half([*d0, *d1]);
    out.extend(codes.iter().map(|code| f32::from(*code as i8) * d));
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q4_1_takes_low_halves_first() {
        // d = 0.5 (0x3800), m = -2 (0xc000).
        let mut block = vec![0x00, 0x38, 0x00, 0xc0];
        block.extend((0..16).map(|j: u8| j | (15 - j) << 4));
        let values = dequantize(TensorType::Q4_1, &block).unwrap();
        let expected: Vec<f32> =
            (0..16).chain((0..16).rev()).map(|code| code as f32 / 2.0 - 2.0).collect();
        assert_eq!(values, expected);
    }

    #[test]
    fn q8_0_codes_are_signed() {
        // d = 0.25 (0x3400).
        let mut block = vec![0x00, 0x34, 0x80, 0x7f, 0xff];
        block.resize(34, 4);
        let values = dequantize(TensorType::Q8_0, &block).unwrap();
        assert_eq!(values[..4], [-32.0, 31.75, -0.25, 1.0]);
        assert_eq!(values.len(), 32);
    }

    #[test]
    fn blocks_follow_one_another() {
        let one = [&[0x00u8, 0x3c][..], &[1; 32]].concat();
        let two = [&[0x00u8, 0x40][..], &[1; 32]].concat();
        let values = dequantize(TensorType::Q8_0, &[one, two].concat()).unwrap();
        assert_eq!(values, [[1.0; 32], [2.0; 32]].concat());
    }

    #[test]
    fn floats_are_read_as_they_are() {
        assert_eq!(dequantize(TensorType::F16, &[0x00, 0xbe]).unwrap(), [-1.5]);
        assert_eq!(dequantize(TensorType::F32, &1.1f32.to_le_bytes()).unwrap(), [1.1]);
    }

    #[test]
    fn every_type_decodes_as_many_elements_as_it_says() {
        for dtype in [TensorType::F32, TensorType::F16, TensorType::Q4_1, TensorType::Q8_0] {
            let values = dequantize(dtype, &vec![0; 3 * dtype.block_bytes()]).unwrap();
            assert_eq!(values.len(), 3 * dtype.block_elements(), "{dtype:?}");
        }
    }

    #[test]
    fn part_blocks_are_refused() {
        for dtype in [TensorType::F32, TensorType::F16, TensorType::Q4_1, TensorType::Q8_0] {
            let bytes = vec![0; dtype.block_bytes() + 1];
            assert!(dequantize(dtype, &bytes).is_err(), "{dtype:?}");
        }
    }
}
