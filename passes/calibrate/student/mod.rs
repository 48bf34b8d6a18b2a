//! The student: a block with transforms, clipping and rounding put in as a graph that can be
//! differentiated, everything that is learned being an input of it.
//!
//! What is built here for a block of the cut model is what [`crate::transform::insert_group`] and
//! [`crate::quantize::quantize_with`] will write for it once the parameters are known, with
//! `FakeQuantize…` operators in the place of integer ones.

mod attention;
mod linear;
mod options;
mod shift;
mod site;
mod slots;

use std::collections::BTreeMap;

use planish_ir::{Graph, Model, ValueId};

use super::builder::Builder;
use super::{BlockModel, CalibrateError, GradualMask, Parameter};
use crate::sites::{AttentionId, LinearId, SiteId};
use linear::Fold;

pub use options::{Initial, Online, StudentOptions};
pub use slots::{AttentionSlots, ClipSlots, LinearSlots, MatrixSlots, SiteSlots};

/// A block with parameters.
#[derive(Clone, Debug)]
pub struct Student {
    /// Inputs: those of the block, one for each of `masks`, then one for each of `parameters`;
    /// output: that of the block.
    pub model: Model,
    /// The block's input `[batch, sequence, hidden]`.
    pub input: ValueId,
    /// The block's output, of the same shape.
    pub output: ValueId,
    /// What is learned, in the order of the graph inputs.
    pub parameters: Vec<Parameter>,
    /// The masks of matrices, graph inputs before the parameters.
    pub masks: Vec<GradualMask>,
    /// The stability factor of the masks.
    pub gradual: Option<f32>,
    /// The parameters of each site of the block.
    pub sites: BTreeMap<SiteId, SiteSlots>,
    /// The weight of each layer after its transforms, before it is rounded, `[K, N]`.
    pub folded: BTreeMap<LinearId, ValueId>,
    /// What the layers of each site read, transformed and rounded, `[batch, sequence, channels]`.
    pub readings: BTreeMap<SiteId, ValueId>,
    /// The parameters of each linear layer of the block.
    pub linears: BTreeMap<LinearId, LinearSlots>,
    /// The parameters of each attention of the block.
    pub attentions: BTreeMap<AttentionId, AttentionSlots>,
}

impl Student {
    /// Puts the parameters of `options` into a block.
    ///
    /// # Errors
    /// If a weight can't be read, or the group size does not divide a layer's channels.
    pub fn new(
        block: &BlockModel,
        options: &StudentOptions,
        initial: &mut Initial,
    ) -> Result<Self, CalibrateError> {
        let mut model = block.model.clone();
        for domain in [planish_kernels::DOMAIN, planish_kernels::MICROSOFT] {
            model.set_opset(domain, 1);
        }
        let mut writer = Writer {
            block,
            options,
            initial,
            builder: Builder::new(&mut model.graph),
            folds: BTreeMap::new(),
            sites: BTreeMap::new(),
            readings: BTreeMap::new(),
            folded: BTreeMap::new(),
            linears: BTreeMap::new(),
            attentions: BTreeMap::new(),
        };
        writer.write()?;
        let Writer { builder, sites, readings, folded, linears, attentions, .. } = writer;
        let (parameters, masks) = builder.finish();
        let (input, output) = (block.input, block.output);
        model.graph.remove_dead();
        crate::lower::fuse_swiglu(&mut model)?;
        let gradual = options.gradual;
        Ok(Self {
            model,
            input,
            output,
            parameters,
            masks,
            gradual,
            sites,
            folded,
            readings,
            linears,
            attentions,
        })
    }
}

/// Rewrites a block's graph.
struct Writer<'a> {
    block: &'a BlockModel,
    options: &'a StudentOptions,
    initial: &'a mut Initial,
    builder: Builder<'a>,
    /// What the transforms change in each layer.
    folds: BTreeMap<LinearId, Fold>,
    sites: BTreeMap<SiteId, SiteSlots>,
    readings: BTreeMap<SiteId, ValueId>,
    folded: BTreeMap<LinearId, ValueId>,
    linears: BTreeMap<LinearId, LinearSlots>,
    attentions: BTreeMap<AttentionId, AttentionSlots>,
}

impl Writer<'_> {
    fn write(&mut self) -> Result<(), CalibrateError> {
        let block = self.block;
        // Shifts before scales, as the scale divides what is left. Scales before matrices, as the
        // output columns of a layer are divided before its heads are multiplied.
        for id in &block.group.sites {
            self.add_shift(*id);
            self.add_scale(*id)?;
        }
        for id in &block.group.sites {
            self.add_matrix(*id)?;
        }
        for id in &block.group.attentions {
            self.add_heads(*id)?;
        }
        for id in &block.group.sites {
            for linear in &block.layout.site(*id).linears {
                self.write_linear(*linear)?;
            }
        }
        for id in &block.group.sites {
            self.write_site(*id);
        }
        for id in &block.group.attentions {
            self.write_cache(*id);
        }
        Ok(())
    }

    fn graph(&self) -> &Graph {
        self.builder.graph
    }
}
