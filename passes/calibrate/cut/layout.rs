//! The part of a layout that a block has, in the ids of the cut model.

use std::collections::HashMap;

use planish_ir::{NodeId, ValueId};

use crate::sites::{
    AttentionId, AttentionSite, Bias, Block, HeadTransform, Layout, LinearId, LinearLayer, Part,
    Site, SiteId, SiteRole,
};

/// The layout of a cut model, and where its parts are in the decoder's.
pub(super) struct Translated {
    pub(super) layout: Layout,
    pub(super) linears: Vec<LinearId>,
    pub(super) sites: Vec<SiteId>,
    pub(super) attentions: Vec<AttentionId>,
}

/// The layout of the block, as far as `values` and `nodes` have its parts.
pub(super) fn translate(
    layout: &Layout,
    block: &Block,
    values: &HashMap<ValueId, ValueId>,
    nodes: &HashMap<NodeId, NodeId>,
) -> Translated {
    let has = |id: &LinearId| nodes.contains_key(&layout.linear(*id).node);
    let linears: Vec<LinearId> = (0..layout.linears.len()).map(LinearId).filter(has).collect();
    let has = |id: &AttentionId| nodes.contains_key(&layout.attention(*id).node);
    let attentions: Vec<AttentionId> = block.attentions.iter().copied().filter(has).collect();
    let has = |id: &SiteId| layout.site(*id).linears.iter().any(|l| linears.contains(l));
    let sites: Vec<SiteId> = block.sites.iter().copied().filter(has).collect();
    let ids = Ids { values, nodes, linears: &linears, attentions: &attentions };
    let cut = Layout {
        linears: linears.iter().filter_map(|id| ids.linear_layer(layout.linear(*id))).collect(),
        sites: sites.iter().filter_map(|id| ids.site(layout.site(*id))).collect(),
        attentions: attentions.iter().filter_map(|id| ids.site_of_heads(layout, *id)).collect(),
        blocks: ids.block(block, sites.len()).into_iter().collect(),
        head: None,
        left_alone: Vec::new(),
    };
    Translated { layout: cut, linears, sites, attentions }
}

/// Old ids and new ones.
struct Ids<'a> {
    values: &'a HashMap<ValueId, ValueId>,
    nodes: &'a HashMap<NodeId, NodeId>,
    linears: &'a [LinearId],
    attentions: &'a [AttentionId],
}

impl Ids<'_> {
    fn value(&self, id: ValueId) -> Option<ValueId> {
        self.values.get(&id).copied()
    }

    fn node(&self, id: NodeId) -> Option<NodeId> {
        self.nodes.get(&id).copied()
    }

    fn linear(&self, id: LinearId) -> Option<LinearId> {
        self.linears.iter().position(|old| *old == id).map(LinearId)
    }

    fn attention(&self, id: AttentionId) -> Option<AttentionId> {
        self.attentions.iter().position(|old| *old == id).map(AttentionId)
    }

    fn part(&self, part: &Part) -> Option<Part> {
        Some(Part { linear: self.linear(part.linear)?, columns: part.columns.clone() })
    }

    fn linear_layer(&self, old: &LinearLayer) -> Option<LinearLayer> {
        let bias = |bias: Bias| {
            let (node, value) = (self.node(bias.node)?, self.value(bias.value)?);
            Some(Bias { node, index: bias.index, value })
        };
        let parts = old.parts.iter();
        let parts = parts.map(|(value, columns)| Some((self.value(*value)?, columns.clone())));
        Some(LinearLayer {
            node: self.node(old.node)?,
            input: self.value(old.input)?,
            weight: self.value(old.weight)?,
            bias: old.bias.and_then(bias),
            output: self.value(old.output)?,
            parts: parts.collect::<Option<_>>()?,
            ..old.clone()
        })
    }

    fn site(&self, old: &Site) -> Option<Site> {
        Some(Site {
            input: self.value(old.input)?,
            linears: old.linears.iter().filter_map(|id| self.linear(*id)).collect(),
            role: self.role(&old.role).unwrap_or(SiteRole::Other),
            ..old.clone()
        })
    }

    fn role(&self, old: &SiteRole) -> Option<SiteRole> {
        Some(match old {
            SiteRole::Norm { node } => SiteRole::Norm { node: self.node(*node)? },
            SiteRole::AttentionOutput { attention, value } => {
                let (attention, value) = (self.attention(*attention)?, self.part(value)?);
                SiteRole::AttentionOutput { attention, value }
            }
            SiteRole::GatedMlp { up } => SiteRole::GatedMlp { up: self.part(up)? },
            SiteRole::Other => SiteRole::Other,
        })
    }

    fn site_of_heads(&self, layout: &Layout, id: AttentionId) -> Option<AttentionSite> {
        let old = layout.attention(id);
        let head_transform = match &old.head_transform {
            Ok(HeadTransform::Folded { query, key }) => {
                let parts = self.part(query).zip(self.part(key));
                let folded = parts.map(|(query, key)| HeadTransform::Folded { query, key });
                folded.ok_or_else(|| "its layers are outside of the block".to_owned())
            }
            other => other.clone(),
        };
        Some(AttentionSite { node: self.node(old.node)?, head_transform, ..old.clone() })
    }

    fn block(&self, old: &Block, n_sites: usize) -> Option<Block> {
        Some(Block {
            input: self.value(old.input)?,
            output: self.value(old.output)?,
            nodes: old.nodes.iter().filter_map(|id| self.node(*id)).collect(),
            sites: (0..n_sites).map(SiteId).collect(),
            attentions: (0..self.attentions.len()).map(AttentionId).collect(),
        })
    }
}
