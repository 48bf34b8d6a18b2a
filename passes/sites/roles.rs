//! What stands before a site.

use planish_ir::{Graph, Node, NodeId, ValueId};

use super::attention::{find_part, is_read_once};
use super::{AttentionId, Layout, NORM_BIAS, Site, SiteId, SiteRole};

impl Layout {
    /// Whether a shift of the site's channels (its layers read x − δ in the place of x) merges: the
    /// norm before it has a bias to take −δ in, and each of its layers has one for δ·W.
    pub fn takes_shift(&self, graph: &Graph, id: SiteId) -> bool {
        let site = self.site(id);
        let SiteRole::Norm { node } = &site.role else { return false };
        let has_bias = graph.node(*node).input(NORM_BIAS).is_some();
        has_bias && site.linears.iter().all(|linear| self.linear(*linear).bias.is_some())
    }
}

/// The role of a site. Whatever else reads the site's input, or a value on the way to it, would
/// see a merged scale or transform: then nothing can be merged.
pub(super) fn role_of(graph: &Graph, layout: &Layout, site: &Site) -> SiteRole {
    // What reads the size of a value sees neither.
    let readers = graph.users(site.input).into_iter();
    let n_readers = readers.filter(|(reader, _)| !graph.node(*reader).is("Shape")).count();
    let reads_alone = n_readers == site.linears.len();
    let Some((id, 0)) = graph.producer(site.input).filter(|_| reads_alone) else {
        return SiteRole::Other;
    };
    if graph.is_output(site.input) {
        return SiteRole::Other;
    }
    let node = graph.node(id);
    norm(graph, id)
        .or_else(|| attention_output(graph, layout, site, id))
        .or_else(|| gated_mlp(graph, layout, node))
        .unwrap_or(SiteRole::Other)
}

fn norm(graph: &Graph, id: NodeId) -> Option<SiteRole> {
    let node = graph.node(id);
    let is_norm = node.is("RMSNormalization") || node.is("LayerNormalization");
    let last_axis = node.int("axis", -1) == -1;
    let parameters_constant =
        node.inputs.iter().skip(1).flatten().all(|v| graph.constant(*v).is_some());
    (is_norm && last_axis && parameters_constant).then_some(SiteRole::Norm { node: id })
}

fn attention_output(graph: &Graph, layout: &Layout, site: &Site, id: NodeId) -> Option<SiteRole> {
    let index = layout.attentions.iter().position(|attention| attention.node == id)?;
    let attention = &layout.attentions[index];
    let value = graph.node(id).input(2).filter(|value| is_read_once(graph, *value))?;
    let part = find_part(&layout.linears, value)?;
    let fits = site.channels == attention.q_heads * attention.v_head_size
        && part.columns.len() == attention.kv_heads * attention.v_head_size;
    fits.then_some(SiteRole::AttentionOutput { attention: AttentionId(index), value: part })
}

/// `Mul(f(gate), up)`: the input that comes straight from a linear layer, the second if both do.
fn gated_mlp(graph: &Graph, layout: &Layout, node: &Node) -> Option<SiteRole> {
    let inputs: [Option<ValueId>; 2] =
        if node.is("Mul") { [node.input(1), node.input(0)] } else { [None, None] };
    let up = inputs.into_iter().flatten().find_map(|value| {
        is_read_once(graph, value).then(|| find_part(&layout.linears, value)).flatten()
    })?;
    Some(SiteRole::GatedMlp { up })
}
