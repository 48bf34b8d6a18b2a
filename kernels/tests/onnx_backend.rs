//! Every operator against ONNX's own test cases and random ones: evaluation, fast form, inference.

mod backend;

use std::collections::BTreeMap;

use backend::cases::{Case, load};
use backend::compare::difference;
use backend::facts::{Known, contradiction};
use planish_cpu::ThreadPool;
use planish_ir::{DataType, Tensor};
use planish_kernels::buffers::BufferPool;
use planish_kernels::{CpuContext, OpDef, OpError, OpNode, ops};

/// Cases that must at least have run.
const MIN_CASES: usize = 1400;

/// Cases of an operator that ran, and those it does not take.
#[derive(Default)]
struct Tally {
    n_run: usize,
    unsupported: Vec<String>,
}

#[test]
fn operators_agree_with_onnx() {
    // Those that hold graphs are compared with ONNX Runtime in the engine's tests.
    let holds_graphs = |name: &str| ["If", "Loop", "Scan"].contains(&name);
    let standard = ops::all().filter(|op| op.domain.is_empty() && !holds_graphs(op.name));
    let names: Vec<&str> = standard.map(|op| op.name).collect();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in load(&names) {
        let tally = tallies.entry(case.node.op_type.clone()).or_default();
        match run(&case) {
            Ok(None) => tally.n_run += 1,
            Ok(Some(problem)) => failures.push(format!("{}: {problem}", case.name)),
            Err(reason) => tally.unsupported.push(format!("{}: {reason}", case.name)),
        }
    }
    let mut total = 0;
    for (op, tally) in &tallies {
        total += tally.n_run;
        println!("{op}: {} cases, {} not supported", tally.n_run, tally.unsupported.len());
        tally.unsupported.iter().for_each(|reason| println!("    {reason}"));
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    assert!(total >= MIN_CASES, "only {total} cases ran");
}

/// `Ok(None)` if all agree, what does not otherwise; the error is why the case is not supported.
fn run(case: &Case) -> Result<Option<String>, OpError> {
    let Some(op) = ops::find(&case.node.domain, &case.node.op_type) else {
        return Ok(Some("no such operator".into()));
    };
    let view = OpNode { node: &case.node, opset: case.opset };
    let outputs = match (op.eval)(&view, &case.inputs) {
        Err(error) if !is_supported(case) => return Err(error),
        Err(error) => return Ok(Some(error.to_string())),
        Ok(outputs) => outputs,
    };
    if let Some(problem) = differences("evaluation", case, &outputs) {
        return Ok(Some(problem));
    }
    for known in [Known::Shapes, Known::Contents, Known::Symbols] {
        if let Some(problem) = contradiction(op, &view, case, known) {
            return Ok(Some(problem));
        }
    }
    let constants: [Vec<Option<Tensor>>; 2] =
        [case.inputs.iter().map(|_| None).collect(), case.inputs.clone()];
    Ok(constants.iter().find_map(|constants| fast_form(op, &view, case, constants)))
}

/// Whether all elements are of types that operators must take: not strings, and no floats or
/// integers narrower than any language model's.
fn is_supported(case: &Case) -> bool {
    use DataType::{Bool, I4, U4};
    let takes = |dtype: DataType| {
        matches!(dtype, Bool | I4 | U4)
            || dtype.is_float()
            || (dtype.is_integer() && dtype.bits() >= 8)
    };
    case.inputs.iter().chain(&case.outputs).flatten().all(|tensor| takes(tensor.dtype()))
}

/// Runs the fast form with those inputs known beforehand.
fn fast_form(
    op: &OpDef,
    view: &OpNode,
    case: &Case,
    constants: &[Option<Tensor>],
) -> Option<String> {
    let kernel = match (op.cpu?)(view, constants) {
        Ok(kernel) => kernel?,
        Err(error) => return Some(format!("the fast form can't be made: {error}")),
    };
    let pool = ThreadPool::new(2);
    let buffers = BufferPool::new();
    let mut caches = Vec::new();
    let mut context = CpuContext::new(&pool, &buffers, &mut caches);
    let is_owned = |i: usize| constants[i].is_some() && kernel.owns_input(i);
    let inputs: Vec<Option<&Tensor>> =
        case.inputs.iter().enumerate().map(|(i, t)| t.as_ref().filter(|_| !is_owned(i))).collect();
    match kernel.run(&mut context, &inputs) {
        Ok(outputs) => differences("fast form", case, &outputs),
        Err(error) => Some(format!("the fast form fails: {error}")),
    }
}

fn differences(what: &str, case: &Case, outputs: &[Tensor]) -> Option<String> {
    for (i, expected) in case.outputs.iter().enumerate() {
        let Some(expected) = expected else { continue };
        let Some(actual) = outputs.get(i) else { return Some(format!("{what}: no output {i}")) };
        if let Some(text) = difference(actual, expected, case.rtol, case.atol) {
            return Some(format!("{what}, output {i}: {text}"));
        }
    }
    None
}
