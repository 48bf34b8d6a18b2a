//! Which part of the scores of a block of queries is computed.

use super::DenseAttention;
use crate::sgemm::PANEL;
use std::ops::Range;

/// Queries, or keys, of a strip along the edge of the causal triangle.
const STRIP: usize = 16;
/// Scores that a block holds at most: with as many gradients they stay in a core's second cache.
const MAX_SCORES: usize = 128 * 1024;

/// Queries of a block over `n_keys` keys. Full panels of them make the products efficient.
pub(super) fn block_len(n_keys: usize) -> usize {
    (MAX_SCORES / n_keys.max(1) / STRIP * STRIP).clamp(STRIP, PANEL)
}

/// The queries `rows` of a head, and the keys that any of them sees.
pub(super) struct Span<'a> {
    spec: &'a DenseAttention<'a>,
    pub(super) rows: Range<usize>,
    /// The keys that some query sees.
    pub(super) keys: Range<usize>,
    /// Before this key all queries are taken together; from it on, the scores are cut into strips
    /// that follow the causal edge.
    edge: usize,
}

impl<'a> Span<'a> {
    pub(super) fn new(spec: &'a DenseAttention<'a>, rows: Range<usize>) -> Self {
        let (first, last) = (spec.visible(rows.start), spec.visible(rows.end - 1));
        let keys = first.start.min(last.end)..last.end;
        let edge = match first.end < last.end {
            true => (first.end / PANEL * PANEL).max(keys.start),
            false => keys.end,
        };
        Self { spec, rows, keys, edge }
    }

    /// Elements from one row of scores to the next: an odd number of cache lines, so that a
    /// column of scores spreads over all sets of the cache.
    pub(super) fn step(&self) -> usize {
        (self.keys.len().div_ceil(16) | 1) * 16
    }

    /// The columns of the scores that query `row` sees.
    pub(super) fn columns(&self, row: usize) -> Range<usize> {
        let seen = self.spec.visible(row);
        seen.start - self.keys.start..seen.end - self.keys.start
    }

    /// Calls `f` with rectangles (queries, keys) that cover all that is seen, none twice, each as
    /// wide as the last of its queries sees.
    pub(super) fn by_queries(&self, mut f: impl FnMut(Range<usize>, Range<usize>)) {
        if self.keys.start < self.edge {
            f(self.rows.clone(), self.keys.start..self.edge);
        }
        for start in self.rows.clone().step_by(STRIP) {
            let strip = start..(start + STRIP).min(self.rows.end);
            let end = self.spec.visible(strip.end - 1).end;
            if self.edge < end {
                f(strip, self.edge..end);
            }
        }
    }

    /// As [`Span::by_queries`], but cut along the keys: each rectangle holds the queries that see
    /// the first of its keys.
    pub(super) fn by_keys(&self, mut f: impl FnMut(Range<usize>, Range<usize>)) {
        if self.keys.start < self.edge {
            f(self.rows.clone(), self.keys.start..self.edge);
        }
        for start in (self.edge..self.keys.end).step_by(STRIP) {
            let hidden = self.rows.clone().take_while(|r| self.spec.visible(*r).end <= start);
            let first = self.rows.start + hidden.count();
            f(first..self.rows.end, start..(start + STRIP).min(self.keys.end));
        }
    }
}
