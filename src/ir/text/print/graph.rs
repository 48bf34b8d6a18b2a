//! Graphs and subgraphs.

use super::{Printer, literal, node, tensor, types};
use crate::text::names::Names;
use crate::{Graph, NodeId, TensorType, Value, ValueId, ValueType};

/// A graph with the names of its values.
pub(super) struct Scope<'a> {
    pub(super) graph: &'a Graph,
    pub(super) names: Names,
}

impl<'a> Scope<'a> {
    pub(super) fn outermost(graph: &'a Graph) -> Self {
        Self { graph, names: Names::outermost() }
    }

    pub(super) fn nested<'b>(&self, inner: &'b Graph) -> Scope<'b> {
        Scope { graph: inner, names: self.names.nested(self.graph, inner) }
    }

    /// The value's name as it stands in the text.
    pub(super) fn name(&self, id: ValueId) -> String {
        literal::name(self.names.get(self.graph, id))
    }

    fn typed(&self, id: ValueId) -> String {
        format!("{}{}", types::prefix(&self.graph.value(id).ty), self.name(id))
    }

    /// An input, with its default if it has one.
    pub(super) fn input(&self, id: ValueId) -> String {
        match &self.graph.value(id).constant {
            None => self.typed(id),
            Some(data) => {
                let ty = types::of_tensor(data);
                format!("{ty} {} = {}", self.name(id), tensor::data(data))
            }
        }
    }
}

/// `name (inputs) => (outputs) <initializers and types> { nodes }`
pub(super) fn print(graph: &Graph, scope: &Scope, printer: &mut Printer) {
    printer.push(&literal::name(&graph.name));
    let inputs: Vec<String> = graph.inputs.iter().map(|id| scope.input(*id)).collect();
    let outputs: Vec<String> = graph.outputs.iter().map(|id| scope.typed(*id)).collect();
    printer.list(" (", &inputs, ")");
    printer.list(" => (", &outputs, ")");
    print_values(scope, false, printer);
    print_nodes(scope, printer);
}

/// The initializers and declared types, one a line. The inputs and outputs of a function have
/// no types in its head, so theirs are listed here.
pub(super) fn print_values(scope: &Scope, is_function: bool, printer: &mut Printer) {
    let graph = scope.graph;
    let mut lines: Vec<(String, Option<String>)> = Vec::new();
    for id in graph.value_ids() {
        let value = graph.value(id);
        let is_interface = graph.is_input(id) || graph.is_output(id);
        match &value.constant {
            Some(data) if !graph.is_input(id) => {
                let head = format!("{} {}", types::of_tensor(data), scope.name(id));
                if data.n_elements() <= printer.options.max_elements {
                    lines.push((format!("{head} = {}", tensor::data(data)), None));
                } else {
                    lines.push((head, Some(format!("elided: {} elements", data.n_elements()))));
                }
            }
            _ => {
                let is_listed = printer.options.value_info && is_listed(value);
                if is_listed && (is_function || !is_interface) {
                    lines.push((scope.typed(id), None));
                }
            }
        }
    }
    if lines.is_empty() {
        printer.push(" ");
    } else {
        print_commented(&lines, printer);
    }
}

fn is_listed(value: &Value) -> bool {
    value.declared && value.ty != ValueType::Unknown
}

fn print_commented(lines: &[(String, Option<String>)], printer: &mut Printer) {
    printer.new_line();
    printer.push("<");
    printer.indent += 1;
    for (i, (line, comment)) in lines.iter().enumerate() {
        printer.new_line();
        printer.push(line);
        if i + 1 < lines.len() {
            printer.push(",");
        }
        if let Some(comment) = comment {
            printer.push(&format!("  # {comment}"));
        }
    }
    printer.indent -= 1;
    printer.new_line();
    printer.push(">");
    printer.new_line();
}

/// The nodes between braces, in topological order; in order of their ids if there is a cycle.
pub(super) fn print_nodes(scope: &Scope, printer: &mut Printer) {
    let graph = scope.graph;
    let order: Vec<NodeId> =
        graph.topological_order().unwrap_or_else(|_| graph.node_ids().collect());
    printer.push("{");
    printer.indent += 1;
    for id in order {
        printer.new_line();
        node::print(graph.node(id), scope, printer);
        if printer.options.types {
            print_types(graph, id, printer);
        }
    }
    printer.indent -= 1;
    printer.new_line();
    printer.push("}");
}

fn print_types(graph: &Graph, id: NodeId, printer: &mut Printer) {
    let outputs = graph.node(id).outputs.iter().flatten();
    let known: Option<Vec<&TensorType>> = outputs.map(|v| graph.value(*v).ty.as_tensor()).collect();
    if let Some(known) = known.filter(|k| !k.is_empty()) {
        let texts: Vec<String> = known.into_iter().map(types::tensor_type).collect();
        printer.push(&format!("  # {}", texts.join(", ")));
    }
}
