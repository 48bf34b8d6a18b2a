//! Canonicalising a case and comparing what the graphs compute.

use planish_ir::text::{PrintOptions, parse, print};
use planish_ir::{DataType, Model, Tensor};
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;
use planish_passes::inline::runnable;
use planish_passes::interpret::Interpreter;

use super::case::Case;
use super::inputs::{Sizes, inputs};
use super::weights;

/// Largest difference of a result relative to the largest element of the output.
const TOLERANCE: f32 = 1e-5;
/// The same for results of 16 bits, which the graph of before computes in 16 bits.
const HALF_TOLERANCE: f32 = 3e-3;

/// Sizes to evaluate with: prefill on a cache, one step, and an empty cache.
const SIZES: [Sizes; 3] = [
    Sizes { batch: 2, sequence: 3, past: 4 },
    Sizes { batch: 1, sequence: 1, past: 5 },
    Sizes { batch: 2, sequence: 4, past: 0 },
];

/// The text of the canonical graph, after all other checks.
pub fn check(case: &Case) -> Result<String, String> {
    let mut before = parse(&weights::fill(&case.before)).map_err(|e| format!("before: {e}"))?;
    if before.opset_imports.is_empty() {
        before.set_opset("", 18);
        before.set_opset("com.microsoft", 1);
    }
    let (after, notes) = canonical(&before)?;
    for expected in case.notes.lines().filter(|line| !line.is_empty()) {
        if !notes.iter().any(|note| note.contains(expected)) {
            return Err(format!("no note says \"{expected}\":\n{}", notes.join("\n")));
        }
    }
    let text = text_of(&after);
    let again = text_of(&canonical(&after)?.0);
    if again != text {
        return Err(format!("a second run makes\n{again}\nof\n{text}"));
    }
    for sizes in SIZES {
        same_results(&before, &after, sizes).map_err(|e| format!("{sizes:?}: {e}\n{text}"))?;
    }
    Ok(text)
}

/// The canonical form and the notes of all passes.
fn canonical(model: &Model) -> Result<(Model, Vec<String>), String> {
    let mut model = model.clone();
    let mut manager = PassManager::new().with_verify();
    canonicalize(&mut model, &mut manager).map_err(|e| e.to_string())?;
    let notes = manager.reports().iter().flat_map(|r| r.notes.clone()).collect();
    Ok((model, notes))
}

fn text_of(model: &Model) -> String {
    print(&model.graph, &PrintOptions { max_elements: 4, value_info: false, types: true })
}

/// Both models have the same outputs, by name and in order, with the same contents.
fn same_results(before: &Model, after: &Model, sizes: Sizes) -> Result<(), String> {
    let expected = evaluate(before, sizes).map_err(|e| format!("before: {e}"))?;
    let actual = evaluate(after, sizes).map_err(|e| format!("after: {e}"))?;
    if expected.len() != actual.len() {
        return Err(format!("{} outputs became {}", expected.len(), actual.len()));
    }
    for ((name, expected), (other, actual)) in expected.iter().zip(&actual) {
        if name != other {
            return Err(format!("the output \"{name}\" became \"{other}\""));
        }
        same_tensor(expected, actual).map_err(|e| format!("the output \"{name}\" {e}"))?;
    }
    Ok(())
}

fn evaluate(model: &Model, sizes: Sizes) -> Result<Vec<(String, Tensor)>, String> {
    let model = runnable(model).map_err(|e| e.to_string())?;
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let graph = &model.graph;
    let mut interpreter = Interpreter::new(graph, &opset, inputs(graph, sizes));
    let output =
        |id: &planish_ir::ValueId| Ok((graph.value(*id).name.clone(), interpreter.value(*id)?));
    graph.outputs.iter().map(output).collect()
}

fn same_tensor(expected: &Tensor, actual: &Tensor) -> Result<(), String> {
    if (expected.dtype(), expected.shape()) != (actual.dtype(), actual.shape()) {
        return Err(format!(
            "was {} {:?} and is {} {:?}",
            expected.dtype(),
            expected.shape(),
            actual.dtype(),
            actual.shape()
        ));
    }
    let is_half = expected.dtype() == DataType::F16;
    let tolerance = if is_half { HALF_TOLERANCE } else { TOLERANCE };
    let read = |t: &Tensor| t.to_f32_vec().map_err(|e| e.to_string());
    let (expected, actual) = (read(expected)?, read(actual)?);
    let largest = expected.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (e, a)) in expected.iter().zip(&actual).enumerate() {
        let is_close = (e - a).abs() <= tolerance * largest;
        if !is_close {
            return Err(format!("was {e} and is {a} at {i}"));
        }
    }
    Ok(())
}
