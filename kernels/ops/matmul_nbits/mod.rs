//! com.microsoft's `MatMulNBits`: f32 rows times a weight of 4- or 8-bit codes `[N, blocks, …]`,
//! each block of `block_size` rows of K with a scale and a zero point (2^(bits−1) by default).

use planish_ir::{Dim, Tensor};

use super::support::{Dense, dense, facts, rows};
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

mod cpu;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("MatMulNBits", infer, eval).in_domain(MICROSOFT).with_cpu(cpu::cpu)];

/// The attributes, checked.
struct Spec {
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
}

impl Spec {
    fn read(op: &OpNode) -> Result<Self, OpError> {
        let size = |name, default| match usize::try_from(op.node.int(name, default)) {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(OpError::unsupported(format!("attribute {name} must be positive"))),
        };
        let spec = Self {
            k: size("K", 0)?,
            n: size("N", 0)?,
            bits: size("bits", 4)?,
            block: size("block_size", 0)?,
        };
        if spec.bits != 4 && spec.bits != 8 || !spec.block.is_multiple_of(2) {
            return Err(OpError::unsupported("MatMulNBits takes 4 or 8 bits and even blocks"));
        }
        Ok(spec)
    }

    fn n_blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// The unsigned code at flat index `i` of packed bytes.
    fn code(&self, bytes: &[u8], i: usize) -> u8 {
        if self.bits == 8 { bytes[i] } else { (bytes[i / 2] >> (4 * (i % 2))) & 0xF }
    }

    /// The codes of the weight, `[N, K]`.
    fn codes(&self, b: &Tensor) -> Result<Vec<u8>, OpError> {
        let padded = self.n_blocks() * self.block;
        if b.bytes().len() != self.n * padded * self.bits / 8 {
            return Err(OpError::shape(format!("a weight {:?} of {} codes", b.shape(), self.k)));
        }
        let row = |n: usize| (0..self.k).map(move |k| n * padded + k);
        Ok((0..self.n).flat_map(row).map(|i| self.code(b.bytes(), i)).collect())
    }

    /// The zero point of each column and block, `[N, blocks]`.
    fn zeros(&self, zeros: Option<&Tensor>) -> Result<Vec<f32>, OpError> {
        let (n, blocks) = (self.n, self.n_blocks());
        let Some(zeros) = zeros else {
            return Ok(vec![(1 << (self.bits - 1)) as f32; n * blocks]);
        };
        if zeros.dtype().is_float() {
            let zeros = zeros.to_f32_vec()?;
            return Some(zeros).filter(|z| z.len() == n * blocks).ok_or_else(bad_zeros);
        }
        // Rows of codes are padded to whole bytes.
        let row_bytes = (blocks * self.bits).div_ceil(8);
        if zeros.bytes().len() != n * row_bytes {
            return Err(bad_zeros());
        }
        let row = |bytes| (0..blocks).map(move |i| f32::from(self.code(bytes, i)));
        Ok(zeros.bytes().chunks_exact(row_bytes).flat_map(row).collect())
    }

    /// The scale of each column and block, `[N, blocks]`.
    fn scales(&self, scales: &Tensor) -> Result<Vec<f32>, OpError> {
        let values = scales.to_f32_vec()?;
        let message = || OpError::shape(format!("scales {:?}", scales.shape()));
        Some(values).filter(|s| s.len() == self.n * self.n_blocks()).ok_or_else(message)
    }
}

fn bad_zeros() -> OpError {
    OpError::shape("the zero points do not fit the weight")
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let spec = Spec::read(op)?;
    let x = facts::required(inputs, 0)?;
    facts::required(inputs, 1)?;
    facts::required(inputs, 2)?;
    facts::same_size("the input", Some(&Dim::from(spec.k)), x.dim(-1))?;
    Ok(vec![Fact::new(x.dtype, facts::with_last(x, Dim::from(spec.n)))])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let spec = Spec::read(op)?;
    if optional(inputs, 4).is_some() {
        return Err(OpError::unsupported("MatMulNBits with a group index"));
    }
    let x = required(inputs, 0)?;
    rows::count(x, spec.k)?;
    let codes = spec.codes(required(inputs, 1)?)?;
    let (scales, zeros) = (spec.scales(required(inputs, 2)?)?, spec.zeros(optional(inputs, 3))?);
    let value = |(i, code): (usize, &u8)| {
        let at = i / spec.k * spec.n_blocks() + i % spec.k / spec.block;
        (f32::from(*code) - zeros[at]) * scales[at]
    };
    let weight: Vec<f32> = codes.iter().enumerate().map(value).collect();
    let columns = weight.chunks_exact(spec.k);
    let row =
        |row: &[f32]| columns.clone().map(|c| dense::dot(row, c) as f32).collect::<Vec<f32>>();
    let data = Dense::read(x)?.rows().flat_map(row).collect();
    let mut y = Dense { shape: rows::with_last(x, spec.n), data };
    if let Some(bias) = optional(inputs, 5) {
        y.combine(&Dense::read(bias)?, |y, bias| y + bias)?;
    }
    Ok(vec![y.into_tensor(x.dtype())?])
}
