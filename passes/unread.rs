//! Dropping data as soon as nothing needs it.

use planish_ir::{Graph, ValueId};

/// Removes a constant that nothing reads any more, and so its data.
pub(crate) fn remove_unread(graph: &mut Graph, value: ValueId) {
    let kept = graph.is_input(value) || graph.is_output(value);
    if !kept && graph.users(value).is_empty() && graph.producer(value).is_none() {
        graph.remove_value(value);
    }
}
