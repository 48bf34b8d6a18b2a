//! A fork-join pool for parallel regions of a few microseconds.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};

/// How often a thread polls before it starts to offer its time slice between polls: some 2 µs.
/// Where another program keeps a core busy, caller and worker can end up on the same one, and
/// each would otherwise spin while the other has something to do.
const SPINS_BEFORE_YIELD: u32 = 128;
/// How often a worker then offers its slice before it sleeps: some 50 to 100 µs.
const YIELDS_BEFORE_PARK: u32 = 150;

type Payload = Box<dyn Any + Send>;

thread_local! {
    /// Whether this thread is inside a region of some pool.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A value on its own pair of cache lines, so that threads polling it disturb nobody.
#[repr(align(128))]
struct Line<T>(T);

/// The region under way: a thin pointer to the closure, and how to call it.
#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
}

struct Shared {
    /// Counts the regions started; a change tells the workers that `job` is new.
    epoch: Line<AtomicU64>,
    /// Workers still busy with the region under way.
    remaining: Line<AtomicUsize>,
    job: UnsafeCell<Job>,
    stop: AtomicBool,
    parked: Vec<Line<AtomicBool>>,
    panic: Mutex<Option<Payload>>,
}

// SAFETY: `job` is written only while no worker reads it (`remaining` is zero and the epoch has
// not yet advanced), and the closure it points to is `Sync` and outlives the region.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointers in `job` are used only inside a region.
unsafe impl Send for Shared {}

/// Persistent worker threads that poll for work for a short time and then sleep.
///
/// The calling thread takes part as thread 0. A region opened inside a region, or while another
/// thread uses the pool, runs on the calling thread alone.
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
    owner: Mutex<()>,
    n_threads: usize,
}

impl ThreadPool {
    /// A pool of `n_threads` threads, the caller included; 0 takes the available parallelism.
    pub fn new(n_threads: usize) -> Self {
        let available = || thread::available_parallelism().map_or(1, usize::from);
        let wanted = if n_threads == 0 { available() } else { n_threads };
        let shared = Arc::new(Shared::new(wanted - 1));
        let handles: Vec<_> = (1..wanted).map_while(|i| spawn_worker(&shared, i).ok()).collect();
        let threads: Vec<_> = handles.iter().map(|h| h.thread().clone()).collect();
        let n_threads = handles.len() + 1;
        Self { shared, threads, handles, owner: Mutex::new(()), n_threads }
    }

    /// The number of threads, the caller included.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Calls `f(i)` once for each thread index `i` in `0..n_threads()` and returns when all calls
    /// have ended.
    ///
    /// # Panics
    /// With the payload of a call that panicked, after all calls have ended.
    pub fn run<F: Fn(usize) + Sync>(&self, f: F) {
        if self.n_threads == 1 || INSIDE.get() {
            return (0..self.n_threads).for_each(f);
        }
        match self.owner.try_lock() {
            Ok(_owner) => self.fork_join(&f),
            Err(_) => (0..self.n_threads).for_each(f),
        }
    }

    /// Splits `0..n_items` into one contiguous range a thread, none shorter than `min_chunk`
    /// (but the only one), and calls `f` on each.
    pub fn for_each_chunk<F: Fn(Range<usize>) + Sync>(
        &self,
        n_items: usize,
        min_chunk: usize,
        f: F,
    ) {
        let parts = (n_items / min_chunk.max(1)).clamp(1, self.n_threads);
        if n_items == 0 {
            return;
        }
        if parts == 1 {
            return f(0..n_items);
        }
        self.run(|i| {
            let range = n_items * i.min(parts) / parts..n_items * (i + 1).min(parts) / parts;
            if !range.is_empty() {
                f(range);
            }
        });
    }

    /// Calls `f` on consecutive ranges of `chunk` items of `0..n_items`, handed to the threads as
    /// they become free.
    pub fn for_each_dynamic<F: Fn(Range<usize>) + Sync>(&self, n_items: usize, chunk: usize, f: F) {
        let chunk = chunk.max(1);
        let n_chunks = n_items.div_ceil(chunk);
        let range = |c: usize| c * chunk..((c + 1) * chunk).min(n_items);
        if n_chunks <= 1 || self.n_threads == 1 {
            return (0..n_chunks).for_each(|c| f(range(c)));
        }
        let next = Line(AtomicUsize::new(0));
        self.run(|_| {
            loop {
                let c = next.0.fetch_add(1, Relaxed);
                if c >= n_chunks {
                    break;
                }
                f(range(c));
            }
        });
    }

