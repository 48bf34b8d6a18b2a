//! Matching a pattern against the values that lead to one value.

use planish_ir::{Graph, NodeId, Tensor, ValueId};

use super::{Kind, Pattern};

/// A successful match: the remembered values and the nodes that were walked over.
#[derive(Clone, Debug, Default)]
pub struct Match {
    values: Vec<(&'static str, ValueId)>,
    /// Nodes of the pattern, outermost first.
    pub nodes: Vec<NodeId>,
}

impl Match {
    /// The value remembered under `name`.
    ///
    /// # Panics
    /// If the pattern has no such name on the matched path: a bug in the rule.
    pub fn value(&self, name: &str) -> ValueId {
        self.try_value(name).unwrap_or_else(|| panic!("the pattern has no \"{name}\""))
    }

    /// The value remembered under `name`, if the matched form has it.
    pub fn try_value(&self, name: &str) -> Option<ValueId> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }

    /// The constant remembered under `name`.
    ///
    /// # Panics
    /// As [`Match::value`].
    pub fn constant<'g>(&self, graph: &'g Graph, name: &str) -> &'g Tensor {
        graph.constant(self.value(name)).expect("the pattern asked for a constant")
    }

    /// The number remembered under `name`.
    ///
    /// # Panics
    /// As [`Match::value`].
    pub fn number(&self, graph: &Graph, name: &str) -> f32 {
        as_number(self.constant(graph, name)).expect("the pattern asked for a number")
    }

    /// Whether nobody but the match's own nodes reads the outputs of its inner nodes, so that
    /// they go away when the root is replaced.
    pub fn inner_values_are_private(&self, graph: &Graph) -> bool {
        self.nodes.iter().skip(1).all(|node| {
            graph.node(*node).outputs.iter().flatten().all(|value| {
                !graph.is_output(*value)
                    && graph.users(*value).iter().all(|(user, _)| self.nodes.contains(user))
            })
        })
    }
}

/// The best partial match: how many nodes agreed, and where it ended.
#[derive(Clone, Debug, Default)]
pub struct Miss {
    /// Nodes that agreed before the first that did not.
    pub n_matched: usize,
    /// What was expected and what was there.
    pub reason: String,
}

/// Matches `pattern` against `value`.
///
/// # Errors
/// The furthest point that any form of the pattern reached, and what did not agree there.
pub fn match_value(graph: &Graph, pattern: &Pattern, value: ValueId) -> Result<Match, Miss> {
    let mut matcher = Matcher { graph, state: Match::default(), miss: Miss::default() };
    if matcher.matches(pattern, value) { Ok(matcher.state) } else { Err(matcher.miss) }
}

struct Matcher<'g> {
    graph: &'g Graph,
    state: Match,
    miss: Miss,
}

