//! Learning transforms and clipping: the graphs that calibration runs.
//!
//! A block is cut out of the canonical model ([`cut_block`]), transforms and quantisers are put
//! into it with everything learnable as graph inputs ([`Student`]), and [`Objective`] adds a loss
//! and its gradients. What drives them over a text lives in the runtime; what came of it goes
//! back into the model through [`LearnedBlock`].
//!
//! Sources: FlatQuant (Sun et al., arXiv 2410.09426), AffineQuant (Ma et al., arXiv 2403.12544).

mod balance;
mod builder;
mod cut;
mod error;
mod factor_moments;
mod gradual;
mod learned;
mod objective;
mod parameter;
mod statistics;
mod student;
mod tail;

#[cfg(test)]
mod tests;

pub use cut::{BlockModel, cut_block, cut_tail};
pub use error::CalibrateError;
pub use factor_moments::FactorMoments;
pub use gradual::GradualMask;
pub use learned::{LearnedAttention, LearnedBlock, LearnedLinear, LearnedSite};
pub use objective::{Objective, Target};
pub use parameter::{Parameter, ParameterId, ParameterKind};
pub use statistics::{ChannelRange, ObservedBlock, Statistics};
pub use student::{
    AttentionSlots, ClipSlots, Initial, LinearSlots, MatrixSlots, Online, SiteSlots, Student,
    StudentOptions,
};
pub use tail::Divergence;
