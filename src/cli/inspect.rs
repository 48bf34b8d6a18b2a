//! `planish inspect`: show what a model file contains.
use std::fmt::Write;
use std::path::PathBuf;

use planish::app::{self, InspectReport, ValueReport};

use super::output::{mebibytes, print, print_json};

/// Show what a model file contains
///
/// Inputs, outputs, operators, weights and metadata of an ONNX model.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  planish inspect model.onnx
  planish inspect quantized --json")]
pub(super) struct InspectArgs {
    /// The model: an .onnx file, or a folder with model.onnx
    #[arg(value_name = "MODEL.onnx|DIR")]
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: InspectArgs) -> anyhow::Result<()> {
    let report = app::inspect(&args.model)?;
    if args.json { print_json(&report) } else { print(&text(&report)?) }
}

fn text(report: &InspectReport) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "{}", report.path.display())?;
    writeln!(out, "producer  {}", report.producer)?;
    let opsets: Vec<_> = report.opsets.iter().map(|(domain, n)| format!("{domain} {n}")).collect();
    writeln!(out, "opsets    {}", opsets.join(", "))?;
    let weights = mebibytes(Some(report.weight_bytes));
    writeln!(out, "weights   {} parameters, {weights}", report.parameters)?;
    for (dtype, bytes) in &report.weight_bytes_by_dtype {
        writeln!(out, "  {dtype}  {}", mebibytes(Some(*bytes)))?;
    }
    values(&mut out, "inputs", &report.inputs)?;
    values(&mut out, "outputs", &report.outputs)?;
    writeln!(out, "nodes     {}", report.nodes.values().sum::<usize>())?;
    for (op, count) in &report.nodes {
        writeln!(out, "  {count:6}  {op}")?;
    }
    if let Some(recognised) = &report.recognised {
        writeln!(out, "recognised")?;
        recognised.text.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
        writeln!(out, "canonical {} nodes", recognised.nodes.values().sum::<usize>())?;
        for (op, count) in &recognised.nodes {
            writeln!(out, "  {count:6}  {op}")?;
        }
    }
    for (note, others) in alike(&report.notes) {
        let more = if others > 0 { format!(" ({others} more like it)") } else { String::new() };
        writeln!(out, "note      {note}{more}")?;
    }
    for (key, value) in &report.metadata {
        writeln!(out, "{key} = {value}")?;
    }
    Ok(out)
}

/// The first of all notes that differ in numbers alone, as those of equal blocks do, and how many
/// others there are.
fn alike(notes: &[String]) -> Vec<(&str, usize)> {
    let without_digits = |note: &str| note.replace(|c: char| c.is_ascii_digit(), "");
    let mut groups: Vec<(String, &str, usize)> = Vec::new();
    for note in notes {
        let key = without_digits(note);
        match groups.iter_mut().find(|(known, ..)| *known == key) {
            Some((.., others)) => *others += 1,
            None => groups.push((key, note, 0)),
        }
    }
    groups.into_iter().map(|(_, note, others)| (note, others)).collect()
}

fn values(out: &mut String, title: &str, list: &[ValueReport]) -> std::fmt::Result {
    writeln!(out, "{title}")?;
    for ValueReport { name, dtype, shape } in list {
        writeln!(out, "  {name}  {dtype}[{}]", shape.join(", "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_about_equal_blocks_are_shown_once() {
        let notes = ["MatMul \"h.0/q\" has no weight", "x", "MatMul \"h.11/q\" has no weight"];
        let notes = notes.map(String::from);
        assert_eq!(alike(&notes), [("MatMul \"h.0/q\" has no weight", 1), ("x", 0)]);
    }

    #[test]
    fn everything_is_shown() {
        let value = |name: &str| ValueReport {
            name: name.into(),
            dtype: "float".into(),
            shape: vec!["batch".into(), "4".into()],
        };
        let report = InspectReport {
            path: "m.onnx".into(),
            producer: "torch 2".into(),
            opsets: [("ai.onnx".to_owned(), 23)].into(),
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            nodes: [("MatMul".to_owned(), 2), ("Add".to_owned(), 1)].into(),
            parameters: 9,
            weight_bytes: 1_048_576,
            weight_bytes_by_dtype: [("float".to_owned(), 1_048_576)].into(),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            recognised: None,
            notes: vec!["why".to_owned()],
        };
        let expected = "m.onnx\nproducer  torch 2\nopsets    ai.onnx 23\nweights   9 parameters, 1.0 \
                        MiB\n  float  1.0 MiB\ninputs\n  x  float[batch, 4]\noutputs\n  y  \
                        float[batch, 4]\nnodes     3\n       1  Add\n       2  MatMul\nnote      why\nk = v\n";
        assert_eq!(text(&report).unwrap(), expected);
    }
}