impl Matcher<'_> {
    fn matches(&mut self, pattern: &Pattern, value: ValueId) -> bool {
        match &*pattern.0 {
            Kind::Any(name) => self.remember(name, value),
            Kind::Named(name, inner) => self.matches(inner, value) && self.remember(name, value),
            Kind::Constant(name) => match self.graph.constant(value) {
                Some(_) => self.remember(name, value),
                None => self.fail(value, "a constant"),
            },
            Kind::Scalar(name) => match self.graph.constant(value).and_then(as_number) {
                Some(_) => self.remember(name, value),
                None => self.fail(value, "a constant of one element"),
            },
            Kind::Number(wanted) => match self.graph.constant(value).and_then(as_number) {
                Some(found) if is_close(found, *wanted) => true,
                _ => self.fail(value, &format!("the number {wanted}")),
            },
            Kind::OneOf(forms) => forms.iter().any(|form| self.attempt(|m| m.matches(form, value))),
            Kind::Op { op_types, inputs, commutes } => {
                self.matches_op(op_types, inputs, *commutes, value)
            }
        }
    }

    fn matches_op(
        &mut self,
        op_types: &[&str],
        inputs: &[Pattern],
        commutes: bool,
        value: ValueId,
    ) -> bool {
        let Some((id, 0)) = self.graph.producer(value) else {
            return self.fail(value, op_types[0]);
        };
        let node = self.graph.node(id);
        if !op_types.iter().any(|op| node.is(op)) || node.inputs.len() < inputs.len() {
            return self.fail(value, op_types[0]);
        }
        let actual: Option<Vec<ValueId>> = node.inputs[..inputs.len()].iter().copied().collect();
        let Some(actual) = actual else { return self.fail(value, "all inputs") };
        self.state.nodes.push(id);
        if self.attempt(|m| m.matches_all(inputs, &actual)) {
            return true;
        }
        commutes && self.attempt(|m| m.matches_all(inputs, &[actual[1], actual[0]]))
    }

    fn matches_all(&mut self, patterns: &[Pattern], values: &[ValueId]) -> bool {
        patterns.iter().zip(values).all(|(pattern, value)| self.matches(pattern, *value))
    }

    /// Tries a form; forgets what it remembered if it fails.
    fn attempt(&mut self, form: impl FnOnce(&mut Self) -> bool) -> bool {
        let saved = (self.state.values.len(), self.state.nodes.len());
        if form(self) {
            return true;
        }
        self.state.values.truncate(saved.0);
        self.state.nodes.truncate(saved.1);
        false
    }

    fn remember(&mut self, name: &'static str, value: ValueId) -> bool {
        match self.state.try_value(name) {
            Some(known) if known == value => true,
            Some(known) => {
                let expected = format!("\"{}\" again", self.graph.value(known).name);
                self.fail(value, &expected)
            }
            None => {
                self.state.values.push((name, value));
                true
            }
        }
    }

    fn fail(&mut self, value: ValueId, expected: &str) -> bool {
        let n_matched = self.state.nodes.len();
        if n_matched >= self.miss.n_matched {
            let found = match self.graph.producer_node(value) {
                Some(node) => node.describe(),
                None => "a constant or input".to_owned(),
            };
            let name = &self.graph.value(value).name;
            self.miss = Miss {
                n_matched,
                reason: format!("expected {expected}, found {found} at \"{name}\""),
            };
        }
        false
    }
}

/// The number that all elements of a small constant are.
pub(crate) fn as_number(tensor: &Tensor) -> Option<f32> {
    if tensor.n_elements() == 0 || tensor.n_elements() > 4096 {
        return None;
    }
    let values = tensor.to_f32_vec().ok()?;
    values.iter().all(|v| *v == values[0]).then_some(values[0])
}

fn is_close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs().max(1.0)
}

#[cfg(test)]
mod tests {
    use planish_ir::{Node, ValueType};

    use super::super::*;
    use super::*;

    fn swish_graph() -> (Graph, ValueId) {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let gate = graph.add_op("gate", Node::new("Sigmoid", vec![Some(x)]));
        let y = graph.add_op("y", Node::new("Mul", vec![Some(gate), Some(x)]));
        graph.outputs.push(y);
        (graph, y)
    }

    #[test]
    fn products_match_in_either_order() {
        let (graph, y) = swish_graph();
        let pattern = any("x") * op("Sigmoid", [any("x")]);
        let found = match_value(&graph, &pattern, y).unwrap();
        assert_eq!(graph.value(found.value("x")).name, "x");
        assert_eq!(found.nodes.len(), 2);
        assert!(found.inner_values_are_private(&graph));
    }

    #[test]
    fn a_miss_names_the_furthest_point() {
        let (graph, y) = swish_graph();
        let pattern = any("x") * op("Sigmoid", [op("Tanh", [any("x")])]);
        let miss = match_value(&graph, &pattern, y).unwrap_err();
        assert_eq!(miss.n_matched, 2);
        assert!(miss.reason.contains("expected Tanh"), "{}", miss.reason);
        assert!(miss.reason.contains("\"x\""), "{}", miss.reason);
    }

    #[test]
    fn a_name_stands_for_one_value() {
        let (mut graph, y) = swish_graph();
        let other = graph.new_value("other", ValueType::Unknown);
        graph.inputs.push(other);
        let (node, _) = graph.producer(y).unwrap();
        graph.set_input(node, 1, Some(other));
        let pattern = any("x") * op("Sigmoid", [any("x")]);
        let miss = match_value(&graph, &pattern, y).unwrap_err();
        assert!(miss.reason.contains("again"), "{}", miss.reason);
    }
}
