//! Model-local functions.

use std::collections::HashMap;

use planish_ir::{Attribute, Function, Graph, Model, Node, NodeId, OpsetImport};
use planish_kernels::{DOMAIN, ops};

use super::splice::replace_by_body;
use crate::canonicalize::{CANONICAL_OPSET, raise_opset};
use crate::pass::{PassContext, PassError};

/// Nodes beyond which inlining stops: functions that call each other can double with every level.
const MAX_NODES: usize = 1 << 21;
/// Levels of functions that call functions.
const MAX_LEVELS: usize = 64;

/// Puts the bodies of model-local functions in the place of the nodes that call them, in graphs
/// within as well, and drops the functions. Those of planish's own operators stay.
///
/// # Errors
/// If functions call each other in a circle, or are of another operator set than the model and
/// can't be raised to its version.
pub(crate) fn inline_functions(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    if !has_calls(model) {
        return Ok(0);
    }
    let mut functions = std::mem::take(&mut model.functions);
    align_opsets(model, &mut functions, context)?;
    let table: Table = functions.iter().filter(|f| !is_own(f)).map(|f| (key_of(f), f)).collect();
    let mut n_rewrites = 0;
    for _ in 0..MAX_LEVELS {
        let n = inline_calls(&mut model.graph, &table).map_err(PassError::Other)?;
        n_rewrites += n;
        if n == 0 {
            functions.retain(is_own);
            model.functions = functions;
            return Ok(n_rewrites);
        }
        if model.graph.n_nodes() > MAX_NODES {
            return Err(PassError::Other("the model-local functions grow without end".into()));
        }
    }
    Err(PassError::Other("the model-local functions call each other in a circle".into()))
}

/// Domain, name and overload of a function, by which nodes call it.
type Key = (String, String, String);
type Table<'a> = HashMap<Key, &'a Function>;

fn key_of(function: &Function) -> Key {
    (function.domain.clone(), function.name.clone(), function.overload.clone())
}

fn called_by(node: &Node) -> Key {
    (node.domain.clone(), node.op_type.clone(), node.overload.clone())
}

/// Whether the function is the body of an operator of planish's.
fn is_own(function: &Function) -> bool {
    function.domain == DOMAIN && ops::find(DOMAIN, &function.name).is_some()
}

/// Whether a node calls a function that is to be inlined.
pub(super) fn has_calls(model: &Model) -> bool {
    let table: Table =
        model.functions.iter().filter(|f| !is_own(f)).map(|f| (key_of(f), f)).collect();
    !table.is_empty() && calls_any(&model.graph, &table)
}

fn calls_any(graph: &Graph, table: &Table) -> bool {
    graph.node_ids().any(|id| {
        let node = graph.node(id);
        let mut inner = node.attributes.values().flat_map(|a| a.graphs());
        table.contains_key(&called_by(node)) || inner.any(|graph| calls_any(graph, table))
    })
}

/// Inlines the calls of one level.
fn inline_calls(graph: &mut Graph, table: &Table) -> Result<usize, String> {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<NodeId>>() {
        for attribute in graph.node_mut(id).attributes.values_mut() {
            for inner in attribute.graphs_mut() {
                n_rewrites += inline_calls(inner, table)?;
            }
        }
        let Some(function) = table.get(&called_by(graph.node(id))) else { continue };
        let call = graph.node(id).clone();
        inline_call(graph, id, &call, function)
            .map_err(|reason| format!("{} can't be inlined: {reason}", call.describe()))?;
        n_rewrites += 1;
        if n_rewrites > MAX_NODES {
            return Err("the model-local functions grow without end".into());
        }
    }
    Ok(n_rewrites)
}

fn inline_call(
    graph: &mut Graph,
    id: NodeId,
    call: &Node,
    function: &Function,
) -> Result<(), String> {
    let body = &function.body;
    let formal = body.inputs.iter().enumerate();
    let map = formal.map(|(i, formal)| (*formal, call.input(i))).collect();
    let defaults = function.attribute_defaults.iter();
    let mut actual: HashMap<&str, &Attribute> =
        defaults.map(|(name, value)| (name.as_str(), value)).collect();
    actual.extend(call.attributes.iter().map(|(name, value)| (name.as_str(), value)));
    let adapt = |node: &mut Node| {
        resolve(node, &actual);
        if !call.name.is_empty() {
            node.name = format!("{}/{}", call.name, node.name);
        }
    };
    replace_by_body(graph, id, body, map, false, &adapt)
}

/// Gives a node of a body the attributes that it takes over from the call.
fn resolve(node: &mut Node, actual: &HashMap<&str, &Attribute>) {
    let mut absent = Vec::new();
    for (name, attribute) in &mut node.attributes {
        if let Attribute::Ref(source, _) = attribute {
            match actual.get(source.as_str()) {
                Some(value) => *attribute = (*value).clone(),
                None => absent.push(name.clone()),
            }
            continue;
        }
        for graph in attribute.graphs_mut() {
            for id in graph.node_ids().collect::<Vec<_>>() {
                resolve(graph.node_mut(id), actual);
            }
        }
    }
    for name in absent {
        node.attributes.remove(&name);
    }
}

/// Brings the model and its functions to one version of each operator set.
fn align_opsets(
    model: &mut Model,
    functions: &mut [Function],
    context: &mut PassContext,
) -> Result<(), PassError> {
    let version = |imports: &[OpsetImport]| {
        imports.iter().find(|import| import.domain.is_empty()).map(|import| import.version)
    };
    let own = version(&model.opset_imports);
    let differs = |f: &Function| version(&f.opset_imports).is_some_and(|v| Some(v) != own);
    if functions.iter().any(|f| !is_own(f) && differs(f)) {
        raise_opset(model, context)?;
        for function in functions.iter_mut().filter(|f| !is_own(f)) {
            raise_function(function, context)?;
        }
    }
    for function in functions.iter().filter(|f| !is_own(f)) {
        for import in &function.opset_imports {
            let known = model.opset(&import.domain);
            let both_new = import.domain.is_empty()
                && known.min(Some(import.version)) >= Some(CANONICAL_OPSET);
            match known {
                None => model.set_opset(&import.domain, import.version),
                Some(known) if both_new => {
                    model.set_opset("", known.max(import.version));
                }
                Some(known) if known != import.version && import.domain.is_empty() => {
                    return Err(PassError::Other(format!(
                        "the function {} is of operator set {}, the model of {known}",
                        function.name, import.version
                    )));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Raises the body of a function to the canonical operator set.
fn raise_function(function: &mut Function, context: &mut PassContext) -> Result<(), PassError> {
    let mut model = Model {
        graph: std::mem::take(&mut function.body),
        opset_imports: std::mem::take(&mut function.opset_imports),
        ..Model::default()
    };
    raise_opset(&mut model, context)?;
    function.body = model.graph;
    function.opset_imports = model.opset_imports;
    Ok(())
}
