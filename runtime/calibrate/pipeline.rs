//! Learning all blocks of a model.

use std::time::Instant;

use planish_ir::Model;
use planish_passes::calibrate::{BlockModel, Student, StudentOptions, cut_block};
use planish_passes::sites::Layout;

use super::CalibrationError;
use super::capture::{Captured, capture};
use super::end_to_end::Corpus;
use super::finish::{Finish, Finished, beside};
use super::learner::Learner;
use super::recipe::{BlockInput, Recipe};
use super::side_by_side::Worker;
use super::states::States;
use super::store::Store;
use crate::engine::Engine;

/// A calibration to be done.
pub struct Calibration<'a> {
    /// What runs the graphs.
    pub engine: &'a dyn Engine,
    /// The canonical model.
    pub model: &'a Model,
    /// Its layout.
    pub layout: &'a Layout,
    /// What is put into the blocks.
    pub options: &'a StudentOptions,
    /// How much is learned.
    pub recipe: &'a Recipe,
    /// The calibration text.
    pub ids: &'a [u32],
    /// Seed of starting matrices and of the order of windows.
    pub seed: u64,
    /// Whether the Hessians of the sites are collected, for GPTQ.
    pub hessians: bool,
    /// Shares of the machine that learn blocks side by side, where blocks do not depend on each
    /// other; with none, `engine` learns them one after the other. Memory grows with them.
    pub workers: &'a [Worker],
    /// Where finished blocks are kept; nothing keeps none.
    pub store: Option<&'a Store>,
}

/// How far a calibration has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationProgress {
    /// The block under way, from 0; `n_blocks` when all learn together.
    pub block: usize,
    /// Blocks in all.
    pub n_blocks: usize,
    /// Steps of the block that are done.
    pub step: usize,
    /// Steps of a block.
    pub n_steps: usize,
    /// The loss of the last step.
    pub loss: f32,
}

/// A block under calibration.
pub(super) struct Pupil {
    pub student: Student,
    pub learner: Learner,
}

/// How a calibration went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The loss of every step of every block: the relative squared error of its output.
    pub losses: Vec<Vec<f32>>,
    /// The KL divergence per token of every step of the last stage.
    pub divergences: Vec<f32>,
}

/// Where progress goes; blocks that learn side by side report in turns.
pub(super) type Report<'a> = dyn FnMut(CalibrationProgress) + Send + 'a;

/// Blocks that have learned.
pub(super) struct Learned {
    pub pupils: Vec<Pupil>,
    /// The losses of each.
    pub losses: Vec<Vec<f32>>,
    /// What the last block gives in full precision.
    pub last: States,
}

impl Calibration<'_> {
    /// Learns all blocks and calls `finished` for each, in order, with its number, what was
    /// learned, and the Hessians of its sites if they were asked for: as soon as the block has learned
    /// where blocks learn in order and no stage comes after, so that no more is held than the block
    /// that learns, the one before and the one after; else in the end. It is called by another
    /// thread, while the next block learns.
    ///
    /// # Errors
    /// If the text is too short, a block can't be cut out, differentiated or run, or the store
    /// can't be used.
    pub fn run(
        &self,
        progress: &mut Report<'_>,
        finished: &mut Finished<'_>,
    ) -> Result<Outcome, CalibrationError> {
        let (n_blocks, start) = (self.layout.blocks.len(), Instant::now());
        let cut = |i| cut_block(self.model, self.layout, i);
        let blocks: Vec<BlockModel> = (0..n_blocks).map(cut).collect::<Result<_, _>>()?;
        let (windows, batch) = (self.windows()?, self.recipe.blocks.batch);
        let captured = capture(self.engine, self.model, &blocks, &windows, batch)?;
        tracing::info!("{} windows up to the blocks: {:.2?}", windows.len(), start.elapsed());
        beside(finished, |hand| {
            let (states, outside) = (captured.states.clone(), &captured.outside);
            let mut finish = Finish::new(self, states, outside, hand);
            let (pupils, outcome) = self.learn_all(&blocks, &captured, &mut finish, progress)?;
            tracing::info!("all learned: {:.2?}", start.elapsed());
            let mut pupils = pupils.into_iter().enumerate();
            pupils.try_for_each(|(index, pupil)| finish.block(index, pupil))?;
            Ok(outcome)
        })
    }

    /// Learns all blocks; returns those that were not handed to `finish` yet.
    fn learn_all(
        &self,
        blocks: &[BlockModel],
        captured: &Captured,
        finish: &mut Finish<'_>,
        progress: &mut Report<'_>,
    ) -> Result<(Vec<Pupil>, Outcome), CalibrationError> {
        let start = Instant::now();
        let side_by_side =
            self.recipe.blocks.input == BlockInput::FullPrecision && !self.workers.is_empty();
        let last_stage = self.recipe.end_to_end.steps > 0;
        let mut pupils = Vec::new();
        let (losses, last) = if side_by_side {
            let Learned { pupils: learned, losses, last } =
                self.learn_side_by_side(blocks, captured, progress)?;
            pupils = learned;
            (losses, last)
        } else {
            self.learn_in_order(blocks, captured, progress, &mut |index, pupil| {
                match last_stage {
                    true => pupils.push(pupil),
                    false => finish.block(index, pupil)?,
                }
                Ok(())
            })?
        };
        tracing::info!("all blocks learned: {:.2?}", start.elapsed());
        let corpus =
            Corpus { first: &captured.states, last: &last, seed: self.seed.wrapping_add(9000) };
        let divergences = self.learn_together(&mut pupils, &corpus, &captured.outside, progress)?;
        Ok((pupils, Outcome { losses, divergences }))
    }

    /// The windows of the text, as many as the recipe says and the text has, a whole number of
    /// batches.
    fn windows(&self) -> Result<Vec<&[u32]>, CalibrationError> {
        let recipe = &self.recipe.blocks;
        let mut windows: Vec<&[u32]> =
            self.ids.chunks_exact(recipe.length).take(recipe.windows).collect();
        windows.truncate(windows.len() / recipe.batch * recipe.batch);
        let batch = self.recipe.largest_batch();
        if windows.len() < batch {
            let (tokens, length) = (self.ids.len(), recipe.length);
            return Err(CalibrationError::TooShort { tokens, batch, length });
        }
        Ok(windows)
    }
}
