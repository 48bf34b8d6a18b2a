//! Scales, transforms and quantisers of a site's activation.

use planish_ir::{Node, Tensor, ValueId};
use planish_kernels::DOMAIN;

use super::linear::{ColumnFold, RowFold};
use super::options::{CLIP_START, Online};
use super::{ClipSlots, MatrixSlots, Writer};
use crate::calibrate::{CalibrateError, ParameterId, ParameterKind};
use crate::parallel::{for_each_chunk, for_each_item};
use crate::sites::{Site, SiteId, SiteRole};
use crate::transform::Matrix;

/// Floor of the ranges that scales start from, so that a dead channel gives no infinite scale.
const MIN_RANGE: f64 = 1e-5;

impl Writer<'_> {
    fn site(&self, id: SiteId) -> &Site {
        self.block.layout.site(id)
    }

    /// Whether anything at the sites is rounded.
    pub(super) fn rounds_sites(&self) -> bool {
        self.options.bits.quantizes_weights() || self.options.bits.quantizes_activations()
    }

    /// The scale c: the layer before is divided by it, the rows of the site's layers multiplied.
    pub(super) fn add_scale(&mut self, id: SiteId) -> Result<(), CalibrateError> {
        let site = self.site(id).clone();
        if !self.options.scales || !self.rounds_sites() {
            return Ok(());
        }
        let takes_scale = matches!(site.role, SiteRole::Norm { .. } | SiteRole::GatedMlp { .. });
        if !takes_scale {
            return Ok(());
        }
        let start = self.scale_start(id)?;
        let start = Tensor::from_vec(&[site.channels], start);
        let (slot, log) = self.builder.parameter("scale_log", ParameterKind::Scale, start);
        self.sites.entry(id).or_default().scale = Some(slot);
        let scale = self.builder.op("Exp", &[log]);
        match &site.role {
            SiteRole::Norm { node } => {
                let n_inputs = self.graph().node(*node).inputs.len();
                for index in 1..n_inputs {
                    let Some(value) = self.graph().node(*node).input(index) else { continue };
                    let divided = self.builder.op("Div", &[value, scale]);
                    self.builder.graph.set_input(*node, index, Some(divided));
                }
            }
            SiteRole::GatedMlp { up } => {
                let fold = self.folds.entry(up.linear).or_default();
                fold.columns.push((up.columns.clone(), ColumnFold::Divide(scale)));
            }
            SiteRole::AttentionOutput { .. } | SiteRole::Other => {}
        }
        for linear in &site.linears {
            self.folds.entry(*linear).or_default().row_scale = Some(scale);
        }
        Ok(())
    }

    /// ln c of FlatQuant's start, c_j = max|X_j|^α / max|W_j|^(1−α) with the geometric mean 1, X
    /// being what the shift leaves; zeros where the activations were not measured.
    fn scale_start(&self, id: SiteId) -> Result<Vec<f32>, CalibrateError> {
        let site = self.site(id);
        let Some(ranges) = self.initial.statistics.ranges.get(&id) else {
            return Ok(vec![0.0; site.channels]);
        };
        let shift = self.shift_at_start(id);
        let reaches = ranges.iter().zip(&shift).map(|(range, shift)| range.reach(*shift));
        let mut weights = vec![0.0f64; site.channels];
        for linear in &site.linears {
            let linear = self.block.layout.linear(*linear);
            let weight = self.weight_of(linear)?;
            for (range, row) in weights.iter_mut().zip(weight.chunks(linear.out_features)) {
                *range = row.iter().fold(*range, |max, x| max.max(f64::from(x.abs())));
            }
        }
        let alpha = self.initial.alpha;
        let logs: Vec<f64> = reaches
            .zip(&weights)
            .map(|(x, w)| {
                let (x, w) = (f64::from(x).max(MIN_RANGE), w.max(MIN_RANGE));
                alpha * x.ln() - (1.0 - alpha) * w.ln()
            })
            .collect();
        let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
        Ok(logs.iter().map(|log| (log - mean) as f32).collect())
    }

    /// The site's matrix, and what it changes in the layers around it.
    pub(super) fn add_matrix(&mut self, id: SiteId) -> Result<(), CalibrateError> {
        let site = self.site(id).clone();
        let on_cache = self.options.bits.quantizes_kv();
        let Some(sizes) = self.options.factors(&self.block.layout, &site) else { return Ok(()) };
        if let SiteRole::AttentionOutput { attention, value } = &site.role {
            let attention = self.block.layout.attention(*attention).clone();
            let at_site = self.rounds_sites();
            let [first, second] = self.moments_of(id, sizes)?;
            let online = self.options.online == Online::Kronecker;
            let takes_across = at_site && online && attention.q_heads > 1;
            let across =
                takes_across.then(|| self.add_matrix_of("p_o", attention.q_heads, first.as_ref()));
            let takes_within = at_site || on_cache;
            let within = takes_within
                .then(|| self.add_matrix_of("p_v", attention.v_head_size, second.as_ref()));
            if let Some((_, matrix)) = within {
                let fold = self.folds.entry(value.linear).or_default();
                let size = attention.v_head_size;
                fold.columns.push((value.columns.clone(), ColumnFold::Heads { matrix, size }));
            }
            let slots = |p: Option<(_, ValueId)>| p.map(|(slot, _)| slot);
            self.sites.entry(id).or_default().matrix =
                MatrixSlots::Heads { across: slots(across), within: slots(within) };
            self.fold_rows(&site, across.map(|p| p.1), within.map(|p| p.1), sizes);
        } else if self.rounds_sites() {
            let [first, second] = self.moments_of(id, sizes)?;
            let left = (self.options.online == Online::Kronecker)
                .then(|| self.add_matrix_of("p_1", sizes.0, first.as_ref()));
            let right = self.add_matrix_of("p_2", sizes.1, second.as_ref());
            self.sites.entry(id).or_default().matrix =
                MatrixSlots::Kronecker { left: left.map(|p| p.0), right: right.0 };
            self.fold_rows(&site, left.map(|p| p.1), Some(right.1), sizes);
        }
        Ok(())
    }

    /// The second moments that each factor of a site's transform stands between, of the
    /// activations after the scale and of the layers' weights; nothing where they are not known.
    fn moments_of(
        &self,
        id: SiteId,
        (n1, n2): (usize, usize),
    ) -> Result<[Option<(Matrix, Matrix)>; 2], CalibrateError> {
        let site = self.site(id);
        let Some(moments) = self.initial.statistics.moments.get(&id) else {
            return Ok([None, None]);
        };
        let scale = self.scale_at_start(id)?;
        let (a1, a2) = moments.traces(&scale);
        let (mut b1, mut b2) = (vec![0.0; n1 * n1], vec![0.0; n2 * n2]);
        for linear in &site.linears {
            let linear = self.block.layout.linear(*linear);
            let weight = self.weight_of(linear)?;
            add_factor_moments(&weight, &scale, (n1, n2), &mut b1, &mut b2);
        }
        let b1 = Matrix::from_fn(n1, n1, |i, j| b1[i * n1 + j]);
        let b2 = Matrix::from_fn(n2, n2, |i, j| b2[i * n2 + j]);
        Ok([Some((a1, b1)), Some((a2, b2))])
    }

    /// c where learning starts; ones where there is no scale.
    fn scale_at_start(&self, id: SiteId) -> Result<Vec<f64>, CalibrateError> {
        let has_scale = self.sites.get(&id).is_some_and(|slots| slots.scale.is_some());
        if !has_scale {
            return Ok(vec![1.0; self.site(id).channels]);
        }
        Ok(self.scale_start(id)?.iter().map(|log| f64::from(*log).exp()).collect())
    }

    fn add_matrix_of(
        &mut self,
        hint: &str,
        n: usize,
        moments: Option<&(Matrix, Matrix)>,
    ) -> (ParameterId, ValueId) {
        let start = self.initial.matrix(n, self.options, moments).to_tensor();
        let (slot, _) = self.builder.parameter(hint, ParameterKind::Matrix, start);
        (slot, self.matrix_of(slot))
    }

    /// The value of a matrix: the parameter, masked if the options say so.
    pub(super) fn matrix_of(&mut self, slot: ParameterId) -> ValueId {
        let raw = self.builder.input_of(slot);
        if self.options.gradual.is_none() {
            return raw;
        }
        let n = self.builder.parameters[slot.0].initial.shape()[0];
        let mask = self.builder.mask(n);
        self.builder.op("Mul", &[raw, mask])
    }

    fn fold_rows(
        &mut self,
        site: &Site,
        left: Option<ValueId>,
        right: Option<ValueId>,
        sizes: (usize, usize),
    ) {
        if left.is_none() && right.is_none() {
            return;
        }
        let left = left.map(|p| self.builder.inverse(p));
        let right = right.map(|p| self.builder.inverse(p));
        for linear in &site.linears {
            self.folds.entry(*linear).or_default().rows = Some(RowFold { left, right, sizes });
        }
    }

    /// Transforms and rounds what the site's layers read.
    pub(super) fn write_site(&mut self, id: SiteId) {
        let site = self.site(id).clone();
        let slots = self.sites.get(&id).copied().unwrap_or_default();
        let online = match slots.matrix {
            MatrixSlots::Identity => None,
            MatrixSlots::Kronecker { left: Some(left), right } => {
                Some(("Transform", vec![left, right]))
            }
            MatrixSlots::Kronecker { left: None, right } => Some(("TransformHeads", vec![right])),
            MatrixSlots::Heads { across, .. } => across.map(|p| ("TransformLeft", vec![p])),
        };
        let mut x = site.input;
        if let Some((op_type, matrices)) = online {
            let mut inputs = vec![Some(x)];
            inputs.extend(matrices.iter().map(|p| Some(self.matrix_of(*p))));
            x = self.builder.node("transformed", Node::new(op_type, inputs).with_domain(DOMAIN));
        }
        if self.options.bits.quantizes_activations() {
            let (clip, inputs) = self.add_clip("activation_clip", &[1]);
            self.sites.entry(id).or_default().clip = Some(clip);
            let node =
                Node::new("FakeQuantizeRows", vec![Some(x), Some(inputs[0]), Some(inputs[1])])
                    .with_domain(DOMAIN)
                    .with("bits", i64::from(self.options.bits.activations));
            x = self.builder.node("rounded", node);
        }
        self.readings.insert(id, x);
        for linear in &site.linears {
            let node = self.block.layout.linear(*linear).node;
            self.builder.graph.set_input(node, 0, Some(x));
        }
    }

    /// Two clipping parameters and their ratios: max, min.
    pub(super) fn add_clip(&mut self, hint: &str, shape: &[usize]) -> (ClipSlots, [ValueId; 2]) {
        let n = shape.iter().product();
        let mut add = |suffix: &str| {
            let start = Tensor::from_vec(shape, vec![CLIP_START; n]);
            let name = format!("{hint}_{suffix}");
            let (slot, raw) = self.builder.parameter(&name, ParameterKind::Clip, start);
            (slot, self.builder.op("Sigmoid", &[raw]))
        };
        let (max, min) = (add("max"), add("min"));
        (ClipSlots { max: max.0, min: min.0 }, [max.1, min.1])
    }
}