    fn fork_join<F: Fn(usize) + Sync>(&self, f: &F) {
        /// # Safety
        /// `data` points to a live `F`.
        unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
            // SAFETY: the caller passes the pointer made from `f` below.
            unsafe { (*data.cast::<F>())(index) }
        }
        let job = Job { data: (&raw const *f).cast(), call: call::<F> };
        // SAFETY: this thread owns the pool and no region is under way.
        unsafe { *self.shared.job.get() = job };
        self.shared.remaining.0.store(self.n_threads - 1, Relaxed);
        self.shared.epoch.0.fetch_add(1, SeqCst);
        self.wake_sleepers();
        INSIDE.set(true);
        let own = catch_unwind(AssertUnwindSafe(|| f(0)));
        INSIDE.set(false);
        self.wait();
        let theirs = self.shared.panic.lock().map_or(None, |mut slot| slot.take());
        if let Some(payload) = own.err().or(theirs) {
            resume_unwind(payload);
        }
    }

    fn wake_sleepers(&self) {
        for (flag, thread) in self.shared.parked.iter().zip(&self.threads) {
            if flag.0.load(SeqCst) {
                thread.unpark();
            }
        }
    }

    fn wait(&self) {
        let mut spins = 0u32;
        while self.shared.remaining.0.load(Acquire) != 0 {
            pause(spins);
            spins = spins.saturating_add(1);
        }
    }
}

impl Default for ThreadPool {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.epoch.0.fetch_add(1, SeqCst);
        self.threads.iter().for_each(Thread::unpark);
        for handle in self.handles.drain(..) {
            // A worker catches the panics of its jobs, so it has none of its own to pass on.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn new(n_workers: usize) -> Self {
        unsafe fn nothing(_: *const (), _: usize) {}
        Self {
            epoch: Line(AtomicU64::new(0)),
            remaining: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { data: std::ptr::null(), call: nothing }),
            stop: AtomicBool::new(false),
            parked: (0..n_workers).map(|_| Line(AtomicBool::new(false))).collect(),
            panic: Mutex::new(None),
        }
    }

    /// Waits until the epoch differs from `seen`; returns the new one.
    fn next_epoch(&self, seen: u64, worker: usize) -> u64 {
        for spin in 0..SPINS_BEFORE_YIELD + YIELDS_BEFORE_PARK {
            let now = self.epoch.0.load(Acquire);
            if now != seen {
                return now;
            }
            pause(spin);
        }
        self.sleep_until_changed(seen, worker)
    }

    fn sleep_until_changed(&self, seen: u64, worker: usize) -> u64 {
        let flag = &self.parked[worker].0;
        flag.store(true, SeqCst);
        let now = loop {
            let now = self.epoch.0.load(SeqCst);
            if now != seen {
                break now;
            }
            thread::park();
        };
        flag.store(false, Relaxed);
        now
    }
}

/// Waits a moment before poll number `spin` + 1.
#[inline]
fn pause(spin: u32) {
    if spin < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { thread::yield_now() }
}

fn spawn_worker(shared: &Arc<Shared>, index: usize) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(format!("planish-{index}")).spawn(move || work(&shared, index))
}

fn work(shared: &Shared, index: usize) {
    INSIDE.set(true);
    let mut epoch = 0;
    loop {
        epoch = shared.next_epoch(epoch, index - 1);
        if shared.stop.load(SeqCst) {
            return;
        }
        // SAFETY: the epoch advanced after the job was written, and the caller waits for
        // `remaining` before it writes the next one or lets the closure go.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe {
            let job = *shared.job.get();
            (job.call)(job.data, index);
        }));
        if let (Err(payload), Ok(mut slot)) = (result, shared.panic.lock()) {
            slot.get_or_insert(payload);
        }
        shared.remaining.0.fetch_sub(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pool: &ThreadPool, n: usize, run: impl Fn(&ThreadPool, &[AtomicUsize])) {
        let hits: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        run(pool, &hits);
        assert!(hits.iter().all(|h| h.load(SeqCst) == 1));
    }

    #[test]
    fn every_index_and_item_is_visited_once() {
        for threads in 1..5 {
            let pool = ThreadPool::new(threads);
            for n in [0, 1, 2, 3, 7, 64, 101] {
                counts(&pool, n, |p, hits| {
                    p.for_each_chunk(n, 3, |r| r.for_each(|i| _ = hits[i].fetch_add(1, SeqCst)))
                });
                counts(&pool, n, |p, hits| {
                    p.for_each_dynamic(n, 4, |r| r.for_each(|i| _ = hits[i].fetch_add(1, SeqCst)))
                });
            }
            counts(&pool, threads, |p, hits| p.run(|i| _ = hits[i].fetch_add(1, SeqCst)));
        }
    }

    #[test]
    fn nested_and_repeated_regions_end() {
        let pool = ThreadPool::new(2);
        let total = AtomicUsize::new(0);
        for round in 0..2_000 {
            pool.run(|_| pool.run(|_| _ = total.fetch_add(1, SeqCst)));
            if round % 500 == 0 {
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        assert_eq!(total.load(SeqCst), 8_000);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(2);
        for bad in 0..2 {
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(|i| assert_ne!(i, bad))));
            assert!(caught.is_err());
        }
        counts(&pool, 2, |p, hits| p.run(|i| _ = hits[i].fetch_add(1, SeqCst)));
    }
}
