//! Attributes.

use super::graph::{self, Scope};
use super::literal::{self, quoted_bytes, word};
use super::{Printer, tensor, types};
use crate::text::{ATTRIBUTE_TYPES, ENCODED};
use crate::{Attribute, Tensor};

/// `name = value`, with the type where the value does not show it.
pub(super) fn print(name: &str, value: &Attribute, scope: &Scope, printer: &mut Printer) {
    printer.push(&word(name));
    if let Some(code) = needed_type(value) {
        let known = ATTRIBUTE_TYPES.iter().find(|(c, _)| *c == code);
        printer.push(&known.map_or(String::new(), |(_, name)| format!(": {name}")));
    }
    printer.push(" = ");
    match value {
        Attribute::Graph(inner) => graph::print(inner, &scope.nested(inner), printer),
        Attribute::Graphs(inner) => {
            printer.push("[");
            for (i, inner) in inner.iter().enumerate() {
                printer.push(if i == 0 { "" } else { ", " });
                graph::print(inner, &scope.nested(inner), printer);
            }
            printer.push("]");
        }
        plain => {
            let text = plain_text(plain, printer);
            printer.push(&text);
        }
    }
}

/// ONNX's number of the type, for references and empty lists.
fn needed_type(value: &Attribute) -> Option<i32> {
    match value {
        Attribute::Ref(_, code) => Some(*code),
        Attribute::Floats(list) if list.is_empty() => Some(6),
        Attribute::Ints(list) if list.is_empty() => Some(7),
        Attribute::Strings(list) if list.is_empty() => Some(8),
        Attribute::Tensors(list) if list.is_empty() => Some(9),
        Attribute::Graphs(list) if list.is_empty() => Some(10),
        _ => None,
    }
}

fn plain_text(value: &Attribute, printer: &Printer) -> String {
    match value {
        Attribute::Float(value) => literal::f32(*value),
        Attribute::Int(value) => value.to_string(),
        Attribute::String(bytes) => quoted_bytes(bytes),
        Attribute::Tensor(value) => tensor_text(value, printer),
        Attribute::Floats(values) => list(values, |v| literal::f32(*v)),
        Attribute::Ints(values) => list(values, i64::to_string),
        Attribute::Strings(values) => list(values, |v| quoted_bytes(v)),
        Attribute::Tensors(values) => list(values, |v| tensor_text(v, printer)),
        Attribute::Ref(name, _) => format!("@{}", word(name)),
        Attribute::Other(bytes) => format!("{ENCODED}(\"{}\")", literal::hex(bytes)),
        Attribute::Graph(_) | Attribute::Graphs(_) => String::new(),
    }
}

fn list<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", "))
}

/// Elided data leaves empty braces.
fn tensor_text(value: &Tensor, printer: &Printer) -> String {
    let is_elided = value.n_elements() > printer.options.max_elements;
    let data = if is_elided { "{}".to_owned() } else { tensor::data(value) };
    format!("{} {data}", types::of_tensor(value))
}
