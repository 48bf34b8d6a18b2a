//! The clipping ratios of a quantised graph.
use planish_ir::{Graph, Node, NodeId};
use planish_kernels::DOMAIN;

/// The ratios of one quantiser of every block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clips {
    /// What is quantised.
    pub(super) of: String,
    /// (clip_max, clip_min) of each block.
    pub(super) ratios: Vec<[f64; 2]>,
}

impl Clips {
    /// Whether anything is clipped at all.
    pub(super) fn clip(&self) -> bool {
        self.ratios.iter().flatten().any(|ratio| *ratio != 1.0)
    }
}

/// The ratios of the quantisers of activations, keys and values. Within a block quantisers follow
/// from each other, so in topological order the i-th of each block are those of the same site;
/// `labels` name them. Where blocks differ in their number, all are taken together.
pub(super) fn clips(graph: &Graph, order: &[NodeId], labels: &[String]) -> Vec<Clips> {
    let nodes = || order.iter().map(|id| graph.node(*id));
    let attentions: Vec<&Node> = nodes().filter(|n| n.is("Attention")).collect();
    let is_rows = |node: &&Node| node.domain == DOMAIN && node.op_type.ends_with("Quantize");
    let rows: Vec<[f64; 2]> = nodes().filter(is_rows).map(ratios).collect();
    let n_blocks = attentions.len().max(1);
    let n_kinds = if rows.len().is_multiple_of(n_blocks) { rows.len() / n_blocks } else { 1 };
    let label = |kind: usize| match labels.get(kind) {
        Some(label) if labels.len() == n_kinds => label.clone(),
        _ => format!("quantiser {}", kind + 1),
    };
    let mut found: Vec<Clips> = (0..n_kinds)
        .map(|kind| Clips {
            of: label(kind),
            ratios: rows.iter().skip(kind).step_by(n_kinds).copied().collect(),
        })
        .collect();
    for (index, of) in [(1, "keys"), (2, "values")] {
        let quantiser = |node: &&Node| {
            let node = graph.producer_node(node.input(index)?)?;
            node.is_of(DOMAIN, "QuantizeDequantizeHeads").then(|| ratios(node))
        };
        let ratios = attentions.iter().filter_map(quantiser).collect();
        found.push(Clips { of: of.into(), ratios });
    }
    found.retain(|clips| !clips.ratios.is_empty());
    found
}

fn ratios(node: &Node) -> [f64; 2] {
    ["clip_max", "clip_min"].map(|name| f64::from(node.float(name, 1.0)))
}
