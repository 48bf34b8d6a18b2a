//! Weights in the layout of `MatMulNBits` and `GatherBlockQuantized`.

use planish_ir::{DataType, Graph, Node, Tensor, ValueId};

use crate::parallel::for_each_chunk;

/// Sizes of blocks that ONNX Runtime's kernels are made for.
const BLOCK_SIZES: [usize; 5] = [256, 128, 64, 32, 16];
/// The largest block of a weight with one scale a column: the kernels round activations block by
/// block, and best where blocks are short.
const LARGEST_FREE: usize = 128;
/// Where no size divides the channels.
const USUAL: usize = 32;

/// A weight as unsigned codes in blocks, each with a scale; the zero point is the middle.
#[derive(Clone, Debug)]
pub(super) struct BlockWeight {
    /// UINT8 `[N, blocks, block_size · bits / 8]`, the last block of a row filled up with zeros.
    pub(super) codes: Tensor,
    /// f32 `[N, blocks]`.
    pub(super) scales: Tensor,
    pub(super) bits: usize,
    pub(super) block_size: usize,
    pub(super) k: usize,
    pub(super) n: usize,
}

/// Which axis of a matrix of codes counts the input channels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[K, N]`
    InputsFirst,
    /// `[N, K]`
    OutputsFirst,
}

impl BlockWeight {
    /// The weight that `DequantizeLinear` makes of constants.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub(super) fn of_dequantized(
        graph: &Graph,
        node: &Node,
        layout: Layout,
    ) -> Result<Self, String> {
        let constant = |index: usize| node.input(index).and_then(|v: ValueId| graph.constant(v));
        let (Some(codes), Some(scale)) = (constant(0), constant(1)) else {
            return Err("its codes or scales are no constants".into());
        };
        if node.input(2).is_some() {
            return Err("its weight has a zero point".into());
        }
        let group = usize::try_from(node.int("block_size", 0)).unwrap_or(0);
        Self::new(codes, scale, (group > 0).then_some(group), layout)
    }

    /// Packs INT4 or INT8 codes with one scale for each output channel, or for each group of
    /// `group` input channels of one (`scale` in the layout of the codes).
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub(super) fn new(
        codes: &Tensor,
        scale: &Tensor,
        group: Option<usize>,
        layout: Layout,
    ) -> Result<Self, String> {
        let [rows, columns] = codes.shape()[..] else {
            return Err(format!("its codes have the shape {:?}", codes.shape()));
        };
        let (k, n) = if layout == Layout::InputsFirst { (rows, columns) } else { (columns, rows) };
        let bits = match codes.dtype() {
            DataType::I4 => 4,
            DataType::I8 => 8,
            other => return Err(format!("its codes are of type {other}")),
        };
        let block_size = block_size(k, group)?;
        let scales = spread(scale, group, block_size, [k, n], layout)?;
        let spec = Packing { k, n, bits, block_size };
        let codes = spec.pack(codes, layout)?;
        Ok(Self { codes, scales, bits, block_size, k, n })
    }

    /// The codes as rows of a table, `[N, K · bits / 8]`; `None` if rows were filled up.
    pub(super) fn as_table(&self) -> Option<Tensor> {
        let is_whole = self.k.is_multiple_of(self.block_size);
        let shape = vec![self.n, self.k * self.bits / 8];
        is_whole.then(|| self.codes.reshaped(shape).ok()).flatten()
    }
}

/// The block for groups of `group` of `k` channels.
fn block_size(k: usize, group: Option<usize>) -> Result<usize, String> {
    let largest = |limit: usize, whole: usize| {
        BLOCK_SIZES.into_iter().find(|size| *size <= limit && whole.is_multiple_of(*size))
    };
    match group {
        Some(group) => largest(group, group).ok_or_else(|| {
            format!("groups of {group} channels are no multiple of 16, the smallest block there is")
        }),
        None => Ok(largest(LARGEST_FREE, k).unwrap_or(USUAL)),
    }
}