/// Adds what the rows of a weight, as `[n₁, n₂]` and multiplied by the scale, contribute to the
/// second moments of both factors.
fn add_factor_moments(
    weight: &[f32],
    scale: &[f64],
    (n1, n2): (usize, usize),
    first: &mut [f64],
    second: &mut [f64],
) {
    let n_columns = (weight.len() / (n1 * n2).max(1)).max(1);
    let mut scaled = weight.to_vec();
    for_each_chunk(&mut scaled, n_columns, weight.len(), |i, row| {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * scale[i]) as f32);
    });
    let row = |i: usize, j: usize| &scaled[(i * n2 + j) * n_columns..][..n_columns];
    add_products(first, n1, n2 * n_columns, |i, k| {
        (0..n2).map(|j| dot(row(i, j), row(k, j))).sum()
    });
    add_products(second, n2, n1 * n_columns, |j, m| {
        (0..n1).map(|i| dot(row(i, j), row(i, m))).sum()
    });
}

/// Adds a symmetric matrix of `n` rows, of which `product` gives an element by about `cost` operations.
fn add_products(
    sums: &mut [f64],
    n: usize,
    cost: usize,
    product: impl Fn(usize, usize) -> f64 + Sync,
) {
    let mut rows: Vec<Vec<f64>> = vec![Vec::new(); n];
    for_each_item(&mut rows, n * n / 2 * cost, |i, row| {
        *row = (0..=i).map(|k| product(i, k)).collect();
    });
    for (i, row) in rows.iter().enumerate() {
        for (k, x) in row.iter().enumerate() {
            sums[i * n + k] += x;
            if k < i {
                sums[k * n + i] += x;
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    // In sixteen sums, so that the loop is vectorised.
    let mut sums = [0.0f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().map(|x| f64::from(*x)).sum()
}
