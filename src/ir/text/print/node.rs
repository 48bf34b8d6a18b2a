//! Nodes.

use super::graph::Scope;
use super::literal::word;
use super::{Printer, attribute};
use crate::{Node, ValueId};

/// `[name] outputs = domain.Op:overload <attributes> (inputs)`, the attributes last if they hold
/// graphs.
pub(super) fn print(node: &Node, scope: &Scope, printer: &mut Printer) {
    if !node.name.is_empty() {
        printer.push(&format!("[{}] ", word(&node.name)));
    }
    printer.push(&names(&node.outputs, scope));
    printer.push(if node.outputs.is_empty() { "= " } else { " = " });
    printer.push(&operator(node));
    let inputs = format!(" ({})", names(&node.inputs, scope));
    if node.attributes.values().any(|a| !a.graphs().is_empty()) {
        printer.push(&inputs);
        print_attributes(node, scope, printer);
    } else {
        print_attributes(node, scope, printer);
        printer.push(&inputs);
    }
}

fn names(ids: &[Option<ValueId>], scope: &Scope) -> String {
    let name = |id: &Option<ValueId>| id.map_or("\"\"".to_owned(), |id| scope.name(id));
    ids.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn operator(node: &Node) -> String {
    let mut text = String::new();
    if !node.domain.is_empty() {
        let parts: Vec<String> = node.domain.split('.').map(word).collect();
        text = format!("{}.", parts.join("."));
    }
    text.push_str(&word(&node.op_type));
    if !node.overload.is_empty() {
        text.push_str(&format!(":{}", word(&node.overload)));
    }
    text
}

fn print_attributes(node: &Node, scope: &Scope, printer: &mut Printer) {
    for (i, (name, value)) in node.attributes.iter().enumerate() {
        printer.push(if i == 0 { " <" } else { ", " });
        attribute::print(name, value, scope, printer);
    }
    if !node.attributes.is_empty() {
        printer.push(">");
    }
}
