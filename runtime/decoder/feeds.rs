//! All inputs of a run from an empty cache.

use planish_ir::{Graph, Tensor};

use super::feed::{Extent, Feed, FeedNames};
use super::given::Given;
use super::{CachePair, DecoderError, Roles};
use crate::engine::IoInfo;

/// How to feed each input of a compiled graph.
pub(crate) struct Feeds(Vec<Source>);

enum Source {
    Made(Feed),
    /// A cache that lowering left to the graph.
    Empty(CachePair),
}

impl Feeds {
    /// Finds out how to feed `inputs`, those of a graph that was made from `graph`.
    ///
    /// # Errors
    /// If an input has no role.
    pub fn new(graph: &Graph, roles: &Roles, inputs: &[IoInfo]) -> Result<Self, DecoderError> {
        let names = FeedNames::new(graph, roles);
        let cache = |input: &IoInfo| {
            let mut caches = roles.caches.iter();
            caches.find(|pair| graph.value(pair.past).name == input.name).cloned()
        };
        let source = |input| match cache(input) {
            Some(pair) => Ok(Source::Empty(pair)),
            None => Feed::of(input, &names).map(Source::Made),
        };
        inputs.iter().map(source).collect::<Result<_, _>>().map(Self)
    }

    /// The tensors for windows of equal length, side by side.
    pub fn make(&self, windows: &[&[u32]]) -> Vec<Tensor> {
        let length = windows.first().map_or(0, |window| window.len());
        let extent = Extent { batch: windows.len(), past: 0, length, logits_from: 0 };
        let ids = windows.concat();
        let tensor = |source: &Source| match source {
            Source::Made(feed) => Some(feed.make(Given::ids(&ids), extent)),
            Source::Empty(pair) => pair.empty(windows.len()),
        };
        self.0.iter().filter_map(tensor).collect()
    }
}
