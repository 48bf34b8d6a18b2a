//! Recording work whose parts run side by side where they do not depend on each other.
//!
//! Everything is launched on one stream, but while a woven graph is recorded each piece of the work
//! waits only for the pieces before it whose memory it touches: for who wrote what it reads, and for
//! everybody who used the memory that it is given. A stream that is recorded has a set of nodes that
//! the next one depends on; this sets it, without those that others of the set have waited for: each
//! dependency that is left costs time when the graph runs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use cudarc::driver::sys;

use crate::error::Doing;
use crate::{CapturedGraph, DevicePtr, Gpu, GpuError};

/// Drivers from this version on tell what a recorded stream depends on.
const DRIVER_VERSION: i32 = 12_030;

/// How the set of dependencies changes.
const ADD: u32 = 0;
const SET: u32 = 1;

/// Who uses which memory, while a thread records a woven graph. Other threads do not weave: they wait
/// for their turns, and may not wait with this locked.
#[derive(Default)]
pub(crate) struct Weaver(Mutex<Option<(ThreadId, Weave)>>);

#[derive(Default)]
struct Weave {
    uses: Vec<Use>,
    piece: Piece,
    /// For the nodes that pieces ended with, all that have ended before, and themselves.
    done: HashMap<Node, Pieces>,
    n_pieces: usize,
}

/// A set of pieces, by number.
#[derive(Clone, Default)]
struct Pieces(Vec<u64>);

impl Pieces {
    fn add(&mut self, piece: usize) {
        let at = piece / 64;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (piece % 64);
    }

    fn add_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    fn has_all(&self, other: &Self) -> bool {
        let word = |at: usize| self.0.get(at).copied().unwrap_or(0);
        other.0.iter().enumerate().all(|(at, theirs)| theirs & !word(at) == 0)
    }
}

/// What is under way.
#[derive(Default)]
struct Piece {
    reads: Vec<Range<u64>>,
    writes: Vec<Range<u64>>,
    /// What it waits for.
    waits: Vec<Node>,
    /// What has ended when it begins.
    done: Pieces,
}

/// A node of the graph that is recorded.
type Node = sys::CUgraphNode;

/// Memory that a piece touched, and the nodes that it ended with.
struct Use {
    memory: Range<u64>,
    writes: bool,
    nodes: Vec<Node>,
}

// SAFETY: nodes are handles, used by the thread that has the device to itself.
unsafe impl Send for Weave {}

impl Weaver {
    fn begin(&self) {
        *self.lock() = Some((std::thread::current().id(), Weave::default()));
    }

    fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(ThreadId, Weave)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `work` with what this thread weaves; nothing if it does not.
    fn with<R>(&self, work: impl FnOnce(&mut Weave) -> R) -> Option<R> {
        let mut weaving = self.lock();
        let (thread, weave) = weaving.as_mut()?;
        (*thread == std::thread::current().id()).then(|| work(weave))
    }

    /// This thread records a woven graph.
    pub fn is_weaving(&self) -> bool {
        self.with(|_| ()).is_some()
    }
}

