//! AffineQuant's gradual mask (Ma et al., arXiv 2403.12544, section 3.3).

/// The mask of the matrices of one size: 1 on the diagonal, a stability factor on the bands that
/// are open, 0 beyond. It opens band by band while a block learns, so that a matrix starts as a
/// scaling and stays strictly diagonally dominant, hence invertible (Levy and Desplanques).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GradualMask {
    /// The graph input, f32 `[n, n]`.
    pub name: String,
    /// Rows of the matrices.
    pub n: usize,
}

/// What a row may have beside its diagonal, in parts of it.
const DOMINANCE: f32 = 0.95;

impl GradualMask {
    /// The mask `[n, n]` when `progress`, 0 to 1, of the learning is done.
    pub fn at(n: usize, stability: f32, progress: f32) -> Vec<f32> {
        let open = (progress.clamp(0.0, 1.0) * n as f32).round() as usize;
        let element = |i: usize, j: usize| match i.abs_diff(j) {
            0 => 1.0,
            distance if distance <= open => stability,
            _ => 0.0,
        };
        (0..n * n).map(|k| element(k / n, k % n)).collect()
    }

    /// Makes the masked matrix strictly diagonally dominant where it is not, whatever the mask:
    /// what stands beside the diagonal of a row is scaled down, and a diagonal near 0 is kept
    /// away from it. Returns the number of rows changed.
    pub fn keep_dominant(matrix: &mut [f32], n: usize, stability: f32) -> usize {
        let mut n_changed = 0;
        for (i, row) in matrix.chunks_exact_mut(n.max(1)).enumerate() {
            const LEAST: f32 = 1e-3;
            if row[i].abs() < LEAST {
                row[i] = LEAST.copysign(row[i]);
                n_changed += 1;
            }
            let sum: f32 = row.iter().map(|x| x.abs()).sum::<f32>() - row[i].abs();
            let allowed = DOMINANCE * row[i].abs();
            if sum * stability > allowed {
                let factor = allowed / (sum * stability);
                let beside = row.iter_mut().enumerate().filter(|(j, _)| *j != i);
                beside.for_each(|(_, x)| *x *= factor);
                n_changed += 1;
            }
        }
        n_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_open_one_after_the_other() {
        let mask = |progress| GradualMask::at(3, 0.1, progress);
        assert_eq!(mask(0.0), [1., 0., 0., 0., 1., 0., 0., 0., 1.]);
        assert_eq!(mask(0.34), [1., 0.1, 0., 0.1, 1., 0.1, 0., 0.1, 1.]);
        assert_eq!(mask(1.0), [1., 0.1, 0.1, 0.1, 1., 0.1, 0.1, 0.1, 1.]);
    }

    #[test]
    fn rows_are_kept_dominant() {
        let mut matrix = vec![1.0, 30.0, 0.0, 0.5, -2.0, 0.5, 4.0, 4.0, 1e-9];
        assert_eq!(GradualMask::keep_dominant(&mut matrix, 3, 0.1), 3);
        for (i, row) in matrix.chunks(3).enumerate() {
            let beside: f32 =
                row.iter().enumerate().filter(|(j, _)| *j != i).map(|x| x.1.abs()).sum();
            assert!(0.1 * beside < row[i].abs(), "{row:?}");
        }
        assert_eq!(&matrix[3..6], [0.5, -2.0, 0.5], "a dominant row stays as it is");
        assert_eq!(GradualMask::keep_dominant(&mut matrix, 3, 0.1), 0);
    }
}
