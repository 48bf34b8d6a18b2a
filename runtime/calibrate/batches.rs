//! Which windows a step learns from.

use planish_passes::transform::Random;

/// Endless batches: all windows in a random order, then all again in another.
pub struct Batches {
    order: Vec<usize>,
    next: usize,
    batch: usize,
    random: Random,
}

impl Batches {
    /// Batches of `batch` of `n_windows` windows; `batch` must not be larger.
    pub fn new(n_windows: usize, batch: usize, seed: u64) -> Self {
        let order = (0..n_windows).collect();
        Self { order, next: n_windows, batch, random: Random::new(seed) }
    }

    /// The next batch.
    pub fn take(&mut self) -> &[usize] {
        // A rest that is smaller than a batch waits for the next round's shuffling.
        if self.next + self.batch > self.order.len() {
            self.shuffle();
            self.next = 0;
        }
        self.next += self.batch;
        &self.order[self.next - self.batch..self.next]
    }

    /// Fisher and Yates.
    fn shuffle(&mut self) {
        for i in (1..self.order.len()).rev() {
            let j = (self.random.bits() % (i as u64 + 1)) as usize;
            self.order.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_visits_every_window_once() {
        let mut batches = Batches::new(6, 2, 1);
        for _ in 0..3 {
            let mut seen: Vec<usize> = (0..3).flat_map(|_| batches.take().to_vec()).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| Batches::new(64, 8, seed).take().to_vec();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