impl Weave {
    /// Who must have ended before `memory` is read, or written.
    fn before<'a>(
        &'a self,
        memory: &'a Range<u64>,
        write: bool,
    ) -> impl Iterator<Item = Node> + 'a {
        let clash = move |used: &&Use| {
            (write || used.writes)
                && used.memory.start < memory.end
                && memory.start < used.memory.end
        };
        self.uses.iter().filter(clash).flat_map(|used| used.nodes.iter().copied())
    }

    /// The piece under way touches `memory`; whether it has to wait for more than it does.
    fn touch(&mut self, memory: Range<u64>, write: bool) -> bool {
        let mut found: Vec<Node> = self.before(&memory, write).collect();
        found.retain(|node| self.done.get(node).is_none_or(|done| !self.piece.done.has_all(done)));
        let list = if write { &mut self.piece.writes } else { &mut self.piece.reads };
        list.push(memory);
        if found.is_empty() {
            return false;
        }
        let mut waits = std::mem::take(&mut self.piece.waits);
        waits.extend(found);
        waits.sort_unstable();
        waits.dedup();
        self.piece.waits = self.last_of(&waits);
        for node in &waits {
            if let Some(done) = self.done.get(node) {
                self.piece.done.add_all(done);
            }
        }
        true
    }

    /// Those of the nodes that no other of them has waited for.
    fn last_of(&self, nodes: &[Node]) -> Vec<Node> {
        let is_before = |a: &Node, b: &Node| {
            let (a_done, b_done) = (self.done.get(a), self.done.get(b));
            a != b && a_done.zip(b_done).is_some_and(|(a, b)| b.has_all(a) && !a.has_all(b))
        };
        let is_last = |node: &&Node| !nodes.iter().any(|other| is_before(node, other));
        nodes.iter().filter(is_last).copied().collect()
    }

    /// The piece ended with `nodes`.
    fn end(&mut self, nodes: &[Node]) {
        let mut piece = std::mem::take(&mut self.piece);
        // One that launched nothing, for a view of what was there, touched nothing.
        if nodes.iter().all(|node| piece.waits.contains(node)) {
            return;
        }
        piece.done.add(self.n_pieces);
        self.n_pieces += 1;
        for node in nodes {
            self.done.entry(*node).or_insert_with(|| piece.done.clone());
        }
        // Who writes has waited for all that used the memory before.
        let is_within = |used: &Use, memory: &Range<u64>| {
            memory.start <= used.memory.start && used.memory.end <= memory.end
        };
        self.uses.retain(|used| !piece.writes.iter().any(|memory| is_within(used, memory)));
        let writes = piece.writes.into_iter().map(|memory| (memory, true));
        let all = writes.chain(piece.reads.into_iter().map(|memory| (memory, false)));
        let nodes = nodes.to_vec();
        self.uses.extend(all.map(|(memory, writes)| Use { memory, writes, nodes: nodes.clone() }));
    }
}

impl Gpu {
    /// Records what `work` launches, as [`Gpu::capture`] does, where pieces of it, each from
    /// [`Gpu::begin_piece`] to [`Gpu::end_piece`], may run side by side. What a piece reads it must
    /// name ([`Gpu::piece_reads`]); what it writes it must have allocated. With an old driver all
    /// runs in order.
    ///
    /// # Errors
    /// As [`Gpu::capture`].
    pub fn capture_woven<E: From<GpuError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<CapturedGraph, E> {
        self.exclusively(|| {
            if knows_dependencies() {
                self.weaver.begin();
            }
            let graph = self.capture(work);
            self.weaver.end();
            graph
        })
    }

    /// Begins a piece, which depends on nothing yet. Does nothing unless a woven graph is recorded; so
    /// do the two below.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn begin_piece(&self) -> Result<(), GpuError> {
        let begin = |weave: &mut Weave| {
            weave.piece = Piece::default();
            self.wait_for(&mut [], SET)
        };
        self.weaver.with(begin).unwrap_or(Ok(()))
    }

    /// The piece reads this memory.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn piece_reads(&self, at: DevicePtr, n_bytes: usize) -> Result<(), GpuError> {
        self.touch(at, n_bytes, false)
    }

    /// The piece is given this memory, and writes it.
    pub(crate) fn piece_writes(&self, at: DevicePtr, n_bytes: usize) -> Result<(), GpuError> {
        self.touch(at, n_bytes, true)
    }

    /// Ends the piece.
    ///
    /// # Errors
    /// If the driver does not say what it ended with.
    pub fn end_piece(&self) -> Result<(), GpuError> {
        let end = |weave: &mut Weave| {
            weave.end(&self.last_nodes()?);
            Ok(())
        };
        self.weaver.with(end).unwrap_or(Ok(()))
    }

    fn touch(&self, at: DevicePtr, n_bytes: usize, write: bool) -> Result<(), GpuError> {
        let memory = at.0..at.0 + n_bytes as u64;
        self.weaver.with(|weave| self.wait_to_touch(weave, memory, write)).unwrap_or(Ok(()))
    }

    fn wait_to_touch(
        &self,
        weave: &mut Weave,
        memory: Range<u64>,
        write: bool,
    ) -> Result<(), GpuError> {
        let before = weave.piece.waits.clone();
        if !weave.touch(memory, write) {
            return Ok(());
        }
        let mut waits = weave.piece.waits.clone();
        let mut now = self.last_nodes()?;
        now.sort_unstable();
        if now == before {
            return self.wait_for(&mut waits, SET);
        }
        // It has launched something already, which waited for all before.
        waits.retain(|node| !before.contains(node));
        self.wait_for(&mut waits, ADD)
    }

    /// Sets or adds to what the next node depends on.
    fn wait_for(&self, nodes: &mut [Node], how: u32) -> Result<(), GpuError> {
        let _turn = self.bind()?;
        // SAFETY: the stream is recorded, and the nodes are of its graph.
        let code = unsafe {
            sys::cuStreamUpdateCaptureDependencies_v2(
                self.stream(),
                nodes.as_mut_ptr(),
                std::ptr::null(),
                nodes.len(),
                how,
            )
        };
        code.result().doing("record a graph's dependencies")
    }

    /// What the next node depends on.
    fn last_nodes(&self) -> Result<Vec<Node>, GpuError> {
        let _turn = self.bind()?;
        let mut status = sys::CUstreamCaptureStatus_enum::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut nodes, mut edges, mut n) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: all that is written is there; what is not asked for may be null.
        let code = unsafe {
            sys::cuStreamGetCaptureInfo_v3(
                self.stream(),
                &mut status,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &mut nodes,
                &mut edges,
                &mut n,
            )
        };
        code.result().doing("tell a recorded graph's last nodes")?;
        if n == 0 || nodes.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: the driver's list of so many nodes, valid until the next call.
        Ok(unsafe { std::slice::from_raw_parts(nodes, n) }.to_vec())
    }
}

