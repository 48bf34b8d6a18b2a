//! A node with inputs, run on the device and by the reference.

use std::sync::Arc;

use planish_cuda::testing::{gpu, random_f32};
use planish_cuda::{Element, Gpu};
use planish_ir::{Attribute, DataType, Graph, Node, Tensor, ValueType};
use planish_kernels::cuda_kernel::{Value, upload};
use planish_kernels::{
    CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpDef, OpNode, ProductPrecision, ops,
};

/// One node, at one operator set.
pub struct Case {
    node: Node,
    opset: i64,
    /// Largest error, as a part of the largest element, for f32 and f16.
    tolerances: [f32; 2],
}

/// A node of `domain` with one output.
pub fn case(domain: &str, op_type: &str, opset: i64) -> Case {
    let node = Node::new(op_type, Vec::new()).with_domain(domain);
    Case { node, opset, tolerances: [1e-5, 2e-3] }.outputs(1)
}

/// A node of ONNX's own operator at opset 18.
pub fn node(op_type: &str) -> Case {
    case("", op_type, 18)
}

/// Random floats from −1 to 1.
pub fn floats(seed: u64, shape: &[usize]) -> Option<Tensor> {
    Some(Tensor::from_vec(shape, random_f32(seed, shape.iter().product())))
}

/// Random integers in `low..high`.
pub fn ints(seed: u64, shape: &[usize], low: i64, high: i64) -> Option<Tensor> {
    let unit = random_f32(seed, shape.iter().product());
    let int = |x: &f32| low + ((x / 2.0 + 0.5) * (high - low) as f32) as i64;
    Some(Tensor::from_vec(shape, unit.iter().map(|x| int(x).min(high - 1)).collect()))
}

/// Random bools.
pub fn bools(seed: u64, shape: &[usize]) -> Option<Tensor> {
    let unit = random_f32(seed, shape.iter().product());
    Some(Tensor::from_bools(shape, &unit.iter().map(|x| *x > 0.0).collect::<Vec<_>>()))
}

/// A list of integers.
pub fn list(values: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_vec(&[values.len()], values.to_vec()))
}

/// The same elements as i32.
pub fn narrow(tensor: Option<Tensor>) -> Option<Tensor> {
    let tensor = tensor?;
    let values = tensor.to_i64_vec().unwrap();
    Some(Tensor::from_vec(tensor.shape(), values.into_iter().map(|v| v as i32).collect()))
}

impl Case {
    /// With an attribute.
    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Self {
        self.node.attributes.insert(name.into(), value.into());
        self
    }

    /// With `n` outputs, all wanted.
    pub fn outputs(mut self, n: usize) -> Self {
        let mut graph = Graph::new("case");
        let outputs = (0..n).map(|_| Some(graph.new_value("y", ValueType::Unknown)));
        self.node.outputs = outputs.collect();
        self
    }

    /// With another error allowed.
    pub fn within(mut self, tolerance: f32) -> Self {
        self.tolerances = [tolerance; 2];
        self
    }

    /// Fails unless the device gives what the evaluation gives.
    pub fn agrees(mut self, inputs: &[Option<Tensor>]) {
        let Some(gpu) = gpu() else { return };
        // As in a graph, the node lists its inputs.
        let mut graph = Graph::new("inputs");
        let value =
            |t: &Option<Tensor>| t.as_ref().map(|_| graph.new_value("x", ValueType::Unknown));
        self.node.inputs = inputs.iter().map(value).collect();
        let op = ops::find(&self.node.domain, &self.node.op_type).expect("a listed operator");
        for (element, tolerance) in [Element::F32, Element::F16].into_iter().zip(self.tolerances) {
            // Both see the same numbers: those that the device can store.
            let inputs: Vec<Option<Tensor>> =
                inputs.iter().map(|t| t.as_ref().map(|t| rounded(t, element))).collect();
            let view = OpNode { node: &self.node, opset: self.opset };
            let expected = (op.eval)(&view, &inputs).expect("an evaluation");
            let actual = self.run(&gpu, op, element, &inputs);
            assert_eq!(actual.len(), expected.len(), "{}", self.node.op_type);
            for (i, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
                let expected = &rounded(expected, element);
                let what = format!("{} output {i}, {}", self.node.op_type, element.name());
                assert_close(&what, actual, expected, tolerance);
            }
        }
    }

    fn run(
        &self,
        gpu: &Arc<Gpu>,
        op: &OpDef,
        element: Element,
        inputs: &[Option<Tensor>],
    ) -> Vec<Tensor> {
        let view = OpNode { node: &self.node, opset: self.opset };
        let make = op.cuda.unwrap_or_else(|| panic!("{} has no CUDA form", op.name));
        let prepare = CudaPrepare { gpu, element };
        let kernel = make(&view, &prepare, &vec![None; inputs.len()]).expect("a kernel");
        let kernel = kernel.unwrap_or_else(|| panic!("this {} has no CUDA form", op.name));
        let place = |(i, tensor): (usize, &Option<Tensor>)| {
            let tensor = tensor.as_ref()?;
            Some(match kernel.reads_on_host(i) {
                true => Value::Host(tensor.clone()),
                false => Value::Device(upload(gpu, tensor, element).expect("an upload")),
            })
        };
        let values: Vec<Option<Value>> = inputs.iter().enumerate().map(place).collect();
        let past = gpu.upload(&[0i32]).unwrap();
        let (mut caches, mut appended) = (Vec::new(), 0);
        let mut context = CudaContext {
            gpu,
            element,
            precision: ProductPrecision::F32,
            caches: &mut caches,
            past: past.ptr(),
            n_past: 0,
            recording: false,
            appended: &mut appended,
        };
        poison(gpu);
        let outputs = kernel.run(&mut context, CudaInputs(&values));
        let outputs = outputs.unwrap_or_else(|error| panic!("{}: {error}", op.name));
        outputs.iter().map(|y: &GpuTensor| y.to_host(gpu).expect("an output")).collect()
    }
}

/// Fills memory that comes next from the pool, so that what is not written shows.
fn poison(gpu: &Gpu) {
    let sizes = (6..22).map(|bits| 1usize << bits);
    let buffers: Vec<_> = sizes
        .flat_map(|n| [n, n])
        .map(|n| {
            let buffer = gpu.alloc(n).unwrap();
            gpu.write(buffer.ptr(), &vec![0x7fu8; n]).unwrap();
            buffer
        })
        .collect();
    drop(buffers);
}

/// The tensor with its floats as `element` holds them.
fn rounded(tensor: &Tensor, element: Element) -> Tensor {
    if !tensor.dtype().is_float() || element == Element::F32 {
        return tensor.clone();
    }
    let round = |x: f32| half::f16::from_f32(x).to_f32();
    let values = tensor.to_f32_vec().unwrap().into_iter().map(round).collect();
    Tensor::from_vec(tensor.shape(), values)
}

fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.shape(), expected.shape(), "{what}");
    if !expected.dtype().is_float() {
        assert_eq!(actual.dtype(), expected.dtype(), "{what}");
        let (a, e) = (actual.to_i64_vec().unwrap(), expected.to_i64_vec().unwrap());
        assert_eq!(a, e, "{what}");
        return;
    }
    assert_eq!(actual.dtype(), DataType::F32, "{what}");
    let (a, e) = (actual.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    let size = e.iter().fold(1.0f32, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
    for (i, (a, e)) in a.iter().zip(&e).enumerate() {
        let is_same = a == e || (a.is_nan() && e.is_nan()) || (a - e).abs() <= tolerance * size;
        assert!(is_same, "{what}, element {i}: {a}, expected {e}");
    }
}
