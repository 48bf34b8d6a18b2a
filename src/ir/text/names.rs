//! The names that values have in a file or text.

use std::collections::{HashMap, HashSet};

use crate::{Graph, ValueId};

/// Names for the values of one graph: their own, except that in a subgraph a captured value is
/// called as the enclosing graph calls it, and a value that this would hide gets another name.
#[derive(Debug, Default)]
pub struct Names {
    changed: HashMap<ValueId, String>,
}

impl Names {
    /// Names for a graph that captures nothing.
    pub fn outermost() -> Self {
        Self::default()
    }

    /// Names for `inner`, a subgraph of a node of `outer`.
    pub fn nested(&self, outer: &Graph, inner: &Graph) -> Self {
        let mut changed: HashMap<ValueId, String> =
            inner.captures.iter().map(|c| (c.inner, self.get(outer, c.outer).to_owned())).collect();
        let captured: HashSet<String> = changed.values().cloned().collect();
        for name in &captured {
            let Some(hidden) = inner.find_value(name).filter(|id| !changed.contains_key(id)) else {
                continue;
            };
            let is_taken = |n: &String| captured.contains(n) || inner.find_value(n).is_some();
            let free = (1..).map(|i| format!("{name}_{i}")).find(|n| !is_taken(n));
            changed.extend(free.map(|n| (hidden, n)));
        }
        Self { changed }
    }

    /// The name of a value of the graph that these names are for.
    pub fn get<'a>(&'a self, graph: &'a Graph, id: ValueId) -> &'a str {
        self.changed.get(&id).map_or(&graph.value(id).name, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capture, ValueType};

    #[test]
    fn a_captured_value_has_the_name_that_it_has_outside() {
        let mut outer = Graph::new("outer");
        let x = outer.new_value("renamed", ValueType::Unknown);
        let mut inner = Graph::new("inner");
        let captured = inner.new_value("x", ValueType::Unknown);
        let local = inner.new_value("renamed", ValueType::Unknown);
        inner.captures.push(Capture { inner: captured, outer: x });
        let names = Names::outermost().nested(&outer, &inner);
        assert_eq!(names.get(&inner, captured), "renamed");
        assert_eq!(names.get(&inner, local), "renamed_1");
    }
}
