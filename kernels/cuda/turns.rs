//! Whose turn it is: many threads start work on one stream, but now and then one needs it for itself.

use std::marker::PhantomData;
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
    /// Threads with shared turns under way, and how many each has: few at a time.
    shared: Vec<(ThreadId, usize)>,
    /// Threads that wait for the device to themselves.
    waiting: usize,
    /// Threads that wait for anything.
    asleep: usize,
}

impl State {
    fn is_mine(&self, me: ThreadId) -> bool {
        self.owner.is_some_and(|(thread, _)| thread == me)
    }

    fn is_foreign(&self, me: ThreadId) -> bool {
        self.owner.is_some_and(|(thread, _)| thread != me)
    }

    /// Who waits for the device comes before who begins a turn now, but not before the end of turns
    /// under way.
    fn must_wait(&self, me: ThreadId) -> bool {
        let is_within = self.is_mine(me) || self.shared.iter().any(|(thread, _)| *thread == me);
        !is_within && (self.owner.is_some() || self.waiting > 0)
    }

    fn begin_shared(&mut self, me: ThreadId) {
        match self.shared.iter_mut().find(|(thread, _)| *thread == me) {
            Some((_, depth)) => *depth += 1,
            None => self.shared.push((me, 1)),
        }
    }

    fn end_shared(&mut self, me: ThreadId) {
        for (_, depth) in self.shared.iter_mut().filter(|(thread, _)| *thread == me) {
            *depth -= 1;
        }
        self.shared.retain(|(_, depth)| *depth > 0);
    }
}

/// A turn of the thread that it was given to, over when dropped. A thread may take several within
/// each other.
#[must_use]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    kind: Kind,
    /// Turns are counted by thread.
    _stays: PhantomData<*const ()>,
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
    /// A turn beside other threads; waits until none has the device to itself, or waits for it.
    pub fn take(&self) -> Turn<'_> {
        let me = std::thread::current().id();
        let mut state = self.wait_while(|state| state.must_wait(me));
        let kind = if state.is_mine(me) { Kind::Within } else { Kind::Shared };
        if matches!(kind, Kind::Shared) {
            state.begin_shared(me);
        }
        Turn { turns: self, kind, _stays: PhantomData }
    }

    /// The device for this thread alone; waits until all turns of others are over. Within a shared
    /// turn of its own a thread would wait for itself.
    pub fn take_all(&self) -> Turn<'_> {
        let me = std::thread::current().id();
        self.lock().waiting += 1;
        let mut state =
            self.wait_while(|s| s.is_foreign(me) || (!s.is_mine(me) && !s.shared.is_empty()));
        state.waiting -= 1;
        let depth = state.owner.map_or(1, |(_, depth)| depth + 1);
        state.owner = Some((me, depth));
        Turn { turns: self, kind: Kind::Alone, _stays: PhantomData }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while condition(&state) {
            state.asleep += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep -= 1;
        }
        state
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        match self.kind {
            Kind::Within => return,
            Kind::Shared => state.end_shared(std::thread::current().id()),
            Kind::Alone => {
                let left = state.owner.filter(|(_, depth)| *depth > 1);
                state.owner = left.map(|(thread, depth)| (thread, depth - 1));
            }
        }
        // Waking nobody would still be a call of the system, at every launch.
        if state.asleep > 0 {
            self.turns.changed.notify_all();
        }
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
