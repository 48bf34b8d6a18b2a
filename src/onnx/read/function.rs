//! Model-local functions.

use std::collections::HashSet;

use planish_ir::text::builder::GraphBuilder;
use planish_ir::{Function, Graph};

use super::{Context, attribute, domain, graph, metadata, opset_imports};
use crate::error::Problem;
use crate::proto::FunctionProto;

/// The functions, in file order.
pub(super) fn read_all(
    protos: Vec<FunctionProto>,
    context: &mut Context,
) -> Result<Vec<Function>, Problem> {
    let mut functions = Vec::with_capacity(protos.len());
    let mut known = HashSet::new();
    for proto in protos {
        let function = read(proto, context)?;
        let key = (function.domain.clone(), function.name.clone(), function.overload.clone());
        if !known.insert(key) {
            return Err(Problem::FunctionTwice(describe(&function)));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn describe(function: &Function) -> String {
    format!("{}.{}:{}", function.domain, function.name, function.overload)
}

fn read(proto: FunctionProto, context: &mut Context) -> Result<Function, Problem> {
    let mut function = Function {
        name: proto.name.unwrap_or_default(),
        domain: domain(proto.domain),
        overload: proto.overload.unwrap_or_default(),
        attributes: proto.attribute,
        opset_imports: opset_imports(proto.opset_import),
        doc: proto.doc_string.unwrap_or_default(),
        metadata: metadata(proto.metadata_props),
        ..Function::default()
    };
    let called = format!("the function {}", describe(&function));
    for default in proto.attribute_proto {
        function.attribute_defaults.push(attribute::read(default, &called, context)?);
    }
    let mut builder = GraphBuilder { graph: Graph::new(function.name.clone()) };
    let mut infos = graph::infos(proto.value_info);
    for input in &proto.input {
        graph::check_name(input, "a model-local function has an input")?;
        builder.add_input(graph::value(input, &mut infos, context)?)?;
    }
    graph::add_nodes(&mut builder, proto.node, &mut infos, context)?;
    for output in &proto.output {
        graph::check_name(output, "a model-local function has an output")?;
        builder.add_output(output);
    }
    function.body = builder.finish()?;
    Ok(function)
}
