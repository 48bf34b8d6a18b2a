//! What a student learns, and from where it starts.

use crate::calibrate::Statistics;
use crate::calibrate::balance::balanced;
use crate::quantize::BitWidths;
use crate::sites::{Layout, Site, SiteRole};
use crate::transform::{Matrix, Random, kronecker_sizes, spreading};

/// Transforms of activations that run in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Online {
    /// None: only what merges into weights is learned (AffineQuant).
    Nothing,
    /// One matrix for every run of channels at a site, I ⊗ P₂, and none across heads: one product
    /// where Kronecker factors take two.
    Blocks,
    /// P₁ ⊗ P₂ (FlatQuant).
    Kronecker,
}

/// The most channels that a block of [`Online::Blocks`] has.
const LARGEST_BLOCK: usize = 64;

impl Online {
    /// The sizes (n₁, n₂) of a site's factors; those of [`Online::Blocks`] have no first one. `None`
    /// where there is no transform.
    pub(super) fn sizes(self, channels: usize) -> Option<(usize, usize)> {
        match self {
            Self::Nothing => None,
            Self::Blocks => {
                let divides = |d: &usize| channels.is_multiple_of(*d);
                let n2 = (1..=LARGEST_BLOCK.min(channels)).rev().find(divides).unwrap_or(1);
                Some((channels / n2, n2))
            }
            Self::Kronecker => Some(kronecker_sizes(channels)),
        }
    }
}

/// What is put into a block.
#[derive(Clone, Debug, PartialEq)]
pub struct StudentOptions {
    /// Widths of weights, activations and KV cache.
    pub bits: BitWidths,
    /// Input channels of a linear layer that share a scale; `None`: all of them.
    pub group_size: Option<usize>,
    /// What is transformed while running; the rest merges into weights.
    pub online: Online,
    /// Whether there are per-channel scales where something takes them in.
    pub scales: bool,
    /// Whether activations that are rounded are shifted per channel where that merges into biases
    /// ([`Layout::takes_shift`]). Matrices that start from moments do so as if they were not.
    pub shifts: bool,
    /// Whether the layers' weights are learned too.
    pub weights: bool,
    /// With a stability factor, matrices start as the identity and are multiplied element by
    /// element by a [`GradualMask`] (AffineQuant).
    pub gradual: Option<f32>,
}

impl StudentOptions {
    /// The sizes (n₁, n₂) of the factors that activations of a site are transformed by; `None`
    /// where there is no transform.
    pub(in crate::calibrate) fn factors(
        &self,
        layout: &Layout,
        site: &Site,
    ) -> Option<(usize, usize)> {
        match &site.role {
            SiteRole::AttentionOutput { attention, .. } => {
                let attention = layout.attention(*attention);
                Some((attention.q_heads, attention.v_head_size))
            }
            _ => self.online.sizes(site.channels),
        }
    }
}

/// Where learning starts.
#[derive(Clone, Debug)]
pub struct Initial {
    /// Generator of the random starting matrices.
    pub random: Random,
    /// What the block reads; what is not known is started from without it.
    pub statistics: Statistics,
    /// How much of the activations' range the scales move into the weights (FlatQuant's
    /// diag_alpha is 0.3: c = max|W|^(1−α) / max|X|^α, inverted here as activations are divided).
    pub alpha: f64,
}

/// The sigmoid of this, 0.924, is where the clipping ratios of activations and cache start.
pub(super) const CLIP_START: f32 = 2.5;

impl Initial {
    /// A start without measured ranges.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), statistics: Statistics::default(), alpha: 0.3 }
    }

    /// Where a matrix of `n` rows starts: at the identity under a gradual mask; else balanced
    /// between the second moments of activations and weights, if they are known, and spread by a
    /// rotation.
    pub(super) fn matrix(
        &mut self,
        n: usize,
        options: &StudentOptions,
        moments: Option<&(Matrix, Matrix)>,
    ) -> Matrix {
        if options.gradual.is_some() {
            return Matrix::identity(n);
        }
        let rotation = self.rotation(n);
        match moments {
            Some((activations, weights)) => balanced(activations, weights, &rotation),
            None => rotation,
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
