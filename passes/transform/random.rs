//! Random matrices, the same for the same seed on every machine.

use std::f64::consts::TAU;

use super::Matrix;

/// A generator of random numbers and matrices.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator; equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Uniform bits (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
    /// generators", 2014).
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    /// 1 or −1.
    pub fn sign(&mut self) -> f64 {
        if self.bits() >> 63 == 0 { 1.0 } else { -1.0 }
    }

    /// A random orthogonal matrix, uniformly distributed: the product of Householder reflections
    /// of Gaussian vectors of lengths 2 to n and of random signs (Stewart, "The efficient
    /// generation of random orthogonal matrices", 1980).
    pub fn orthogonal(&mut self, n: usize) -> Matrix {
        let mut matrix = Matrix::identity(n);
        for len in 2..=n {
            let axis = self.householder_axis(len);
            reflect_rows(&mut matrix, &axis);
        }
        for i in 0..n {
            let sign = self.sign();
            matrix.row_mut(i).iter_mut().for_each(|x| *x *= sign);
        }
        matrix
    }

    /// Unit vector of the reflection that takes a Gaussian vector of `len` to its first axis.
    fn householder_axis(&mut self, len: usize) -> Vec<f64> {
        let mut axis: Vec<f64> = (0..len).map(|_| self.normal()).collect();
        axis[0] += norm(&axis).copysign(axis[0]);
        let length = norm(&axis);
        if length > 0.0 {
            axis.iter_mut().for_each(|x| *x /= length);
        }
        axis
    }

    /// A random invertible matrix U · diag(s) · V whose condition number is at most `condition`.
    pub fn invertible(&mut self, n: usize, condition: f64) -> Matrix {
        let (left, mut right) = (self.orthogonal(n), self.orthogonal(n));
        for i in 0..n {
            let stretch = condition.powf(self.uniform() - 0.5);
            right.row_mut(i).iter_mut().for_each(|x| *x *= stretch);
        }
        left.times(&right)
    }
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Reflects the last rows of a matrix, as many as `axis` is long: M ← (I − 2aaᵀ) · M.
fn reflect_rows(matrix: &mut Matrix, axis: &[f64]) {
    let first = matrix.n_rows() - axis.len();
    let mut projection = vec![0.0; matrix.n_columns()];
    for (i, a) in axis.iter().enumerate() {
        projection.iter_mut().zip(matrix.row(first + i)).for_each(|(p, x)| *p += a * x);
    }
    for (i, a) in axis.iter().enumerate() {
        let row = matrix.row_mut(first + i).iter_mut();
        row.zip(&projection).for_each(|(x, p)| *x -= 2.0 * a * p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_matrices_have_orthonormal_rows() {
        for n in [1, 2, 9, 64] {
            let matrix = Random::new(7).orthogonal(n);
            let gram = matrix.times(&matrix.transposed());
            assert!(gram.max_difference(&Matrix::identity(n)) < 1e-12, "{n}");
        }
    }

    #[test]
    fn the_seed_decides() {
        let matrix = |seed| Random::new(seed).orthogonal(5);
        assert_eq!(matrix(1), matrix(1));
        assert!(matrix(1).max_difference(&matrix(2)) > 0.1);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut random = Random::new(3);
        let samples: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        let variance = samples.iter().map(|x| x * x).sum::<f64>() / samples.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
