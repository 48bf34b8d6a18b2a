//! Queries, keys and values by batch, head, position and channel, whatever the layout.

use planish_ir::Dim;

use super::Dense;
use crate::{Fact, OpError};

/// f32 `[batch, heads, sequence, head_size]`, row-major.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Heads {
    pub batch: usize,
    pub heads: usize,
    pub seq: usize,
    pub size: usize,
    pub data: Vec<f32>,
}

impl Heads {
    /// Zeros.
    pub fn zeros(batch: usize, heads: usize, seq: usize, size: usize) -> Self {
        Self { batch, heads, seq, size, data: vec![0.0; batch * heads * seq * size] }
    }

    /// Of a 4-D `[b, heads, s, d]` array, or a 3-D `[b, s, heads · d]` one, for which the number
    /// of heads must be given.
    pub fn read(x: Dense, heads: usize) -> Result<Self, OpError> {
        match *x.shape.as_slice() {
            [batch, heads, seq, size] => Ok(Self { batch, heads, seq, size, data: x.data }),
            [batch, seq, hidden] if heads > 0 && hidden % heads == 0 => {
                let mut out = Self::zeros(batch, heads, seq, hidden / heads);
                let size = out.size;
                for (i, head) in x.data.chunks_exact(size.max(1)).enumerate() {
                    let (b, s, h) = (i / heads / seq, i / heads % seq, i % heads);
                    out.row_mut(b, h, s).copy_from_slice(head);
                }
                Ok(out)
            }
            _ => Err(OpError::shape(format!("{:?} can't be split into {heads} heads", x.shape))),
        }
    }

    /// The vector of one head at one position.
    pub fn row(&self, batch: usize, head: usize, position: usize) -> &[f32] {
        let start = ((batch * self.heads + head) * self.seq + position) * self.size;
        &self.data[start..start + self.size]
    }

    /// The vector of one head at one position, to be written.
    pub fn row_mut(&mut self, batch: usize, head: usize, position: usize) -> &mut [f32] {
        let start = ((batch * self.heads + head) * self.seq + position) * self.size;
        &mut self.data[start..start + self.size]
    }

    /// Positions of `past`, then those of `self`.
    pub fn after(self, past: Option<Self>) -> Result<Self, OpError> {
        let Some(past) = past else { return Ok(self) };
        if (past.batch, past.heads, past.size) != (self.batch, self.heads, self.size) {
            return Err(OpError::shape("the past has other batches, heads or channels"));
        }
        let mut all = Self::zeros(self.batch, self.heads, past.seq + self.seq, self.size);
        for b in 0..self.batch {
            for h in 0..self.heads {
                for s in 0..past.seq {
                    all.row_mut(b, h, s).copy_from_slice(past.row(b, h, s));
                }
                for s in 0..self.seq {
                    all.row_mut(b, h, past.seq + s).copy_from_slice(self.row(b, h, s));
                }
            }
        }
        Ok(all)
    }

    /// As `[b, heads, s, d]`.
    pub fn into_4d(self) -> Dense {
        Dense { shape: vec![self.batch, self.heads, self.seq, self.size], data: self.data }
    }

    /// As `[b, s, heads · d]`.
    pub fn into_3d(self) -> Dense {
        let mut out = Dense::zeros(&[self.batch, self.seq, self.heads * self.size]);
        let rows = out.data.chunks_exact_mut(self.size.max(1));
        for (i, row) in rows.enumerate() {
            let (h, s) = (i % self.heads, i / self.heads % self.seq);
            row.copy_from_slice(self.row(i / self.heads / self.seq, h, s));
        }
        out
    }
}

/// `[batch, heads, sequence, head_size]` of a fact of either layout.
pub(in crate::ops) fn dims(fact: &Fact, heads: i64) -> Result<Option<[Dim; 4]>, OpError> {
    match fact.shape.as_deref() {
        None => Ok(None),
        Some([b, h, s, d]) => Ok(Some([b.clone(), h.clone(), s.clone(), d.clone()])),
        Some([b, s, hidden]) if heads > 0 => {
            let heads = Dim::from(heads);
            if hidden.as_const().is_some() && hidden.div_exact(&heads).is_none() {
                return Err(OpError::shape(format!("{hidden} channels can't make {heads} heads")));
            }
            Ok(Some([b.clone(), heads.clone(), s.clone(), hidden.floor_div(&heads)]))
        }
        Some(shape) => Err(OpError::shape(format!("{shape:?} can't be split into {heads} heads"))),
    }
}
