//! Local rewrites: a pattern, a check, a replacement.

use planish_ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::infer::Facts;

use crate::pass::{PassContext, PassError};
use crate::pattern::{Match, Pattern, match_value};

/// A local rewrite. It reads as: where the pattern matches and the check in `replace` holds, the
/// matched value is replaced.
pub struct Rule {
    /// Verb first.
    pub name: &'static str,
    /// The formula to look for, from the root down.
    pub pattern: fn() -> Pattern,
    /// Builds the replacement of the root, or says why this match is left alone.
    pub replace: fn(&mut Rewriter, &Match) -> Result<ValueId, String>,
}

/// Builds replacements: the graph, and what shape inference knew before the pass.
pub struct Rewriter<'a> {
    /// The graph to add nodes to.
    pub graph: &'a mut Graph,
    /// Types and shapes; values that the pass itself made are known only as far as it told.
    pub facts: &'a mut Facts,
    /// The value to be replaced.
    pub root: ValueId,
}

impl Rewriter<'_> {
    /// Adds a node with one output named after `hint`, which takes over the facts of `like`.
    pub fn add_like(&mut self, hint: &str, like: ValueId, node: Node) -> ValueId {
        let value = self.graph.add_op(hint, node);
        let fact = self.facts.get(like);
        self.facts.set(value, fact);
        value
    }

    /// Adds the replacement of the root: named after it, with its facts.
    pub fn add_root(&mut self, node: Node) -> ValueId {
        let name = self.graph.value(self.root).name.clone();
        let node_name = self.graph.producer_node(self.root).map(|n| n.name.clone());
        let node = node.with_name(node_name.unwrap_or_default());
        self.add_like(&name, self.root, node)
    }

    /// An initializer.
    pub fn constant(&mut self, hint: &str, tensor: Tensor) -> ValueId {
        let value = self.graph.add_constant(hint, tensor);
        let fact =
            planish_kernels::Fact::of_constant(self.graph.constant(value).expect("just added"));
        self.facts.set(value, fact);
        value
    }

    /// The name of a value, for hints and messages.
    pub fn name(&self, value: ValueId) -> String {
        self.graph.value(value).name.clone()
    }
}

/// How many nodes of a pattern must agree for its failure to be worth a note.
const NEAR_MISS: usize = 3;

/// Applies rules to every node, users before producers, until none of them fires any more.
///
/// # Errors
/// If shape inference fails.
pub fn apply(
    model: &mut Model,
    context: &mut PassContext,
    rules: &[Rule],
) -> Result<usize, PassError> {
    let mut n_rewrites = 0;
    loop {
        let sweep = sweep(model, context, rules)?;
        let is_first = n_rewrites == 0;
        n_rewrites += sweep.n_rewrites;
        model.graph.remove_dead();
        if is_first {
            // What another match took away was no miss.
            let left = sweep.notes.into_iter().filter(|(v, _)| model.graph.contains_value(*v));
            left.for_each(|(_, note)| context.note(note));
        }
        if sweep.n_rewrites == 0 {
            return Ok(n_rewrites);
        }
    }
}

/// What one visit of every node came to.
struct Sweep {
    n_rewrites: usize,
    notes: Vec<(ValueId, String)>,
}

fn sweep(model: &mut Model, context: &PassContext, rules: &[Rule]) -> Result<Sweep, PassError> {
    let mut facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut order: Vec<NodeId> =
        graph.topological_order().map_err(|e| PassError::Other(e.to_string()))?;
    order.reverse();
    let patterns: Vec<Pattern> = rules.iter().map(|rule| (rule.pattern)()).collect();
    let mut result = Sweep { n_rewrites: 0, notes: Vec::new() };
    for node in order {
        for (rule, pattern) in rules.iter().zip(&patterns) {
            match try_rule(graph, &mut facts, rule, pattern, node) {
                Ok(()) => result.n_rewrites += 1,
                Err(note) => result.notes.extend(note),
            }
        }
    }
    Ok(result)
}

/// Applies `rule` at `node`'s first output; the error is a note if it nearly fired.
fn try_rule(
    graph: &mut Graph,
    facts: &mut Facts,
    rule: &Rule,
    pattern: &Pattern,
    node: NodeId,
) -> Result<(), Option<(ValueId, String)>> {
    let root = match graph.contains_node(node) {
        true => graph.node(node).output(0).ok_or(None)?,
        false => return Err(None),
    };
    if graph.users(root).is_empty() && !graph.is_output(root) {
        return Err(None);
    }
    let found = match_value(graph, pattern, root).map_err(|miss| {
        let name = &graph.value(root).name;
        let note = || (root, format!("{} at \"{name}\": {}", rule.name, miss.reason));
        (miss.n_matched >= NEAR_MISS).then(note)
    })?;
    let name = graph.value(root).name.clone();
    let mut rewriter = Rewriter { graph, facts, root };
    let replacement = (rule.replace)(&mut rewriter, &found)
        .map_err(|reason| Some((root, format!("{} at \"{name}\": {reason}", rule.name))))?;
    graph.replace_value(root, replacement);
    Ok(())
}
