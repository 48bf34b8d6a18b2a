//! Collecting the ranges of activations.

use planish_ir::{Model, Node, Tensor, TensorError};
use planish_kernels::infer::{InferError, infer};

use super::{Observed, add_output};
use crate::sites::{Layout, SiteId};

/// Largest absolute value of every channel of every site's activation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationStats {
    sites: Vec<Option<Vec<f32>>>,
}

impl CalibrationStats {
    /// The ranges of a site's channels, if any were collected.
    pub fn channel_max(&self, site: SiteId) -> Option<&[f32]> {
        self.sites.get(site.0)?.as_deref()
    }

    /// Takes in what one run of [`Observed::model`] gave for a site, f32 `[channels]`.
    ///
    /// # Errors
    /// If it is no tensor of floats.
    pub fn update(&mut self, site: SiteId, observed: &Tensor) -> Result<(), TensorError> {
        let values = observed.to_f32_vec()?;
        if self.sites.len() <= site.0 {
            self.sites.resize(site.0 + 1, None);
        }
        match &mut self.sites[site.0] {
            Some(known) => known.iter_mut().zip(values).for_each(|(max, x)| *max = max.max(x)),
            empty => *empty = Some(values),
        }
        Ok(())
    }
}

/// A copy of the model (weights are shared) with one more output for each site: the largest
/// absolute value of every channel over batch and sequence, f32 `[channels]`. Padded positions
/// count like the others. Sites that are not in the model, a piece of the layout's, are left out.
///
/// # Errors
/// If the shapes in the graph contradict each other.
pub fn observe(model: &Model, layout: &Layout) -> Result<Observed, InferError> {
    let facts = infer(model)?;
    let mut model = model.clone();
    let graph = &mut model.graph;
    let mut outputs = Vec::new();
    let sites: Vec<SiteId> =
        layout.site_ids().filter(|id| graph.contains_value(layout.site(*id).input)).collect();
    for id in sites {
        let site = layout.site(id);
        let n_leading = facts.get(site.input).rank().unwrap_or(3).saturating_sub(1) as i64;
        let axes = Tensor::from_vec(&[n_leading as usize], (0..n_leading).collect());
        let name = format!("planish.site_{}.channel_max", id.0);
        let axes = graph.add_constant(&format!("{name}.axes"), axes);
        let size = graph.add_op(&format!("{name}.abs"), Node::new("Abs", vec![Some(site.input)]));
        let node = Node::new("ReduceMax", vec![Some(size), Some(axes)]).with("keepdims", 0i64);
        let largest = graph.add_op(&name, node);
        outputs.push((id, add_output(graph, largest, &[site.channels])));
    }
    Ok(Observed { model, outputs })
}
