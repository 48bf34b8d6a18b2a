//! Sharing loops over large buffers among threads.

use std::num::NonZero;
use std::thread;

/// Loops of fewer operations run on the calling thread alone.
const MIN_COST: usize = 1 << 20;

/// Calls `work(index, chunk)` for every chunk of `chunk_len` elements of `data`, on all cores;
/// `cost` is about the number of operations in all. What is computed must depend on the index
/// alone, so that the number of threads changes nothing.
pub(crate) fn for_each_chunk<T: Send>(
    data: &mut [T],
    chunk_len: usize,
    cost: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let n_chunks = data.len().div_ceil(chunk_len.max(1));
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if n_chunks < 2 || cores < 2 || cost < MIN_COST {
        data.chunks_mut(chunk_len.max(1)).enumerate().for_each(|(i, chunk)| work(i, chunk));
        return;
    }
    let per_thread = n_chunks.div_ceil(cores);
    let work = &work;
    thread::scope(|scope| {
        for (thread, part) in data.chunks_mut(per_thread * chunk_len).enumerate() {
            scope.spawn(move || {
                let chunks = part.chunks_mut(chunk_len).enumerate();
                chunks.for_each(|(i, chunk)| work(thread * per_thread + i, chunk));
            });
        }
    });
}

/// Calls `work(index, item)` for every item, on all cores, as [`for_each_chunk`] does; the items
/// are dealt out one after the other, for items whose cost grows or falls with their index.
pub(crate) fn for_each_item<T: Send>(
    items: &mut [T],
    cost: usize,
    work: impl Fn(usize, &mut T) + Sync,
) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if items.len() < 2 || cores < 2 || cost < MIN_COST {
        items.iter_mut().enumerate().for_each(|(i, item)| work(i, item));
        return;
    }
    let mut hands: Vec<Vec<(usize, &mut T)>> = (0..cores).map(|_| Vec::new()).collect();
    for (i, item) in items.iter_mut().enumerate() {
        hands[i % cores].push((i, item));
    }
    let work = &work;
    thread::scope(|scope| {
        for hand in hands {
            scope.spawn(move || hand.into_iter().for_each(|(i, item)| work(i, item)));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_once_with_its_index() {
        for (len, cost) in [(10, 0), (1005, MIN_COST), (0, MIN_COST), (1, MIN_COST)] {
            let mut data = vec![0usize; len];
            for_each_item(&mut data, cost, |i, x| *x += i + 1);
            assert!(data.iter().enumerate().all(|(i, x)| *x == i + 1), "{len}");
        }
    }

    #[test]
    fn every_chunk_is_visited_once_with_its_index() {
        for (len, cost) in [(10, 0), (1005, MIN_COST), (0, MIN_COST), (8, MIN_COST)] {
            let mut data = vec![0usize; len];
            for_each_chunk(&mut data, 7, cost, |i, chunk| {
                chunk.iter_mut().for_each(|x| *x += i + 1)
            });
            assert!(data.iter().enumerate().all(|(i, x)| *x == i / 7 + 1), "{len}");
        }
    }
}
