//! From the transforms of a group of sites to what changes in each of its layers.

use std::collections::BTreeMap;

use planish_ir::{Graph, GraphError, TensorError};
use planish_kernels::infer::InferError;

use super::fold::{ColumnFold, LinearFold};
use super::{Matrix, SingularMatrix, SiteMatrix, TransformSet, inverse};
use crate::sites::{
    AttentionId, Group, HeadTransform, Layout, LinearId, Part, Site, SiteId, SiteRole,
};

/// Why transforms can't be inserted.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// A transform that is no bijection.
    #[error("the transform at {place} can't be inverted: {error}")]
    Singular {
        /// Where it was to go.
        place: String,
        /// Why.
        error: SingularMatrix,
    },
    /// A transform that does not go where it was put.
    #[error("the transform at {place} does not fit: {reason}")]
    Misfit {
        /// Where it was to go.
        place: String,
        /// Why.
        reason: &'static str,
    },
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A weight that can't be read.
    #[error("weight \"{weight}\": {error}")]
    Weight {
        /// Its name.
        weight: String,
        /// Why.
        error: TensorError,
    },
    /// A change that the graph does not allow.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// What changes in the linear layers of a group.
pub(super) type Folds = BTreeMap<LinearId, LinearFold>;

/// Collects what the transforms of a group change in its linear layers.
pub(super) struct Planner<'a> {
    pub(super) graph: &'a Graph,
    pub(super) layout: &'a Layout,
    pub(super) folds: Folds,
}