fn knows_dependencies() -> bool {
    let mut version = 0;
    // SAFETY: writes the version.
    let code = unsafe { sys::cuDriverGetVersion(&mut version) };
    code.result().is_ok() && version >= DRIVER_VERSION
}

#[cfg(test)]
mod tests {
    use super::{Node, Weave, Weaver};

    fn node(n: usize) -> Node {
        n as Node
    }

    /// Records a piece of these reads and writes that launches `n`; returns what it waits for.
    fn piece(weave: &mut Weave, n: usize, reads: &[u64], writes: &[u64]) -> Vec<usize> {
        for at in reads {
            weave.touch(*at..at + 256, false);
        }
        for at in writes {
            weave.touch(*at..at + 256, true);
        }
        let waits = weave.piece.waits.iter().map(|node| *node as usize).collect();
        weave.end(&[node(n)]);
        waits
    }

    #[test]
    fn only_the_thread_that_began_weaves() {
        let weaver = Weaver::default();
        assert!(!weaver.is_weaving());
        weaver.begin();
        assert!(weaver.is_weaving());
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| weaver.is_weaving()).join());
        assert!(!elsewhere.unwrap());
        weaver.end();
        assert!(!weaver.is_weaving());
    }

    #[test]
    fn a_piece_waits_for_those_that_use_its_memory() {
        let mut weave = Weave::default();
        assert!(piece(&mut weave, 1, &[0], &[1000]).is_empty(), "reads what was there before");
        assert!(piece(&mut weave, 2, &[0], &[2000]).is_empty(), "reads what another reads");
        assert_eq!(piece(&mut weave, 3, &[1000, 2000], &[3000]), [1, 2], "reads what was written");
        assert_eq!(piece(&mut weave, 4, &[1000], &[4000]), [1]);
        assert_eq!(piece(&mut weave, 5, &[], &[1000]), [3, 4], "writes what others read");
        assert_eq!(piece(&mut weave, 6, &[1100], &[5000]), [5], "a view of what was written last");
    }

    #[test]
    fn a_piece_waits_for_the_last_ones_only() {
        let mut weave = Weave::default();
        piece(&mut weave, 1, &[], &[1000]);
        piece(&mut weave, 2, &[1000], &[2000]);
        piece(&mut weave, 3, &[2000], &[3000]);
        piece(&mut weave, 4, &[1000], &[4000]);
        assert_eq!(piece(&mut weave, 5, &[1000, 2000, 3000], &[]), [3]);
        assert_eq!(piece(&mut weave, 6, &[3000, 1000, 4000], &[]), [3, 4]);
        assert_eq!(piece(&mut weave, 7, &[4000], &[1000]), [5, 6], "all that read it");
    }

    #[test]
    fn what_launches_nothing_is_no_use() {
        let mut weave = Weave::default();
        piece(&mut weave, 1, &[], &[1000]);
        weave.touch(1000..1256, false);
        let waits = weave.piece.waits.clone();
        weave.end(&waits);
        assert_eq!(piece(&mut weave, 2, &[], &[1000]), [1]);
    }
}
