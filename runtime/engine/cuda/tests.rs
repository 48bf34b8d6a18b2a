//! Tests of the CUDA engine that need no GPU; `decoder/tests/cuda.rs` has those that do.

use planish_cpu::ThreadPool;
use planish_ir::{DataType, Dim, Model, Node, Tensor, ValueId, ValueType};

use super::place::{Place, Places};
use crate::engine::front::Front;

/// Ids and positions, as a decoder has them; `build` returns the nodes' outputs to look at.
fn places(build: impl FnOnce(&mut Model, ValueId, ValueId) -> Vec<ValueId>) -> Vec<Place> {
    let mut model = Model::default();
    model.set_opset("", 23);
    let shape = ["b", "s"].map(Dim::parse).to_vec();
    let [ids, positions] = ["ids", "positions"].map(|name| {
        let ty = ValueType::tensor(DataType::I64, shape.clone());
        let value = model.graph.new_value(name, ty);
        model.graph.inputs.push(value);
        value
    });
    let wanted = build(&mut model, ids, positions);
    model.graph.outputs.extend(&wanted);
    let pool = ThreadPool::new(1);
    let mut front = Front::new(&model, &pool).unwrap();
    let mut places = Places::of_inputs(&model.graph, &front.facts);
    let mut found = vec![None; wanted.len()];
    for id in model.graph.topological_order().unwrap() {
        let runnable = front.unfolded(id).unwrap().expect("nothing is constant");
        let place = places.place(&runnable);
        let output = runnable.node.output(0);
        if let Some(index) = wanted.iter().position(|value| Some(*value) == output) {
            found[index] = Some(place);
        }
    }
    found.into_iter().map(|place| place.expect("a node of the graph")).collect()
}

#[test]
fn embeddings_and_what_follows_are_on_the_device_however_small() {
    let found = places(|model, ids, _| {
        let graph = &mut model.graph;
        let table = graph.add_constant("table", Tensor::from_vec(&[5, 4], vec![1f32; 20]));
        let x = graph.add_op("x", Node::new("Gather", vec![Some(table), Some(ids)]));
        let y = graph.add_op("y", Node::new("Neg", vec![Some(x)]));
        vec![x, y]
    });
    assert_eq!(found, [Place::Device, Place::Device]);
}

#[test]
fn angles_are_computed_on_the_host() {
    let found = places(|model, _, positions| {
        let graph = &mut model.graph;
        let node = Node::new("Cast", vec![Some(positions)]).with("to", 1i64);
        let floats = graph.add_op("floats", node);
        let cos = graph.add_op("cos", Node::new("Cos", vec![Some(floats)]));
        vec![floats, cos]
    });
    assert_eq!(found, [Place::Prefix, Place::Prefix]);
}

#[test]
fn sizes_of_tensors_on_the_device_are_not_read_from_there() {
    let found = places(|model, ids, _| {
        let graph = &mut model.graph;
        let table = graph.add_constant("table", Tensor::from_vec(&[5, 4], vec![1f32; 20]));
        let x = graph.add_op("x", Node::new("Gather", vec![Some(table), Some(ids)]));
        let shape = graph.add_op("shape", Node::new("Shape", vec![Some(x)]));
        let twice = Node::new("Add", vec![Some(shape), Some(shape)]);
        let twice = graph.add_op("twice", twice);
        vec![shape, twice]
    });
    assert_eq!(found, [Place::Sizes, Place::Sizes]);
}
