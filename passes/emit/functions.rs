//! Model-local functions for planish's own operators.

use std::collections::BTreeSet;

use planish_ir::{Function, Model};
use planish_kernels::{DOMAIN, ops};

use super::EmitError;
use super::used::all_nodes;

/// Version of planish's operator set.
const DOMAIN_VERSION: i64 = 1;

/// Adds a function in standard operators of version `opset` for each of planish's operators that
/// the model uses (the functions' bodies included), imports their domain, and drops functions
/// that nothing calls. Returns the number of planish's functions.
///
/// # Errors
/// If an operator has no function: it belongs to planish's engine.
pub fn add_functions(model: &mut Model, opset: i64) -> Result<usize, EmitError> {
    model.functions.retain(|function| function.domain != DOMAIN);
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut open = planish_operators(all_nodes(&model.graph))?;
    for function in &model.functions {
        open.extend(planish_operators(all_nodes(&function.body))?);
    }
    let mut functions = Vec::new();
    while let Some(name) = open.pop() {
        if wanted.insert(name.clone()) {
            let mut function = function_of(&name)?;
            raise_opset(&mut function, opset);
            open.extend(planish_operators(all_nodes(&function.body))?);
            functions.push(function);
        }
    }
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    let n_functions = functions.len();
    model.functions.extend(functions);
    remove_uncalled(model);
    if n_functions > 0 {
        model.set_opset(DOMAIN, DOMAIN_VERSION);
    }
    Ok(n_functions)
}

fn planish_operators(nodes: Vec<&planish_ir::Node>) -> Result<Vec<String>, EmitError> {
    let own = nodes.into_iter().filter(|node| node.domain == DOMAIN);
    own.map(|node| match ops::find(DOMAIN, &node.op_type).and_then(|op| op.function) {
        Some(_) => Ok(node.op_type.clone()),
        None => Err(EmitError::NoFunction { node: node.describe() }),
    })
    .collect()
}

fn function_of(name: &str) -> Result<Function, EmitError> {
    let function = ops::find(DOMAIN, name).and_then(|op| op.function);
    function.map(|make| make()).ok_or_else(|| EmitError::NoFunction { node: name.to_owned() })
}

/// Runtimes inline functions most readily if they import the operator set of the model.
fn raise_opset(function: &mut Function, opset: i64) {
    for import in function.opset_imports.iter_mut().filter(|o| o.domain.is_empty()) {
        import.version = import.version.max(opset);
    }
}

/// Drops functions that no node calls, and then those that only they called.
fn remove_uncalled(model: &mut Model) {
    loop {
        let bodies = model.functions.iter().map(|function| &function.body);
        let nodes = std::iter::once(&model.graph).chain(bodies).flat_map(all_nodes);
        let called: BTreeSet<(String, String)> =
            nodes.map(|node| (node.domain.clone(), node.op_type.clone())).collect();
        let n_before = model.functions.len();
        model.functions.retain(|f| called.contains(&(f.domain.clone(), f.name.clone())));
        if model.functions.len() == n_before {
            return;
        }
    }
}
