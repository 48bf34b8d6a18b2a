//! What the layers of a site read, as GPTQ needs it: H = Σ x · xᵀ.

use planish_ir::{Tensor, TensorError};

use crate::sites::SiteId;

/// H = Σ x · xᵀ over the rows x `[K]` of activations, f64 `[K, K]`. Half the second derivative of
/// the squared error of a layer's output with respect to each of its columns of weights. Its scale
/// matters to nobody here.
#[derive(Clone, Debug, PartialEq)]
pub struct Hessian {
    n: usize,
    sums: Vec<f64>,
}

impl Hessian {
    /// Zeros, for K = `n` channels.
    pub fn new(n: usize) -> Self {
        Self { n, sums: vec![0.0; n * n] }
    }

    /// Of rows of `n` channels each.
    pub fn of_rows(rows: &[f32], n: usize) -> Self {
        let mut hessian = Self::new(n);
        for row in rows.chunks_exact(n.max(1)) {
            for (sums, a) in hessian.sums.chunks_exact_mut(n).zip(row) {
                let a = f64::from(*a);
                sums.iter_mut().zip(row).for_each(|(sum, b)| *sum += a * f64::from(*b));
            }
        }
        hessian
    }

    /// Adds Xᵀ · X of more rows.
    ///
    /// # Errors
    /// If it is no f32 tensor `[K, K]`.
    pub fn add(&mut self, gram: &Tensor) -> Result<(), TensorError> {
        let values = gram.as_slice::<f32>()?;
        if gram.shape() != [self.n, self.n] {
            let (dtype, shape, actual) = (gram.dtype(), vec![self.n, self.n], gram.bytes().len());
            let expected = 4 * self.n * self.n;
            return Err(TensorError::Size { dtype, shape, expected, actual });
        }
        self.sums.iter_mut().zip(values.iter()).for_each(|(sum, x)| *sum += f64::from(*x));
        Ok(())
    }

    /// K.
    pub fn n_channels(&self) -> usize {
        self.n
    }

    /// All elements, row by row.
    pub fn elements(&self) -> &[f64] {
        &self.sums
    }

    /// All elements, to be changed.
    #[cfg(test)]
    pub(super) fn sums_mut(&mut self) -> &mut [f64] {
        &mut self.sums
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.sums[i * self.n..][..self.n]
    }

    /// Σ x_k² for every channel k.
    pub fn diagonal(&self) -> Vec<f64> {
        (0..self.n).map(|i| self.sums[i * self.n + i]).collect()
    }

    /// The mean of the diagonal.
    pub fn mean_diagonal(&self) -> f64 {
        self.diagonal().iter().sum::<f64>() / self.n.max(1) as f64
    }

    /// The diagonal over its mean: what an error of each channel's weights counts.
    pub fn importance(&self) -> Vec<f32> {
        let mean = self.mean_diagonal();
        let of = |x: f64| if mean > 0.0 { (x / mean) as f32 } else { 1.0 };
        self.diagonal().into_iter().map(of).collect()
    }
}

/// The Hessians of some sites.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hessians {
    sites: Vec<Option<Hessian>>,
}

impl Hessians {
    /// The Hessian of a site, if it was collected.
    pub fn site(&self, id: SiteId) -> Option<&Hessian> {
        self.sites.get(id.0)?.as_ref()
    }

    /// Sets the Hessian of a site.
    pub fn insert(&mut self, id: SiteId, hessian: Hessian) {
        if self.sites.len() <= id.0 {
            self.sites.resize(id.0 + 1, None);
        }
        self.sites[id.0] = Some(hessian);
    }

    /// Takes in what one run of [`super::observe_hessians`]'s model gave for a site, f32 `[K, K]`.
    ///
    /// # Errors
    /// If it is no square matrix of floats, or one of another size than before.
    pub fn update(&mut self, id: SiteId, gram: &Tensor) -> Result<(), TensorError> {
        if self.site(id).is_none() {
            self.insert(id, Hessian::new(gram.shape().last().copied().unwrap_or(0)));
        }
        match &mut self.sites[id.0] {
            Some(hessian) => hessian.add(gram),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grams_of_runs_add_up() {
        let mut hessians = Hessians::default();
        for rows in [[1.0f32, 2.0], [3.0, -1.0]] {
            let gram = rows.iter().flat_map(|a| rows.map(|b| a * b)).collect();
            hessians.update(SiteId(3), &Tensor::from_vec(&[2, 2], gram)).unwrap();
        }
        let hessian = hessians.site(SiteId(3)).unwrap();
        assert_eq!(*hessian, Hessian::of_rows(&[1.0, 2.0, 3.0, -1.0], 2));
        assert_eq!(hessian.elements(), [10.0, -1.0, -1.0, 5.0]);
        assert_eq!(hessian.importance(), [10.0 / 7.5, 5.0 / 7.5]);
        assert_eq!(hessians.site(SiteId(1)), None);
    }

    #[test]
    fn grams_of_another_size_are_refused() {
        let mut hessians = Hessians::default();
        hessians.update(SiteId(0), &Tensor::from_vec(&[2, 2], vec![1f32; 4])).unwrap();
        assert!(hessians.update(SiteId(0), &Tensor::from_vec(&[1, 1], vec![1f32])).is_err());
        assert!(hessians.update(SiteId(0), &Tensor::from_vec(&[2, 2], vec![1i64; 4])).is_err());
        assert!(hessians.update(SiteId(1), &Tensor::from_vec(&[2, 3], vec![1f32; 6])).is_err());
    }
}
