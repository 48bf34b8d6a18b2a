//! Printing models and graphs.

mod attribute;
mod function;
mod graph;
mod literal;
mod node;
mod tensor;
mod types;

use crate::{Graph, Model, OpsetImport};
use graph::Scope;
use literal::quoted;

/// What to print.
#[derive(Clone, Copy, Debug)]
pub struct PrintOptions {
    /// Tensors with more elements are elided: their type stands there, their data does not.
    pub max_elements: usize,
    /// Whether the declared types of intermediate values are listed.
    pub value_info: bool,
    /// Whether each node is followed by a comment with the types of what it writes, as far as
    /// they are known.
    pub types: bool,
}

impl Default for PrintOptions {
    fn default() -> Self {
        Self { max_elements: 16, value_info: true, types: false }
    }
}

impl PrintOptions {
    /// Everything that [`super::parse`] needs to read the text back.
    pub fn complete() -> Self {
        Self { max_elements: usize::MAX, ..Self::default() }
    }
}

/// What can be printed.
pub trait Print {
    #[doc(hidden)]
    fn print_to(&self, printer: &mut Printer);
}

/// The text of a model or graph; deterministic.
pub fn print<T: Print + ?Sized>(item: &T, options: &PrintOptions) -> String {
    let mut printer = Printer { text: String::new(), indent: 0, options: *options };
    item.print_to(&mut printer);
    printer.text.push('\n');
    printer.text
}

/// The text so far.
#[doc(hidden)]
#[derive(Debug)]
pub struct Printer {
    text: String,
    indent: usize,
    options: PrintOptions,
}

impl Printer {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Begins a line at the present depth.
    fn new_line(&mut self) {
        self.text.push('\n');
        self.text.push_str(&"   ".repeat(self.indent));
    }

    /// Prints `items` between `open` and `close`: in one line if they are short, else each on
    /// its own.
    fn list(&mut self, open: &str, items: &[String], close: &str) {
        const WIDTH: usize = 90;
        self.push(open);
        let is_short = items.iter().map(|i| i.len() + 2).sum::<usize>() <= WIDTH;
        if is_short && !items.iter().any(|i| i.contains('\n')) {
            self.push(&items.join(", "));
        } else {
            self.lines(items);
        }
        self.push(close);
    }

    /// One line for every item, separated by commas, indented.
    fn lines(&mut self, items: &[String]) {
        self.indent += 1;
        for (i, item) in items.iter().enumerate() {
            self.new_line();
            self.push(item);
            if i + 1 < items.len() {
                self.push(",");
            }
        }
        self.indent -= 1;
        self.new_line();
    }
}

impl Print for Graph {
    fn print_to(&self, printer: &mut Printer) {
        graph::print(self, &Scope::outermost(self), printer);
    }
}

impl Print for Model {
    fn print_to(&self, printer: &mut Printer) {
        printer.push("<");
        printer.lines(&header(self));
        printer.push(">\n");
        self.graph.print_to(printer);
        for function in &self.functions {
            printer.push("\n");
            function::print(function, printer);
        }
    }
}

/// The entries of the model's header; texts only where there are any.
fn header(model: &Model) -> Vec<String> {
    let mut entries = vec![
        format!("ir_version: {}", model.ir_version),
        format!("opset_import: {}", opset_imports(&model.opset_imports)),
    ];
    let texts = [
        ("producer_name", &model.producer_name),
        ("producer_version", &model.producer_version),
        ("domain", &model.domain),
    ];
    entries.extend(texts.iter().filter_map(|(key, text)| text_entry(key, text)));
    if model.model_version != 0 {
        entries.push(format!("model_version: {}", model.model_version));
    }
    entries.extend(text_entry("doc_string", &model.doc));
    if !model.metadata.is_empty() {
        let pair = |(k, v): &(String, String)| format!("{}: {}", quoted(k), quoted(v));
        let pairs: Vec<String> = model.metadata.iter().map(pair).collect();
        entries.push(format!("metadata_props: [{}]", pairs.join(", ")));
    }
    entries
}

fn text_entry(key: &str, text: &str) -> Option<String> {
    (!text.is_empty()).then(|| format!("{key}: {}", quoted(text)))
}

fn opset_imports(imports: &[OpsetImport]) -> String {
    let entry = |i: &OpsetImport| format!("{} : {}", quoted(&i.domain), i.version);
    format!("[{}]", imports.iter().map(entry).collect::<Vec<_>>().join(", "))
}
