//! All inputs of a run from an empty cache.

use planish_ir::{Graph, Tensor};

use super::feed::{Extent, Feed, FeedNames};
use super::{DecoderError, Roles};
use crate::engine::IoInfo;

/// How to feed each input of a compiled graph.
pub(crate) struct Feeds(Vec<Feed>);

impl Feeds {
    /// Finds out how to feed `inputs`, those of a graph that was made from `graph`.
    ///
    /// # Errors
    /// If an input has no role.
    pub fn new(graph: &Graph, roles: &Roles, inputs: &[IoInfo]) -> Result<Self, DecoderError> {
        let names = FeedNames::new(graph, roles);
        inputs.iter().map(|input| Feed::of(input, &names)).collect::<Result<_, _>>().map(Self)
    }

    /// The tensors for windows of equal length, side by side.
    pub fn make(&self, windows: &[&[u32]]) -> Vec<Tensor> {
        let length = windows.first().map_or(0, |window| window.len());
        let extent = Extent { batch: windows.len(), past: 0, length, logits_from: 0 };
        let ids = windows.concat();
        self.0.iter().map(|feed| feed.make(&ids, extent)).collect()
    }
}
