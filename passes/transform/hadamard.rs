//! Orthogonal matrices whose elements are as equal in size as can be, for any size.

use std::f64::consts::PI;

use super::Matrix;

/// An orthogonal matrix of `n` rows that spreads every channel over all others: a Hadamard matrix
/// over √n where a construction is known here, else the Kronecker product of the largest such
/// factor of n and an orthonormal cosine transform (DCT-II) of the rest.
pub fn spreading(n: usize) -> Matrix {
    let factors = divisors(n).rev();
    let (factor, found) = factors
        .filter_map(|d| Some((d, hadamard(d)?)))
        .next()
        .unwrap_or_else(|| (1, Matrix::identity(1)));
    let orthogonal = found.scaled(1.0 / (factor as f64).sqrt());
    if factor == n { orthogonal } else { orthogonal.kronecker(&cosine_transform(n / factor)) }
}

/// A matrix of ±1 whose rows are orthogonal, by Sylvester's and Paley's constructions and their
/// Kronecker products; `None` where these give none (all sizes but 1, 2 and multiples of 4, and a
/// few of those).
pub fn hadamard(n: usize) -> Option<Matrix> {
    match n {
        0 => None,
        1 => Some(Matrix::identity(1)),
        2 => Some(Matrix::from_fn(2, 2, |i, j| if i + j == 2 { -1.0 } else { 1.0 })),
        _ if !n.is_multiple_of(4) => None,
        _ if n.is_power_of_two() => product(2, n / 2),
        _ => paley_first(n)
            .or_else(|| paley_second(n))
            .or_else(|| divisors(n).filter(|d| (2..n).contains(d)).find_map(|d| product(d, n / d))),
    }
}

fn product(a: usize, b: usize) -> Option<Matrix> {
    Some(hadamard(a)?.kronecker(&hadamard(b)?))
}

/// Paley's first construction, for n − 1 a prime that leaves 3 when divided by 4:
/// the identity plus the skew matrix of the quadratic character, bordered by 1 and −1.
fn paley_first(n: usize) -> Option<Matrix> {
    let q = n - 1;
    let character = (q % 4 == 3 && is_prime(q)).then(|| quadratic_character(q))?;
    Some(Matrix::from_fn(n, n, |i, j| match (i, j) {
        _ if i == j => 1.0,
        (0, _) => 1.0,
        (_, 0) => -1.0,
        _ => character[(q + j - i) % q],
    }))
}

/// Paley's second construction, for n / 2 − 1 a prime that leaves 1 when divided by 4: the
/// symmetric conference matrix C gives C ⊗ [1 1; 1 −1] + I ⊗ [1 −1; −1 −1].
fn paley_second(n: usize) -> Option<Matrix> {
    let q = (n / 2).checked_sub(1)?;
    let character =
        (n.is_multiple_of(2) && q % 4 == 1 && is_prime(q)).then(|| quadratic_character(q))?;
    let conference = |i: usize, j: usize| match (i, j) {
        _ if i == j => 0.0,
        (0, _) | (_, 0) => 1.0,
        _ => character[(q + j - i) % q],
    };
    Some(Matrix::from_fn(n, n, |i, j| {
        let (off, on) = match (i % 2, j % 2) {
            (0, 0) => (1.0, 1.0),
            (1, 1) => (-1.0, -1.0),
            _ => (1.0, -1.0),
        };
        if i / 2 == j / 2 { on } else { off * conference(i / 2, j / 2) }
    }))
}

/// χ(x) for x in 0..q: 0 for 0, 1 for squares modulo the prime q, −1 for the rest.
fn quadratic_character(q: usize) -> Vec<f64> {
    let mut character = vec![-1.0; q];
    (1..q).for_each(|x| character[x * x % q] = 1.0);
    character[0] = 0.0;
    character
}

/// The orthonormal discrete cosine transform of type II.
fn cosine_transform(n: usize) -> Matrix {
    let angle = PI / n as f64;
    Matrix::from_fn(n, n, |i, j| match j {
        0 => (1.0 / n as f64).sqrt(),
        _ => (2.0 / n as f64).sqrt() * (angle * (i as f64 + 0.5) * j as f64).cos(),
    })
}

fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// The divisors of `n`, ascending.
fn divisors(n: usize) -> impl DoubleEndedIterator<Item = usize> {
    (1..=n).filter(move |d| n.is_multiple_of(*d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hadamard_matrices_of_many_sizes_are_sound() {
        let sizes = [1, 2, 4, 8, 12, 20, 24, 28, 32, 36, 40, 44, 48, 60, 64, 96, 112, 128, 144];
        for n in sizes {
            let matrix = hadamard(n).unwrap_or_else(|| panic!("none for {n}"));
            assert!(matrix.elements().iter().all(|x| x.abs() == 1.0), "{n}");
            let gram = matrix.times(&matrix.transposed());
            assert_eq!(gram, Matrix::identity(n).scaled(n as f64), "{n}");
        }
    }

    #[test]
    fn no_hadamard_matrix_is_claimed_where_there_is_none() {
        assert!([3, 6, 9, 10, 18, 86].iter().all(|n| hadamard(*n).is_none()));
    }

    #[test]
    fn every_size_has_an_orthogonal_matrix() {
        for n in (1..=40).chain([43, 52, 56, 86]) {
            let matrix = spreading(n);
            let gram = matrix.times(&matrix.transposed());
            assert!(gram.max_difference(&Matrix::identity(n)) < 1e-12, "{n}");
        }
    }
}
