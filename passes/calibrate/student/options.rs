//! What a student learns, and from where it starts.

use crate::quantize::BitWidths;
use crate::transform::{Matrix, Random, spreading};

/// What is put into a block.
#[derive(Clone, Debug, PartialEq)]
pub struct StudentOptions {
    /// Widths of weights, activations and KV cache.
    pub bits: BitWidths,
    /// Input channels of a linear layer that share a scale; `None`: all of them.
    pub group_size: Option<usize>,
    /// Whether activations are transformed while running (FlatQuant); else only what merges into
    /// weights is learned.
    pub online: bool,
    /// Whether there are per-channel scales where something takes them in.
    pub scales: bool,
    /// Whether the layers' weights are learned too.
    pub weights: bool,
    /// With a stability factor, matrices start as the identity and are multiplied element by
    /// element by a [`GradualMask`] (AffineQuant).
    pub gradual: Option<f32>,
}

/// Where learning starts.
#[derive(Clone, Debug)]
pub struct Initial {
    /// Generator of the random starting matrices.
    pub random: Random,
    /// Largest absolute value of every channel of the block's sites, by site; empty where it was
    /// not measured.
    pub channel_max: Vec<Vec<f32>>,
    /// How much of the activations' range the scales move into the weights (FlatQuant's
    /// diag_alpha is 0.3: c = max|W|^(1−α) / max|X|^α, inverted here as activations are divided).
    pub alpha: f64,
}

/// The sigmoid of this is 0.982: FlatQuant's start of every clipping ratio.
pub(super) const CLIP_START: f32 = 4.0;

impl Initial {
    /// A start without measured ranges.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), channel_max: Vec::new(), alpha: 0.3 }
    }

    /// Where a matrix starts: at the identity under a gradual mask, else at [`Self::rotation`].
    pub(super) fn matrix(&mut self, n: usize, options: &StudentOptions) -> Matrix {
        match options.gradual {
            Some(_) => Matrix::identity(n),
            None => self.rotation(n),
        }
    }

    /// An orthogonal matrix that spreads each channel over all, its rows with random signs.
    fn rotation(&mut self, n: usize) -> Matrix {
        let mut matrix = spreading(n);
        for i in 0..n {
            let sign = self.random.sign();
            matrix.row_mut(i).iter_mut().for_each(|x| *x *= sign);
        }
        matrix
    }
}
