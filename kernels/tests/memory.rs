//! Outputs that no memory holds: an error from every operator whose output can be much larger
//! than its inputs, both from the reference evaluation and from the fast form.

use planish_cpu::ThreadPool;
use planish_ir::{Attribute, DataType, Node, Tensor};
use planish_kernels::buffers::BufferPool;
use planish_kernels::{CpuContext, DOMAIN, OpNode, ops};

/// Elements of a long input: two of them make 10¹² elements.
const LONG: usize = 1_000_000;

fn f32s(shape: &[usize]) -> Tensor {
    Tensor::from_vec(shape, vec![1f32; shape.iter().product()])
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

/// What the evaluation and the fast form, if there is one, say of the inputs.
fn refusals(node: &Node, opset: i64, inputs: &[Tensor]) -> Vec<String> {
    let op = ops::find(&node.domain, &node.op_type).unwrap();
    let view = OpNode { node, opset };
    let owned: Vec<Option<Tensor>> = inputs.iter().cloned().map(Some).collect();
    let mut found = vec![op.evaluate(&view, &owned).err()];
    let unknown = vec![None; inputs.len()];
    if let Some(kernel) = op.cpu.and_then(|make| make(&view, &unknown).unwrap()) {
        let (pool, buffers, mut caches) = (ThreadPool::new(1), BufferPool::new(), Vec::new());
        let mut context = CpuContext::new(&pool, &buffers, &mut caches);
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
        found.push(kernel.run(&mut context, &inputs).err());
    }
    let op = &node.op_type;
    found.into_iter().map(|e| e.unwrap_or_else(|| panic!("{op} succeeds")).to_string()).collect()
}

fn refuses(op: &str, domain: &str, attributes: &[(&str, i64)], inputs: &[Tensor]) {
    let mut node = Node::new(op, Vec::new()).with_domain(domain);
    for (name, value) in attributes {
        node.attributes.insert((*name).into(), Attribute::Int(*value));
    }
    for message in refusals(&node, if domain.is_empty() { 21 } else { 1 }, inputs) {
        let is_size = message.contains("more memory than there is");
        assert!(is_size || message.contains("too many elements"), "{op}: {message}");
    }
}

#[test]
fn sizes_that_are_elements_of_an_input() {
    for n in [1_000_000_000_000, 1 << 58, i64::MAX] {
        let element = |dtype: DataType| {
            let n_bytes = dtype.bits().div_ceil(8);
            Tensor::new(dtype, vec![1], vec![1; n_bytes].into()).unwrap()
        };
        for dtype in [DataType::F32, DataType::Bool, DataType::I64, DataType::C128, DataType::I4] {
            refuses("Expand", "", &[], &[element(dtype), ints(&[n])]);
            refuses("Tile", "", &[], &[element(dtype), ints(&[n])]);
        }
        let text = Tensor::from_strings(vec![1], vec!["a".into()]).unwrap();
        refuses("Expand", "", &[], &[text, ints(&[2, n])]);
        refuses("ConstantOfShape", "", &[], &[ints(&[n])]);
        refuses("Pad", "", &[], &[f32s(&[1]), ints(&[n - 2, 0])]);
        refuses("Range", "", &[], &[0, n, 1].map(Tensor::scalar::<i64>));
        refuses("Range", "", &[], &[0., n as f64, 1.].map(Tensor::scalar::<f64>));
        refuses("OneHot", "", &[], &[ints(&[0]), ints(&[n]), f32s(&[2])]);
        refuses("OneHot", "", &[], &[ints(&[0]), Tensor::scalar(n as f32), f32s(&[2])]);
    }
}

#[test]
fn operands_that_broadcast_against_each_other() {
    let (column, row) = ([LONG, 1], [1, LONG]);
    let ones = |shape: &[usize]| Tensor::from_vec(shape, vec![1i64; LONG]);
    let doubles = |shape: &[usize]| Tensor::from_vec(shape, vec![1f64; LONG]);
    let truths = |shape: &[usize]| Tensor::from_bools(shape, &[true; LONG]);
    for op in ["Add", "Pow", "Less", "Max"] {
        refuses(op, "", &[], &[f32s(&column), f32s(&row)]);
        refuses(op, "", &[], &[ones(&column), ones(&row)]);
        refuses(op, "", &[], &[doubles(&column), doubles(&row)]);
    }
    refuses("Mod", "", &[], &[ones(&column), ones(&row)]);
    refuses("And", "", &[], &[truths(&column), truths(&row)]);
    refuses("Where", "", &[], &[truths(&column), f32s(&row), f32s(&[1])]);
    let zeros = Tensor::from_vec(&row, vec![0i64; LONG]);
    refuses("Gather", "", &[], &[f32s(&row), zeros]);
}

#[test]
fn products_of_a_column_and_a_row() {
    let (column, row) = ([LONG, 1], [1, LONG]);
    let codes = |shape: &[usize]| Tensor::from_vec(shape, vec![1i8; LONG]);
    let ones = |shape: &[usize]| Tensor::from_vec(shape, vec![1i64; LONG]);
    refuses("MatMul", "", &[], &[f32s(&column), f32s(&row)]);
    refuses("MatMul", "", &[], &[ones(&column), ones(&row)]);
    refuses("MatMulInteger", "", &[], &[codes(&column), codes(&row)]);
    refuses("Gemm", "", &[], &[f32s(&column), f32s(&row)]);
    refuses("Linear", DOMAIN, &[], &[f32s(&column), f32s(&row)]);
    let scales = f32s(&[LONG]);
    let quantized = [codes(&column), f32s(&column), codes(&row), scales.clone()];
    refuses("QuantizedMatMul", DOMAIN, &[], &quantized);
    refuses("WeightOnlyMatMul", DOMAIN, &[], &[f32s(&column), codes(&row), scales]);
}
