//! What writes into the residual stream and what reads it: whether the basis of the stream can be
//! another, as no node sees the stream but linear layers and norms that are the same in any.

use std::collections::HashSet;

use planish_ir::{Graph, Node, NodeId, ValueId};

use super::{Layout, LinearId};

/// The nodes around the residual stream of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidualStream {
    /// Its channels.
    pub channels: usize,
    /// The `Gather` that looks the embeddings up; its table's rows are what the stream begins with.
    pub embedding: NodeId,
    /// Layers whose output is added to the stream, those in a chain of additions among them.
    pub writers: Vec<LinearId>,
    /// Layers that read the stream, most behind a norm.
    pub readers: Vec<Reader>,
}

/// What reads the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The `RMSNormalization` between the stream and what reads it.
    pub norm: Option<NodeId>,
    /// The linear layers.
    pub linears: Vec<LinearId>,
    /// Whether the head is among what reads it.
    pub head: bool,
}

impl Layout {
    /// Finds what writes and reads the residual stream.
    ///
    /// # Errors
    /// A sentence with the node that sees more of the stream than a linear layer or an
    /// `RMSNormalization` does.
    pub fn residual_stream(&self, graph: &Graph) -> Result<ResidualStream, String> {
        let block = self.blocks.first().ok_or("no repeated blocks were found")?;
        let (embedding, first, channels) = find_embedding(graph, block.input)?;
        let stream = ResidualStream { channels, embedding, writers: vec![], readers: vec![] };
        let mut walk = Walk { graph, layout: self, stream };
        walk.follow(first)?;
        if !walk.stream.readers.iter().any(|reader| reader.head) {
            return Err("the head does not read the residual stream".to_owned());
        }
        Ok(walk.stream)
    }
}

/// The lookup that `value` comes from, its output, and its channels.
fn find_embedding(graph: &Graph, value: ValueId) -> Result<(NodeId, ValueId, usize), String> {
    let mut value = value;
    loop {
        let none = || format!("\"{}\" comes from no table", graph.value(value).name);
        let (id, _) = graph.producer(value).ok_or_else(none)?;
        let node = graph.node(id);
        let table = node.input(0).and_then(|table| graph.constant(table));
        let is_lookup = node.is("Gather") && node.int("axis", 0) == 0;
        if let Some(&[_, channels]) = table.filter(|_| is_lookup).map(|table| table.shape()) {
            return Ok((id, value, channels));
        }
        value = scaled(graph, node).ok_or_else(|| against(node, "is begun"))?;
    }
}

/// What a node multiplies or divides by one constant number, or casts.
fn scaled(graph: &Graph, node: &Node) -> Option<ValueId> {
    let is_number = |value: ValueId| graph.constant(value).is_some_and(|t| t.n_elements() == 1);
    let (a, b) = (node.input(0), node.input(1));
    match () {
        () if node.is("Cast") || node.is("Identity") => a,
        () if node.is("Mul") && a.is_some_and(is_number) => b,
        () if (node.is("Mul") || node.is("Div")) && b.is_some_and(is_number) => a,
        () => None,
    }
}

fn against(node: &Node, what: &str) -> String {
    format!("it {what} by {}, whose channels stand for themselves", node.describe())
}

/// A walk along the stream.
struct Walk<'a> {
    graph: &'a Graph,
    layout: &'a Layout,
    stream: ResidualStream,
}

impl Walk<'_> {
    /// Follows the stream from its first value through additions to all that read it.
    fn follow(&mut self, first: ValueId) -> Result<(), String> {
        let mut open = vec![first];
        let mut seen = HashSet::from([first]);
        // What was added to the stream, and may turn out to be of it.
        let mut added = Vec::new();
        while let Some(value) = open.pop() {
            if self.graph.is_output(value) {
                return Err(format!(
                    "its value \"{}\" leaves the graph",
                    self.graph.value(value).name
                ));
            }
            for next in self.visit(value, &mut added)? {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        let mut added: Vec<ValueId> = added.into_iter().filter(|v| !seen.contains(v)).collect();
        added.sort_unstable();
        added.dedup();
        added.into_iter().try_for_each(|value| self.write(value))
    }

    /// Looks at all that reads a value of the stream; returns the values of the stream behind it.
    fn visit(&mut self, value: ValueId, added: &mut Vec<ValueId>) -> Result<Vec<ValueId>, String> {
        let (graph, mut next, mut linears) = (self.graph, Vec::new(), Vec::new());
        for (id, index) in graph.users(value) {
            let node = graph.node(id);
            match () {
                () if node.is("Shape") => {}
                () if node.is("Add") => {
                    added.extend(node.input(1 - index.min(1)));
                    next.extend(node.output(0));
                }
                () if scaled(graph, node) == Some(value) => next.extend(node.output(0)),
                () if node.is("RMSNormalization") && index == 0 => self.read_through(id)?,
                () => linears.push(self.linear(id, value).ok_or_else(|| against(node, "is read"))?),
            }
        }
        if !linears.is_empty() {
            self.stream.readers.push(Reader { norm: None, linears, head: false });
        }
        Ok(next)
    }

    /// The layer whose product this is, if it reads `value`.
    fn linear(&self, id: NodeId, value: ValueId) -> Option<LinearId> {
        let is_it = |l: &super::LinearLayer| l.node == id && l.input == value;
        self.layout.linears.iter().position(is_it).map(LinearId)
    }

    /// A norm may be read by linear layers and the head alone.
    fn read_through(&mut self, norm: NodeId) -> Result<(), String> {
        let graph = self.graph;
        let node = graph.node(norm);
        let constant = node.input(1).is_none_or(|weight| graph.constant(weight).is_some());
        let output = node.output(0).filter(|output| constant && !graph.is_output(*output));
        let output = output.filter(|_| node.int("axis", -1) == -1);
        let output = output.ok_or_else(|| against(node, "is read"))?;
        let mut reader = Reader { norm: Some(norm), linears: Vec::new(), head: false };
        for (id, _) in graph.users(output) {
            let node = graph.node(id);
            match self.linear(id, output) {
                Some(linear) => reader.linears.push(linear),
                None if self.layout.head.as_ref().is_some_and(|head| head.node == id) => {
                    reader.head = true;
                }
                None if node.is("Shape") => {}
                None => return Err(against(node, "is read")),
            }
        }
        self.stream.readers.push(reader);
        Ok(())
    }

    /// What is added to the stream must come from linear layers, and go nowhere else.
    fn write(&mut self, value: ValueId) -> Result<(), String> {
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            let position = self.layout.linears.iter().position(|linear| linear.output == value);
            match position {
                Some(index) => self.stream.writers.push(LinearId(index)),
                None => open.extend(self.behind_written(value)?),
            }
            if self.graph.users(value).len() != 1 || self.graph.is_output(value) {
                let name = &self.graph.value(value).name;
                return Err(format!("\"{name}\" is added to it and read elsewhere"));
            }
        }
        Ok(())
    }

    /// What a value that is added to the stream, and that no layer gives, is a sum or a multiple of.
    fn behind_written(&self, value: ValueId) -> Result<Vec<ValueId>, String> {
        let graph = self.graph;
        let outside = || format!("\"{}\", from outside, is added to it", graph.value(value).name);
        let (id, _) = graph.producer(value).ok_or_else(outside)?;
        let node = graph.node(id);
        if node.is("Add") {
            return Ok(node.inputs.iter().flatten().copied().collect());
        }
        scaled(graph, node).map(|x| vec![x]).ok_or_else(|| against(node, "is written"))
    }
}
