//! How the blocks of the result are divided among the threads.

use std::ops::Range;

/// Pairs of A in a strip at most: 1.25 MB, which leaves room for B in a second cache of 2 MB.
const MAX_STRIP: usize = 320 * 1024;
/// Panels of A that a strip should have, as each strip reads all of B.
const GOOD_STRIP: usize = 8;

/// The panels of A in strips, and those of B in groups; a strip and a group are a task.
pub(super) struct Grid {
    rows: usize,
    cols: usize,
    strips: usize,
    groups: usize,
}

impl Grid {
    /// A grid over `rows` panels of A and `cols` panels of B of `panel` pairs each.
    ///
    /// Up to two strips a thread; more only where they would outgrow the cache. Where there are
    /// too few for the threads, B is divided as well.
    pub(super) fn new(rows: usize, cols: usize, panel: usize, n_threads: usize) -> Self {
        let largest = (MAX_STRIP / panel).max(1);
        let wanted = (rows / GOOD_STRIP).clamp(1, 2 * n_threads);
        let mut strips = wanted.max(rows.div_ceil(largest));
        if strips > n_threads {
            strips = strips.next_multiple_of(n_threads);
        }
        let strips = strips.min(rows);
        let groups = n_threads.div_ceil(strips).min(cols);
        Self { rows, cols, strips, groups }
    }

    pub(super) fn n_tasks(&self) -> usize {
        self.strips * self.groups
    }

    /// The panels of A and those of B of a task.
    pub(super) fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let part = |n: usize, i: usize, parts: usize| n * i / parts..n * (i + 1) / parts;
        let (strip, group) = (task / self.groups, task % self.groups);
        (part(self.rows, strip, self.strips), part(self.cols, group, self.groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_cover_every_block_once() {
        for (rows, cols, panel, threads) in
            [(1, 1, 512, 2), (64, 48, 9216, 2), (18, 48, 32_768, 2), (3, 7, 512, 8), (5, 1, 512, 3)]
        {
            let grid = Grid::new(rows, cols, panel, threads);
            let mut seen = vec![0; rows * cols];
            for (r, c) in (0..grid.n_tasks()).map(|task| grid.task(task)) {
                assert!(r.len() <= (MAX_STRIP / panel).max(1), "{rows} {cols} {panel}");
                r.for_each(|r| c.clone().for_each(|c| seen[r * cols + c] += 1));
            }
            assert!(seen.iter().all(|&n| n == 1), "{rows} {cols} {panel} {threads}");
        }
    }
}
