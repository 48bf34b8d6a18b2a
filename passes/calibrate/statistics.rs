//! What the sites and attentions of a block read in full precision.

use std::collections::BTreeMap;

use planish_ir::{Dim, Model, Node, Tensor, TensorError, ValueId, ValueType};

use super::factor_moments::FactorMoments;
use super::{BlockModel, StudentOptions};
use crate::quantize::{Hessian, add_gram};
use crate::sites::{AttentionId, SiteId};
use crate::transform::Matrix;

/// Ranges and second moments of a block's activations.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// The range of every channel of each site.
    pub ranges: BTreeMap<SiteId, Vec<ChannelRange>>,
    /// The moments of each site whose transform starts from them.
    pub moments: BTreeMap<SiteId, FactorMoments>,
    /// Σ xᵀx of queries and keys over all heads, `[head_size, head_size]` each, after rotary
    /// embedding.
    pub heads: BTreeMap<AttentionId, (Hessian, Hessian)>,
}

/// The smallest and the largest value that a channel takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelRange {
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

impl ChannelRange {
    /// A range that holds nothing yet.
    const EMPTY: Self = Self { min: f32::INFINITY, max: f32::NEG_INFINITY };

    /// The middle of it.
    pub fn centre(&self) -> f32 {
        0.5 * self.min + 0.5 * self.max
    }

    /// The largest absolute value when `shift` is subtracted from all of it.
    pub fn reach(&self, shift: f32) -> f32 {
        (self.min - shift).abs().max((self.max - shift).abs())
    }
}

/// A block that gives what [`Statistics`] are made of.
#[derive(Clone, Debug)]
pub struct ObservedBlock {
    /// Outputs: the largest value of every channel, the largest of it negated, and the moments of
    /// each site, then the moments of queries and of keys of each attention.
    pub model: Model,
    /// Each site with the sizes of its factors, where their moments are taken.
    sites: Vec<(SiteId, Option<(usize, usize)>)>,
    attentions: Vec<AttentionId>,
}

impl ObservedBlock {
    /// Adds the outputs to a block: what a student of these options starts from.
    pub fn new(block: &BlockModel, options: &StudentOptions) -> Self {
        let mut model = block.model.clone();
        let mut outputs = Vec::new();
        // Under a gradual mask matrices start as the identity, whatever the moments are.
        let takes_moments = options.gradual.is_none();
        let factors = |id: &SiteId| options.factors(&block.layout, block.layout.site(*id));
        let sites: Vec<_> = (block.group.sites.iter())
            .map(|id| (*id, factors(id).filter(|_| takes_moments)))
            .collect();
        let attentions = block.group.attentions.clone();
        for (id, factors) in &sites {
            let site = block.layout.site(*id);
            let negated = Node::new("Neg", vec![Some(site.input)]);
            let negated = model.graph.add_op("planish.negated", negated);
            for value in [site.input, negated] {
                outputs.push(channel_max(&mut model, value, site.channels));
            }
            if let Some(sizes) = factors {
                outputs.extend(FactorMoments::write(&mut model.graph, site.input, *sizes));
            }
        }
        for id in &attentions {
            let attention = block.layout.attention(*id);
            for index in [0, 1] {
                let value = model.graph.node(attention.node).input(index);
                outputs.extend(value.map(|value| gram(&mut model, value, attention.head_size)));
            }
        }
        model.graph.outputs = outputs;
        model.graph.remove_dead();
        Self { model, sites, attentions }
    }

    /// Takes in the outputs of one run.
    ///
    /// # Errors
    /// If one is no tensor of floats.
    pub fn update(
        &self,
        statistics: &mut Statistics,
        outputs: &[Tensor],
    ) -> Result<(), TensorError> {
        let mut rest = outputs;
        for (id, factors) in &self.sites {
            let (of_site, others) = rest.split_at(if factors.is_some() { 4 } else { 2 });
            rest = others;
            let (largest, negated) = (of_site[0].as_f32()?, of_site[1].as_f32()?);
            let n = largest.len();
            let ranges = statistics.ranges.entry(*id);
            let ranges = ranges.or_insert_with(|| vec![ChannelRange::EMPTY; n]);
            for (range, (max, negated)) in ranges.iter_mut().zip(largest.iter().zip(&*negated)) {
                (range.min, range.max) = (range.min.min(-negated), range.max.max(*max));
            }
            if let Some(sizes) = *factors {
                let moments = statistics.moments.entry(*id);
                moments.or_insert_with(|| FactorMoments::new(sizes)).add(&of_site[2..])?;
            }
        }
        for (id, pair) in self.attentions.iter().zip(rest.chunks_exact(2)) {
            let n = pair[0].shape().last().copied().unwrap_or(1);
            let new = || (Hessian::new(n), Hessian::new(n));
            let (queries, keys) = statistics.heads.entry(*id).or_insert_with(new);
            queries.add(&pair[0])?;
            keys.add(&pair[1])?;
        }
        Ok(())
    }
}

/// The largest value of every channel over batch and sequence, `[channels]`.
fn channel_max(model: &mut Model, value: ValueId, channels: usize) -> ValueId {
    let graph = &mut model.graph;
    let rows = Tensor::from_vec(&[2], vec![-1i64, channels as i64]);
    let rows = graph.add_constant("planish.rows", rows);
    let axis = graph.add_constant("planish.row_axis", Tensor::from_vec(&[1], vec![0i64]));
    let rows = graph.add_op("planish.rows", Node::new("Reshape", vec![Some(value), Some(rows)]));
    let node = Node::new("ReduceMax", vec![Some(rows), Some(axis)]).with("keepdims", 0i64);
    let largest = graph.add_op("planish.channel_max", node);
    graph.value_mut(largest).ty =
        ValueType::tensor(planish_ir::DataType::F32, vec![Dim::from(channels)]);
    largest
}

fn gram(model: &mut Model, value: ValueId, channels: usize) -> ValueId {
    let gram = add_gram(&mut model.graph, value, channels, "planish.moments");
    let n = Dim::from(channels);
    model.graph.value_mut(gram).ty =
        ValueType::tensor(planish_ir::DataType::F32, vec![n.clone(), n]);
    gram
}

/// Moments as a matrix.
pub(super) fn matrix_of(moments: &Hessian) -> Matrix {
    let n = moments.n_channels();
    Matrix::from_fn(n, n, |i, j| moments.elements()[i * n + j])
}
