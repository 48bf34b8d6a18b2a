//! AdamW (Loshchilov and Hutter, arXiv 1711.05101), without decay.

use planish_cpu::ThreadPool;

use crate::engine::device::{BETA_1, BETA_2, EPSILON};

/// Elements of a thread's share at least.
const MIN_CHUNK: usize = 1 << 14;

/// The moments of one parameter.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
    step: i32,
}

impl Moments {
    /// Moments of a parameter of `n` elements.
    pub fn new(n: usize) -> Self {
        Self { first: vec![0.0; n], second: vec![0.0; n], step: 0 }
    }

    /// Moves `values` a step of size `rate` against `gradient`; a gradient that has an element
    /// that is no finite number is passed over. Returns whether the step was made.
    pub fn step(
        &mut self,
        pool: &ThreadPool,
        rate: f32,
        values: &mut [f32],
        gradient: &[f32],
    ) -> bool {
        debug_assert!(values.len() == gradient.len() && values.len() == self.first.len());
        // The sum of finite numbers is finite unless they are absurdly large, which is no better.
        if !gradient.iter().sum::<f32>().is_finite() {
            return false;
        }
        self.step += 1;
        let size = rate / (1.0 - BETA_1.powi(self.step));
        let correction = 1.0 / (1.0 - BETA_2.powi(self.step)).sqrt();
        let n = values.len();
        let values = Shared(values.as_mut_ptr());
        let (first, second) = (Shared(self.first.as_mut_ptr()), Shared(self.second.as_mut_ptr()));
        pool.for_each_chunk(n, MIN_CHUNK, |range| {
            // SAFETY: the ranges of a pool's chunks are disjoint and within 0..n, the length of
            // all four slices.
            let (x, m, v) =
                unsafe { (values.part(&range), first.part(&range), second.part(&range)) };
            update(x, m, v, &gradient[range], size, correction);
        });
        true
    }
}

fn update(x: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], size: f32, correction: f32) {
    for (((x, m), v), g) in x.iter_mut().zip(m).zip(v).zip(g) {
        *m = BETA_1 * *m + (1.0 - BETA_1) * g;
        *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
        *x -= size * *m / (v.sqrt() * correction + EPSILON);
    }
}

/// A slice that threads write disjoint parts of.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: only handed to chunks that do not overlap.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The range lies inside the slice, and nobody else uses that part.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, range: &std::ops::Range<usize>) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_size_of_the_rate() {
        let (pool, mut moments) = (ThreadPool::new(1), Moments::new(2));
        let mut values = [1.0, -2.0];
        assert!(moments.step(&pool, 0.1, &mut values, &[3.0, -0.001]));
        assert!((values[0] - 0.9).abs() < 1e-6 && (values[1] + 1.9).abs() < 1e-4, "{values:?}");
    }

    #[test]
    fn a_parabola_is_descended() {
        let (pool, mut moments) = (ThreadPool::new(2), Moments::new(1));
        let mut values = [5.0f32];
        for _ in 0..400 {
            let gradient = [2.0 * (values[0] - 1.5)];
            moments.step(&pool, 0.05, &mut values, &gradient);
        }
        assert!((values[0] - 1.5).abs() < 0.02, "{values:?}");
    }

    #[test]
    fn a_gradient_that_is_no_number_moves_nothing() {
        let (pool, mut moments) = (ThreadPool::new(1), Moments::new(2));
        let mut values = [1.0, 2.0];
        assert!(!moments.step(&pool, 0.1, &mut values, &[1.0, f32::NAN]));
        assert_eq!(values, [1.0, 2.0]);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let n = 3 * MIN_CHUNK + 5;
        let gradient: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let run = |threads| {
            let (pool, mut moments) = (ThreadPool::new(threads), Moments::new(n));
            let mut values = vec![0.5; n];
            (0..3).for_each(|_| _ = moments.step(&pool, 0.01, &mut values, &gradient));
            values
        };
        assert_eq!(run(1), run(3));
    }
}
