//! Whose turn it is: many threads start work on one stream, but now and then one needs it for itself.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// Turns of threads on a device.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The thread that has the device to itself, and how many times over.
    owner: Option<(ThreadId, usize)>,
    /// Turns under way, of threads that have it not to themselves.
    shared: usize,
}

impl State {
    fn is_foreign(&self) -> bool {
        let me = std::thread::current().id();
        self.owner.is_some_and(|(thread, _)| thread != me)
    }

    fn is_mine(&self) -> bool {
        self.owner.is_some() && !self.is_foreign()
    }
}

/// A turn, over when dropped. A thread may take several within each other.
#[must_use]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    kind: Kind,
}

enum Kind {
    /// Beside other threads.
    Shared,
    /// Within a turn that has the device to itself.
    Within,
    /// With the device to itself.
    Alone,
}

impl Turns {
    /// A turn beside other threads; waits until none has the device to itself.
    pub fn take(&self) -> Turn<'_> {
        let mut state = self.wait_while(State::is_foreign);
        let kind = if state.is_mine() { Kind::Within } else { Kind::Shared };
        if matches!(kind, Kind::Shared) {
            state.shared += 1;
        }
        Turn { turns: self, kind }
    }

    /// The device for this thread alone; waits until all turns of others are over. Within a shared
    /// turn of its own a thread would wait for itself.
    pub fn take_all(&self) -> Turn<'_> {
        let mut state = self.wait_while(|s| s.is_foreign() || (!s.is_mine() && s.shared > 0));
        let depth = state.owner.map_or(1, |(_, depth)| depth + 1);
        state.owner = Some((std::thread::current().id(), depth));
        Turn { turns: self, kind: Kind::Alone }
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(state, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock().unwrap_or_else(PoisonError::into_inner);
        match self.kind {
            Kind::Within => return,
            Kind::Shared => state.shared -= 1,
            Kind::Alone => {
                let left = state.owner.filter(|(_, depth)| *depth > 1);
                state.owner = left.map(|(thread, depth)| (thread, depth - 1));
            }
        }
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn who_has_the_device_to_itself_is_alone() {
        let (turns, working) = (Turns::default(), AtomicUsize::new(0));
        let alone = |turns: &Turns| {
            let _all = turns.take_all();
            assert_eq!(working.load(Ordering::SeqCst), 0);
            let _within = turns.take();
            let _again = turns.take_all();
            std::thread::yield_now();
            assert_eq!(working.load(Ordering::SeqCst), 0);
        };
        let beside = |turns: &Turns| {
            let _turn = turns.take();
            working.fetch_add(1, Ordering::SeqCst);
            let _within = turns.take();
            std::thread::yield_now();
            working.fetch_sub(1, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..500).for_each(|_| alone(&turns)));
                scope.spawn(|| (0..500).for_each(|_| beside(&turns)));
            }
        });
        drop(turns.take_all());
    }
}
