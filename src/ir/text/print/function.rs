//! Model-local functions.

use super::graph::{self, Scope};
use super::literal::{name, word};
use super::{Printer, attribute, opset_imports, text_entry};
use crate::{Function, ValueId};

/// `<domain, opsets> name <attributes> (inputs) => (outputs) <types> { nodes }`
pub(super) fn print(function: &Function, printer: &mut Printer) {
    let mut entries = vec![format!("domain: {}", super::quoted(&function.domain))];
    entries.extend(text_entry("overload", &function.overload));
    entries.push(format!("opset_import: {}", opset_imports(&function.opset_imports)));
    entries.extend(text_entry("doc_string", &function.doc));
    printer.push("<");
    printer.lines(&entries);
    printer.push(">\n");
    printer.push(&name(&function.name));
    let scope = Scope::outermost(&function.body);
    print_attributes(function, &scope, printer);
    let names = |ids: &[ValueId]| ids.iter().map(|id| scope.name(*id)).collect::<Vec<_>>();
    printer.list(" (", &names(&function.body.inputs), ")");
    printer.list(" => (", &names(&function.body.outputs), ")");
    graph::print_values(&scope, true, printer);
    graph::print_nodes(&scope, printer);
}

fn print_attributes(function: &Function, scope: &Scope, printer: &mut Printer) {
    if function.attributes.is_empty() && function.attribute_defaults.is_empty() {
        return;
    }
    printer.push(" <");
    let required: Vec<String> = function.attributes.iter().map(|a| word(a)).collect();
    printer.push(&required.join(", "));
    for (i, (key, value)) in function.attribute_defaults.iter().enumerate() {
        printer.push(if i == 0 && required.is_empty() { "" } else { ", " });
        attribute::print(key, value, scope, printer);
    }
    printer.push(">");
}
