//! The groups of elements of a weight that share a scale.

use planish_ir::Tensor;

use crate::ops::support::facts;
use crate::{Fact, OpError, OpNode};

/// The attribute `block_size`: rows of a column that share a scale, 0 for all.
pub(super) fn block_size(op: &OpNode) -> Result<usize, OpError> {
    let size = op.node.int("block_size", 0);
    usize::try_from(size).map_err(|_| OpError::unsupported("block_size can't be negative"))
}

/// Pieces of the columns of a matrix `[k, n]`, in the order of their clips.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    n: usize,
    /// Rows of a group.
    block: usize,
    n_blocks: usize,
}

impl Groups {
    /// The groups of the matrix `w`, whose clips are given.
    ///
    /// # Errors
    /// If the block size does not divide the rows, or the clips have another shape.
    pub fn new(op: &OpNode, w: &Tensor, clips: [&Tensor; 2]) -> Result<Self, OpError> {
        let &[k, n] = w.shape() else { return Err(OpError::shape("W must be a matrix")) };
        let given = block_size(op)?;
        let block = if given == 0 { k } else { given };
        if given != 0 && !k.is_multiple_of(given) {
            return Err(OpError::shape(format!("{k} rows are not blocks of {given}")));
        }
        let n_blocks = k.checked_div(block).unwrap_or(0);
        let shape = if given == 0 { vec![n] } else { vec![n_blocks, n] };
        for clip in clips {
            if clip.shape() != shape {
                let message = format!("clips of shape {:?} instead of {shape:?}", clip.shape());
                return Err(OpError::shape(message));
            }
        }
        // A matrix without rows still has a clip for each column.
        Ok(Self { n, block, n_blocks: if given == 0 { 1 } else { n_blocks } })
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.n_blocks * self.n
    }

    /// Where the elements of group `g` stand in the matrix.
    pub fn elements(&self, g: usize) -> impl Iterator<Item = usize> + use<> {
        let (n, first) = (self.n, g / self.n * self.block * self.n + g % self.n);
        (0..self.block).map(move |row| first + row * n)
    }

    /// The elements of group `g`.
    pub fn gather(&self, data: &[f32], g: usize) -> Vec<f32> {
        self.elements(g).map(|at| data[at]).collect()
    }
}

/// Fails where the known sizes of a weight and its clips contradict each other.
pub(super) fn check_facts(op: &OpNode, w: &Fact, clips: [&Fact; 2]) -> Result<(), OpError> {
    let block = block_size(op)?;
    if w.rank().is_some_and(|rank| rank != 2) {
        return Err(OpError::shape("W must be a matrix"));
    }
    let rank = if block == 0 { 1 } else { 2 };
    for clip in clips {
        if clip.rank().is_some_and(|found| found != rank) {
            return Err(OpError::shape(format!("the clips must have {rank} axes")));
        }
        facts::same_size("the last axis of the clips", w.dim(-1), clip.dim(-1))?;
    }
    let rows = w.dim(0).and_then(planish_ir::Dim::as_usize);
    match rows {
        Some(rows) if block != 0 && !rows.is_multiple_of(block) => {
            Err(OpError::shape(format!("{rows} rows are not blocks of {block}")))
        }
        _ => Ok(()),
    }
}
