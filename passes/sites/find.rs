//! Putting the layout together.

use std::collections::HashSet;

use planish_ir::{Graph, Model, NodeId};
use planish_kernels::infer::{Facts, InferError, infer};

use super::attention::attention_site;
use super::blocks::find_blocks;
use super::head::find_head;
use super::linears::{is_router, linear_layer, reason_against};
use super::roles::role_of;
use super::stream::Stream;
use super::{
    AttentionId, Block, Head, Layout, LeftAlone, LinearId, LinearLayer, Site, SiteId, SiteRole,
};

impl Layout {
    /// Finds blocks, sites, attentions and head of a canonical model.
    ///
    /// # Errors
    /// If the shapes in the graph contradict each other, or it has a cycle.
    pub fn new(model: &Model) -> Result<Self, InferError> {
        let facts = infer(model)?;
        let graph = &model.graph;
        let order = graph.topological_order().unwrap_or_default();
        let stream = Stream::find(graph, &facts, &order);
        let head = stream.as_ref().and_then(|stream| find_head(graph, &stream.chain));
        let root = stream.as_ref().and_then(|stream| graph.producer(*stream.chain.first()?));
        let embedding = root.map(|(node, _)| node);
        let mut layout = Self { head, embedding, ..Self::default() };
        layout.find_linears(graph, &order, stream.as_ref());
        layout.find_sites();
        layout.find_attentions(graph, &facts, &order);
        layout.find_roles(graph);
        if let Some(stream) = stream {
            layout.find_blocks(graph, &stream);
        }
        Ok(layout)
    }

    fn find_linears(&mut self, graph: &Graph, order: &[NodeId], stream: Option<&Stream>) {
        let head = self.head.as_ref().map(|head| head.node);
        for id in order.iter().filter(|id| Some(**id) != head) {
            let node = graph.node(*id);
            let depends = stream.is_none_or(|stream| stream.cone.is_read_by(node));
            match (reason_against(graph, node), linear_layer(graph, *id)) {
                (Some(reason), _) => self.leave_alone(graph, *id, reason),
                (None, Some(_)) if !depends => {
                    self.leave_alone(graph, *id, "it does not depend on the embedding".to_owned());
                }
                (None, Some(linear)) if is_router(graph, &linear) => {
                    self.leave_alone(
                        graph,
                        *id,
                        "the largest of its outputs are picked".to_owned(),
                    );
                }
                (None, Some(linear)) => self.linears.push(linear),
                (None, None) => {}
            }
        }
    }

    fn leave_alone(&mut self, graph: &Graph, node: NodeId, reason: String) {
        self.left_alone.push(LeftAlone { node: graph.node(node).describe(), reason });
    }

    fn find_sites(&mut self) {
        for (index, linear) in self.linears.iter().enumerate() {
            let found = self.sites.iter_mut().rev().find(|site| site.input == linear.input);
            match found {
                Some(site) => {
                    site.linears.push(LinearId(index));
                    site.n_parts += linear.parts.len();
                }
                None => self.sites.push(new_site(linear, LinearId(index))),
            }
        }
    }

    fn find_attentions(&mut self, graph: &Graph, facts: &Facts, order: &[NodeId]) {
        for id in order.iter().filter(|id| graph.node(**id).is("Attention")) {
            match attention_site(graph, facts, &self.linears, *id) {
                Ok(attention) => self.attentions.push(attention),
                Err(reason) => self.leave_alone(graph, *id, reason),
            }
        }
    }

    fn find_roles(&mut self, graph: &Graph) {
        let roles: Vec<SiteRole> =
            self.sites.iter().map(|site| role_of(graph, self, site)).collect();
        self.sites.iter_mut().zip(roles).for_each(|(site, role)| site.role = role);
    }

    fn find_blocks(&mut self, graph: &Graph, stream: &Stream) {
        let linears: HashSet<NodeId> = self.linears.iter().map(|linear| linear.node).collect();
        let has_linear = |nodes: &[NodeId]| nodes.iter().any(|node| linears.contains(node));
        for range in find_blocks(graph, stream, has_linear) {
            let ends = stream.chain.get(range.start).zip(stream.chain.get(range.end));
            let Some((input, output)) = ends else { continue };
            let nodes: Vec<NodeId> = stream.segments[range].concat();
            let members: HashSet<NodeId> = nodes.iter().copied().collect();
            let in_block = |site: &Site| members.contains(&self.linear(site.linears[0]).node);
            let sites = self.site_ids().filter(|id| in_block(self.site(*id))).collect();
            let attentions = (0..self.attentions.len()).map(AttentionId);
            let attentions =
                attentions.filter(|id| members.contains(&self.attention(*id).node)).collect();
            self.blocks.push(Block { input: *input, output: *output, nodes, sites, attentions });
        }
    }

    /// What to call a site in a message: by its first layer.
    pub fn describe_site(&self, graph: &Graph, id: SiteId) -> String {
        let first = self.site(id).linears.first();
        let layer = first.map_or_else(String::new, |linear| self.describe_linear(graph, *linear));
        format!("the site of {layer}")
    }

    /// What to call a linear layer in a message.
    pub fn describe_linear(&self, graph: &Graph, id: LinearId) -> String {
        let linear = self.linear(id);
        match graph.producer(linear.output) {
            Some((node, _)) if !graph.contains_node(linear.node) => graph.node(node).describe(),
            _ => graph.node(linear.node).describe(),
        }
    }
}

fn new_site(linear: &LinearLayer, id: LinearId) -> Site {
    Site {
        input: linear.input,
        channels: linear.in_features,
        linears: vec![id],
        n_parts: linear.parts.len(),
        role: SiteRole::Other,
    }
}

impl Head {
    /// The head's hidden size and vocabulary, if its weight is still a constant.
    pub fn sizes(&self, graph: &Graph) -> Option<(usize, usize)> {
        let [rows, columns] = graph.constant(self.weight)?.shape()[..] else { return None };
        Some(if self.transpose.is_some() { (columns, rows) } else { (rows, columns) })
    }
}
