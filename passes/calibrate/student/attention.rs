//! Transforms and quantisers of queries, keys and values.

use planish_ir::{Node, ValueId};
use planish_kernels::DOMAIN;

use super::linear::ColumnFold;
use super::{ClipSlots, Online, Writer};
use crate::calibrate::statistics::matrix_of;
use crate::calibrate::{CalibrateError, ParameterKind};
use crate::sites::{AttentionId, HeadTransform};

impl Writer<'_> {
    /// P_h: keys are multiplied by it per head, queries by its inverse's transpose, if the cache
    /// is rounded.
    pub(super) fn add_heads(&mut self, id: AttentionId) -> Result<(), CalibrateError> {
        let attention = self.block.layout.attention(id).clone();
        let Ok(place) = &attention.head_transform else { return Ok(()) };
        let online = *place == HeadTransform::Online;
        if !self.options.bits.quantizes_kv() || (online && self.options.online == Online::Nothing) {
            return Ok(());
        }
        let size = attention.head_size;
        let moments = self.initial.statistics.heads.get(&id);
        let moments = moments.map(|(q, k)| (matrix_of(k), matrix_of(q)));
        let start = self.initial.matrix(size, self.options, moments.as_ref()).to_tensor();
        let (slot, _) = self.builder.parameter("p_h", ParameterKind::Matrix, start);
        let matrix = self.matrix_of(slot);
        self.attentions.entry(id).or_default().matrix = Some(slot);
        let inverse = self.builder.inverse(matrix);
        let inverse = self.builder.transpose(inverse);
        match place {
            HeadTransform::Online => {
                for (index, matrix) in [(0, inverse), (1, matrix)] {
                    self.transform_input(id, index, matrix);
                }
            }
            HeadTransform::Folded { query, key } => {
                for (part, matrix) in [(query, inverse), (key, matrix)] {
                    let fold = self.folds.entry(part.linear).or_default();
                    fold.columns.push((part.columns.clone(), ColumnFold::Heads { matrix, size }));
                }
            }
        }
        Ok(())
    }

    fn transform_input(&mut self, id: AttentionId, index: usize, matrix: ValueId) {
        let node = self.block.layout.attention(id).node;
        let Some(x) = self.graph().node(node).input(index) else { return };
        let transform = Node::new("TransformHeads", vec![Some(x), Some(matrix)]);
        let y = self.builder.node("heads_transformed", transform.with_domain(DOMAIN));
        self.builder.graph.set_input(node, index, Some(y));
    }

    /// Rounds what goes into the cache.
    pub(super) fn write_cache(&mut self, id: AttentionId) {
        if !self.options.bits.quantizes_kv() {
            return;
        }
        let attention = self.block.layout.attention(id).clone();
        let key = self.round_heads(id, 1, "key_clip", attention.head_size);
        let value = self.round_heads(id, 2, "value_clip", attention.v_head_size);
        let slots = self.attentions.entry(id).or_default();
        (slots.key_clip, slots.value_clip) = (key, value);
    }

    fn round_heads(
        &mut self,
        id: AttentionId,
        index: usize,
        hint: &str,
        size: usize,
    ) -> Option<ClipSlots> {
        let node = self.block.layout.attention(id).node;
        let x = self.graph().node(node).input(index)?;
        let (slots, ratios) = self.add_clip(hint, &[1]);
        let rounding =
            Node::new("FakeQuantizeHeads", vec![Some(x), Some(ratios[0]), Some(ratios[1])])
                .with_domain(DOMAIN)
                .with("head_size", size as i64)
                .with("bits", i64::from(self.options.bits.kv));
        let y = self.builder.node("cache_rounded", rounding);
        self.builder.graph.set_input(node, index, Some(y));
        Some(slots)
    }
}
