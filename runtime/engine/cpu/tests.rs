//! Tests of the CPU engine on small graphs.

use planish_ir::{DataType, Dim, Graph, Model, Node, Tensor, ValueId, ValueType};

use super::*;

/// A model whose graph has one f32 input `x [n]`.
fn model(build: impl FnOnce(&mut Graph, ValueId)) -> Model {
    let mut model = Model { graph: Graph::new("g"), ..Model::default() };
    model.set_opset("", 23);
    let x = input(&mut model.graph, "x");
    build(&mut model.graph, x);
    planish_ir::verify(&model).unwrap();
    model
}

fn input(graph: &mut Graph, name: &str) -> ValueId {
    let value = graph.new_value(name, ValueType::tensor(DataType::F32, vec![Dim::symbol("n")]));
    graph.inputs.push(value);
    value
}

fn op(graph: &mut Graph, name: &str, inputs: &[ValueId]) -> ValueId {
    graph.add_op("v", Node::new(name, inputs.iter().copied().map(Some).collect()))
}

fn output(graph: &mut Graph, name: &str, value: ValueId) {
    graph.rename_value(value, name).unwrap();
    graph.outputs.push(value);
}

fn compile(model: &Model, options: &CompileOptions) -> Result<Box<dyn Executable>, EngineError> {
    CpuEngine::new(2).compile(model, options)
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

#[test]
fn values_are_shared_and_dropped_when_read_for_the_last_time() {
    let model = model(|graph, x| {
        let a = op(graph, "Add", &[x, x]);
        let b = op(graph, "Mul", &[a, x]);
        let c = op(graph, "Add", &[a, b]);
        output(graph, "y", c);
    });
    let plan =
        Compiler::new(&model, &ThreadPool::new(1)).unwrap().compile(&CompileOptions::default());
    let plan = plan.unwrap();
    let frees: Vec<usize> = plan.steps.iter().map(|step| step.frees.len()).collect();
    assert_eq!(frees, [0, 1, 2], "x after the product, a and b after the sum");
    let executable = compile(&model, &CompileOptions::default()).unwrap();
    let mut session = executable.session();
    for _ in 0..2 {
        let y = session.run(&[vector(&[1., 2.])]).unwrap();
        assert_eq!(y, [vector(&[4., 12.])]);
    }
}

#[test]
fn what_follows_from_constants_is_computed_once() {
    let model = model(|graph, x| {
        let two = graph.add_constant("two", Tensor::scalar(2f32));
        let four = op(graph, "Mul", &[two, two]);
        let y = op(graph, "Mul", &[x, four]);
        output(graph, "y", y);
    });
    let executable = compile(&model, &CompileOptions::default()).unwrap();
    let summary = executable.summary();
    assert_eq!((summary.steps, summary.folded, summary.weight_bytes), (1, 1, 4));
    assert_eq!(executable.session().run(&[vector(&[3.])]).unwrap(), [vector(&[12.])]);
}

#[test]
fn an_unknown_operator_is_an_error_only_where_it_is_needed() {
    let model = model(|graph, x| {
        let y = op(graph, "Neg", &[x]);
        let node = Node::new("Frobnicate", vec![Some(x)]).with_domain("example").with_name("odd");
        let z = graph.add_op("z", node);
        output(graph, "y", y);
        output(graph, "w", z);
    });
    let error = compile(&model, &CompileOptions::default()).err().unwrap();
    let expected = "there is no implementation of example.Frobnicate, \
                    needed by the node example.Frobnicate \"odd\"";
    assert_eq!(error.to_string(), expected);
    let wanted = CompileOptions { outputs: Some(vec!["y".into()]), ..CompileOptions::default() };
    let executable = compile(&model, &wanted).unwrap();
    assert_eq!(executable.summary().steps, 1);
}

#[test]
fn names_that_do_not_exist_are_errors() {
    let model = model(|graph, x| {
        let y = op(graph, "Neg", &[x]);
        output(graph, "y", y);
    });
    let outputs = CompileOptions { outputs: Some(vec!["q".into()]), ..CompileOptions::default() };
    let error = compile(&model, &outputs).err().unwrap();
    assert_eq!(error.to_string(), "the graph has no output \"q\"");
    let carried =
        CompileOptions { carried: vec![("q".into(), "y".into())], ..CompileOptions::default() };
    let error = compile(&model, &carried).err().unwrap();
    assert_eq!(error.to_string(), "the graph has no input \"q\"");
}

#[test]
fn inputs_are_checked() {
    let model = model(|graph, x| {
        let y = op(graph, "Neg", &[x]);
        output(graph, "y", y);
    });
    let mut session = compile(&model, &CompileOptions::default()).unwrap().session();
    let count = session.run(&[]).unwrap_err();
    assert_eq!(count.to_string(), "the graph takes 1 inputs, but 0 were given");
    let integers = Tensor::from_vec(&[1], vec![1i64]);
    let dtype = session.run(&[integers]).unwrap_err();
    assert_eq!(dtype.to_string(), "the input \"x\" takes float [n], but was given int64 [1]");
    let rank = session.run(&[Tensor::scalar(1f32)]).unwrap_err();
    assert!(matches!(rank, EngineError::Input { .. }));
}

#[test]
fn a_node_that_fails_is_named_and_the_session_lives_on() {
    let model = model(|graph, x| {
        let w = input(graph, "w");
        let y = op(graph, "Add", &[x, w]);
        output(graph, "y", y);
    });
    let mut session = compile(&model, &CompileOptions::default()).unwrap().session();
    let error = session.run(&[vector(&[1., 2.]), vector(&[1., 2., 3.])]).unwrap_err();
    assert!(error.to_string().starts_with("the node Add \"v\" failed: "), "{error}");
    assert!(session.run(&[vector(&[1.]), vector(&[2.])]).is_ok());
}

/// `total' = total + x`, with `total` carried.
fn accumulator() -> (Model, CompileOptions) {
    let model = model(|graph, x| {
        let total = input(graph, "total");
        let next = op(graph, "Add", &[total, x]);
        let twice = op(graph, "Add", &[next, next]);
        output(graph, "next", next);
        output(graph, "twice", twice);
    });
    let carried = vec![("total".to_owned(), "next".to_owned())];
    (model, CompileOptions { carried, ..CompileOptions::default() })
}

#[test]
fn carried_outputs_are_the_next_runs_inputs() {
    let (model, options) = accumulator();
    let executable = compile(&model, &options).unwrap();
    assert_eq!((executable.inputs().len(), executable.outputs().len()), (1, 1));
    let mut session = executable.session();
    session.reset(&[vector(&[0.])]);
    session.run(&[vector(&[1.])]).unwrap();
    session.mark();
    assert_eq!(session.run(&[vector(&[2.])]).unwrap(), [vector(&[6.])]);
    assert_eq!(session.cache_bytes(), 4);
    session.rollback();
    assert_eq!(session.run(&[vector(&[5.])]).unwrap(), [vector(&[12.])]);
}

#[test]
fn sessions_do_not_disturb_each_other() {
    let (model, options) = accumulator();
    let executable = compile(&model, &options).unwrap();
    let (mut a, mut b) = (executable.session(), executable.session());
    a.reset(&[vector(&[0.])]);
    b.reset(&[vector(&[100.])]);
    a.run(&[vector(&[1.])]).unwrap();
    assert_eq!(b.run(&[vector(&[1.])]).unwrap(), [vector(&[202.])]);
    assert_eq!(a.run(&[vector(&[1.])]).unwrap(), [vector(&[4.])]);
}

#[test]
fn inputs_and_constants_may_be_outputs() {
    let model = model(|graph, x| {
        let c = graph.add_constant("c", Tensor::scalar(7f32));
        graph.outputs.extend([x, c]);
    });
    let mut session = compile(&model, &CompileOptions::default()).unwrap().session();
    for _ in 0..2 {
        let outputs = session.run(&[vector(&[1.])]).unwrap();
        assert_eq!(outputs, [vector(&[1.]), Tensor::scalar(7f32)]);
    }
}

#[test]
fn time_is_measured_on_request() {
    let (model, options) = accumulator();
    let executable = compile(&model, &CompileOptions { profile: true, ..options }).unwrap();
    let mut session = executable.session();
    session.reset(&[vector(&[0.])]);
    session.run(&[vector(&[1.])]).unwrap();
    let profile = session.profile().unwrap();
    assert_eq!((profile.ops[0].op.as_str(), profile.ops[0].count), ("Add", 2));
}

/// `y = attention(x, x, x) + w`, with a cache.
fn attention() -> Model {
    let mut model = Model { graph: Graph::new("g"), ..Model::default() };
    model.set_opset("", 23);
    model.set_opset(planish_kernels::DOMAIN, 1);
    let graph = &mut model.graph;
    let shape = ["b", "s", "4"].map(Dim::parse).to_vec();
    let x = graph.new_value("x", ValueType::tensor(DataType::F32, shape));
    graph.inputs.push(x);
    let w = input(graph, "w");
    let node = Node::new("CachedAttention", vec![Some(x); 3])
        .with_domain(planish_kernels::DOMAIN)
        .with("q_num_heads", 1i64)
        .with("kv_num_heads", 1i64);
    let y = graph.add_op("attended", node);
    let y = op(graph, "Add", &[y, w]);
    output(graph, "y", y);
    model
}

#[test]
fn rolling_back_takes_what_a_failed_run_put_into_the_caches() {
    let executable = compile(&attention(), &CompileOptions::default()).unwrap();
    let row = |x: f32| Tensor::from_vec(&[1, 1, 4], vec![x, 0.5, -x, 1.0]);
    let (good, bad) = (vector(&[0.0]), vector(&[0.0; 3]));
    let (mut session, mut clean) = (executable.session(), executable.session());
    session.run(&[row(1.0), good.clone()]).unwrap();
    clean.run(&[row(1.0), good.clone()]).unwrap();
    let bytes = session.cache_bytes();
    session.mark();
    session.run(&[row(9.0), bad]).unwrap_err();
    assert!(session.cache_bytes() > bytes);
    session.rollback();
    assert_eq!(session.cache_bytes(), bytes);
    let after = session.run(&[row(2.0), good.clone()]).unwrap();
    assert_eq!(after, clean.run(&[row(2.0), good.clone()]).unwrap());
    session.reset(&[]);
    assert_eq!(session.cache_bytes(), 0);
    session.rollback();
    assert_eq!(session.cache_bytes(), 0, "a mark from before the reset adds nothing");
}
