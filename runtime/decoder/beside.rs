//! What a graph makes of its logits itself, so that they need not come to the host.

use planish_ir::{Model, ValueId};
use planish_passes::lower::{add_likeliest, add_scores};

use super::{DecoderOptions, Mode, name_of};
use crate::engine::Engine;

/// What stands among the outputs of the graph, after the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    /// The likeliest token of each position, and its logit.
    Likeliest,
    /// The negative log-likelihoods of the tokens that are fed as targets.
    Scores,
}

impl Beside {
    /// What a decoder wants of its engine; a graph that runs as it is stays so.
    pub fn wanted(engine: &dyn Engine, options: &DecoderOptions) -> Self {
        match options.mode {
            Mode::Lowered if engine.chooses_tokens() && options.scores => Self::Scores,
            Mode::Lowered if engine.chooses_tokens() => Self::Likeliest,
            _ => Self::Nothing,
        }
    }

    /// Adds it to a graph; returns the names of the outputs.
    pub fn add(self, model: &mut Model, logits: ValueId) -> Vec<String> {
        let outputs = match self {
            Self::Nothing => Vec::new(),
            Self::Likeliest => {
                let likeliest = add_likeliest(model, logits);
                vec![likeliest.token, likeliest.logit]
            }
            Self::Scores => vec![add_scores(model, logits)],
        };
        outputs.into_iter().map(|value| name_of(&model.graph, value)).collect()
    }
}