impl Planner<'_> {
    /// Plans a whole group.
    pub(super) fn plan_group(
        &mut self,
        set: &TransformSet,
        group: &Group,
    ) -> Result<(), TransformError> {
        for id in &group.sites {
            self.plan_shift(set, *id)?;
            self.plan_scale(set, *id)?;
        }
        for id in &group.sites {
            self.plan_matrix(set, *id)?;
        }
        for id in &group.attentions {
            self.plan_heads(set, *id)?;
        }
        Ok(())
    }

    fn misfit(&self, id: SiteId, reason: &'static str) -> TransformError {
        TransformError::Misfit { place: self.layout.describe_site(self.graph, id), reason }
    }

    fn columns(&mut self, part: &Part, fold: ColumnFold) {
        let folds = self.folds.entry(part.linear).or_default();
        folds.columns.push((part.columns.clone(), fold));
    }

    /// What the layers of the site no longer read goes into their biases.
    fn plan_shift(&mut self, set: &TransformSet, id: SiteId) -> Result<(), TransformError> {
        let Some(shift) = set.site(id).and_then(|transform| transform.shift.as_ref()) else {
            return Ok(());
        };
        let site = self.layout.site(id);
        if !self.layout.takes_shift(self.graph, id) {
            return Err(self.misfit(id, "a shift needs a bias in the norm before and every layer"));
        }
        if shift.len() != site.channels {
            return Err(self.misfit(id, "there are not as many shifts as channels"));
        }
        if !shift.iter().all(|x| x.is_finite()) {
            return Err(self.misfit(id, "a shift is not a finite number"));
        }
        for linear in &site.linears {
            self.folds.entry(*linear).or_default().row_shift = Some(shift.clone());
        }
        Ok(())
    }

    /// The site's rows times the scale, the layer before it divided by it.
    fn plan_scale(&mut self, set: &TransformSet, id: SiteId) -> Result<(), TransformError> {
        let Some(scale) = set.site(id).and_then(|transform| transform.scale.clone()) else {
            return Ok(());
        };
        if !scale.iter().all(|c| c.is_finite() && *c > 0.0) {
            return Err(self.misfit(id, "a scale is not a positive number"));
        }
        let layout = self.layout;
        let site = layout.site(id);
        let rows = self.spread_over_heads(site, &scale);
        if rows.len() != site.channels {
            return Err(self.misfit(id, "there are not as many scales as channels"));
        }
        match &site.role {
            SiteRole::Norm { .. } => {}
            SiteRole::GatedMlp { up: part } | SiteRole::AttentionOutput { value: part, .. } => {
                self.columns(part, ColumnFold::Divide(scale));
            }
            SiteRole::Other => return Err(self.misfit(id, "nothing before it takes a scale")),
        }
        for linear in &site.linears {
            self.folds.entry(*linear).or_default().row_scale = Some(rows.clone());
        }
        Ok(())
    }

    /// The scales of the site's channels: those of a value head hold for its group of query heads.
    fn spread_over_heads(&self, site: &Site, scale: &[f64]) -> Vec<f64> {
        let SiteRole::AttentionOutput { attention, .. } = &site.role else {
            return scale.to_vec();
        };
        let attention = self.layout.attention(*attention);
        let group = attention.q_heads / attention.kv_heads;
        let heads = scale.chunks(attention.v_head_size);
        heads.flat_map(|head| std::iter::repeat_n(head, group).flatten().copied()).collect()
    }

    fn plan_matrix(&mut self, set: &TransformSet, id: SiteId) -> Result<(), TransformError> {
        let layout = self.layout;
        let site = layout.site(id);
        let (left, right) = match set.site(id).map(|transform| &transform.matrix) {
            None | Some(SiteMatrix::Identity) => return Ok(()),
            Some(SiteMatrix::Kronecker { left, right }) => {
                let n1 = site.channels / right.n_rows().max(1);
                (left.clone().unwrap_or_else(|| Matrix::identity(n1)), right.clone())
            }
            Some(SiteMatrix::Heads { across, within }) => {
                let SiteRole::AttentionOutput { attention, value } = &site.role else {
                    return Err(self.misfit(id, "it does not read an attention"));
                };
                let attention = layout.attention(*attention);
                if let Some(within) = within {
                    self.check_size(id, within, attention.v_head_size)?;
                    self.columns(value, ColumnFold::Heads(within.clone().rounded()));
                }
                let or_identity = |matrix: &Option<Matrix>, n| {
                    matrix.clone().unwrap_or_else(|| Matrix::identity(n))
                };
                (or_identity(across, attention.q_heads), or_identity(within, attention.v_head_size))
            }
        };
        if left.n_rows() * right.n_rows() != site.channels {
            return Err(self.misfit(id, "its sizes do not make up the channels"));
        }
        let place = || layout.describe_site(self.graph, id);
        let inverses = (invert_rounded(&left, place)?, invert_rounded(&right, place)?);
        for linear in &site.linears {
            self.folds.entry(*linear).or_default().row_matrices = Some(inverses.clone());
        }
        Ok(())
    }

    fn check_size(&self, id: SiteId, matrix: &Matrix, n: usize) -> Result<(), TransformError> {
        let fits = matrix.n_rows() == n && matrix.n_columns() == n;
        if fits { Ok(()) } else { Err(self.misfit(id, "it is not of the size of a head")) }
    }

    /// Checks P_h, and folds it where nothing stands between the attention and the layers of
    /// queries and keys.
    fn plan_heads(&mut self, set: &TransformSet, id: AttentionId) -> Result<(), TransformError> {
        let layout = self.layout;
        let attention = layout.attention(id);
        let Some(matrix) = set.head(id) else { return Ok(()) };
        let place = || self.graph.node(attention.node).describe();
        let inverse = invert_rounded(matrix, place)?;
        if matrix.n_rows() != attention.head_size {
            let reason = "it is not of the size of a head";
            return Err(TransformError::Misfit { place: place(), reason });
        }
        match &attention.head_transform {
            Ok(HeadTransform::Online) => {}
            Ok(HeadTransform::Folded { query, key }) => {
                self.columns(query, ColumnFold::Heads(inverse.transposed()));
                self.columns(key, ColumnFold::Heads(matrix.clone().rounded()));
            }
            Err(_) => {
                let reason = "its queries or keys can't be transformed";
                return Err(TransformError::Misfit { place: place(), reason });
            }
        }
        Ok(())
    }
}

/// The inverse of what the graph will hold of `matrix`.
pub(super) fn invert_rounded(
    matrix: &Matrix,
    place: impl Fn() -> String,
) -> Result<Matrix, TransformError> {
    if matrix.n_rows() != matrix.n_columns() {
        let reason = "it has more rows than columns, or less";
        return Err(TransformError::Misfit { place: place(), reason });
    }
    inverse(&matrix.clone().rounded())
        .map_err(|error| TransformError::Singular { place: place(), error })
}