/// The scales `[N, blocks]`.
fn spread(
    scale: &Tensor,
    group: Option<usize>,
    block: usize,
    [k, n]: [usize; 2],
    layout: Layout,
) -> Result<Tensor, String> {
    let values = scale.to_f32_vec().map_err(|error| error.to_string())?;
    let n_blocks = k.div_ceil(block);
    let n_groups = group.map_or(1, |group| k.div_ceil(group));
    let one_for_all = values.len() == 1;
    if values.len() != n * n_groups && !one_for_all {
        return Err(format!("its scales have the shape {:?}", scale.shape()));
    }
    let at = |row: usize, block_index: usize| {
        let group = group.map_or(0, |group| block_index * block / group);
        match (one_for_all, layout) {
            (true, _) => 0,
            (_, Layout::InputsFirst) => group * n + row,
            (_, Layout::OutputsFirst) => row * n_groups + group,
        }
    };
    let spread = (0..n * n_blocks).map(|i| values[at(i / n_blocks, i % n_blocks)]).collect();
    Ok(Tensor::from_vec(&[n, n_blocks], spread))
}

/// How codes are packed.
struct Packing {
    k: usize,
    n: usize,
    bits: usize,
    block_size: usize,
}

impl Packing {
    fn pack(&self, codes: &Tensor, layout: Layout) -> Result<Tensor, String> {
        let n_blocks = self.k.div_ceil(self.block_size);
        let blob = self.block_size * self.bits / 8;
        // The middle of the range, twice in a byte of 4-bit codes.
        let zero = if self.bits == 4 { 0x88u8 } else { 0x80 };
        let mut packed = vec![zero; self.n * n_blocks * blob];
        let bytes = codes.bytes();
        for_each_chunk(&mut packed, n_blocks * blob, self.n * self.k, |row, out| {
            for channel in 0..self.k {
                let at = match layout {
                    Layout::InputsFirst => channel * self.n + row,
                    Layout::OutputsFirst => row * self.k + channel,
                };
                if self.bits == 8 {
                    out[channel] = bytes[at] ^ 0x80;
                } else {
                    let code = (bytes[at / 2] >> (4 * (at % 2)) & 0xF) ^ 0x8;
                    let shift = 4 * (channel % 2);
                    let byte = &mut out[channel / 2];
                    *byte = *byte & !(0xF << shift) | code << shift;
                }
            }
        });
        let shape = vec![self.n, n_blocks, blob];
        Tensor::new(DataType::U8, shape, packed.into()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_packed_by_output_channel_with_the_first_in_the_low_bits() {
        // K = 2, N = 2: column 0 is (1, -8), column 1 is (2, 7).
        let codes = Tensor::from_int4_codes(&[2, 2], &[1, 2, -8, 7]);
        let scale = Tensor::from_vec(&[2], vec![0.5f32, 2.0]);
        let weight = BlockWeight::new(&codes, &scale, None, Layout::InputsFirst).unwrap();
        assert_eq!((weight.block_size, weight.codes.shape()), (32, &[2, 1, 16][..]));
        assert_eq!(weight.codes.bytes()[..2], [0x09, 0x88]);
        assert_eq!(weight.codes.bytes()[16..18], [0xFA, 0x88]);
        assert_eq!(weight.scales.to_f32_vec().unwrap(), [0.5, 2.0]);
        assert!(weight.as_table().is_none());
    }

    #[test]
    fn both_layouts_pack_alike_and_groups_repeat_their_scale() {
        let values: Vec<i8> = (0..96 * 2).map(|i| (i * 7 % 16 - 8) as i8).collect();
        let turned: Vec<i8> = (0..values.len()).map(|i| values[i % 96 * 2 + i / 96]).collect();
        let scale = Tensor::from_vec(&[2, 2], vec![1f32, 2., 3., 4.]);
        let turned_scale = Tensor::from_vec(&[2, 2], vec![1f32, 3., 2., 4.]);
        let codes = Tensor::from_int4_codes(&[96, 2], &values);
        let a = BlockWeight::new(&codes, &scale, Some(48), Layout::InputsFirst).unwrap();
        let codes = Tensor::from_int4_codes(&[2, 96], &turned);
        let b = BlockWeight::new(&codes, &turned_scale, Some(48), Layout::OutputsFirst).unwrap();
        assert_eq!((a.block_size, a.scales.shape()), (16, &[2, 6][..]));
        assert_eq!(a.scales.to_f32_vec().unwrap()[..6], [1., 1., 1., 3., 3., 3.]);
        assert_eq!((&a.codes, &a.scales), (&b.codes, &b.scales));
    }

    #[test]
    fn groups_that_no_block_divides_are_refused() {
        let codes = Tensor::from_int4_codes(&[24, 2], &[0; 48]);
        let scale = Tensor::from_vec(&[1, 2], vec![1f32; 2]);
        let error = BlockWeight::new(&codes, &scale, Some(24), Layout::InputsFirst).unwrap_err();
        assert!(error.contains("groups of 24 channels"), "{error}");
    }
}
