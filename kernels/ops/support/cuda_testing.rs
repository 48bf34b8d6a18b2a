//! Every case that the tests of an operator evaluate also runs on CUDA, where there is a GPU and
//! the operator has a CUDA form.

use std::sync::Arc;

use half::f16;
use planish_cuda::{Element, Gpu};
use planish_ir::{DataType, Tensor};

use super::testing::{Case, assert_same};
use crate::cuda_kernel::{CudaInputs, Value, upload};
use crate::op::CudaFn;
use crate::{CudaContext, CudaPrepare, ProductPrecision};

/// Compares the CUDA form with the evaluation: floats as f32 and as f16, inputs given at the run
/// and as constants.
pub(in crate::ops) fn check(case: &Case, inputs: &[Option<Tensor>], expected: &[Tensor]) {
    let op = case.op();
    let Some(make) = op.cuda else { return };
    let Some(gpu) = planish_cuda::testing::gpu() else { return };
    for constant in [false, true] {
        if let Some(actual) = run(case, make, &gpu, Element::F32, inputs, constant) {
            compare(case, &actual, expected, 5e-5);
        }
    }
    if !fits_half(inputs, expected) {
        return;
    }
    let rounded: Vec<Option<Tensor>> = inputs.iter().map(|t| t.as_ref().map(as_half)).collect();
    let Ok(expected) = (op.eval)(&case.view(), &rounded) else { return };
    for constant in [false, true] {
        if let Some(actual) = run(case, make, &gpu, Element::F16, &rounded, constant) {
            compare(case, &actual, &expected, 5e-3);
        }
    }
}

/// The outputs as the engine would give them; `None` if the node has no CUDA form.
fn run(
    case: &Case,
    make: CudaFn,
    gpu: &Arc<Gpu>,
    element: Element,
    inputs: &[Option<Tensor>],
    constant: bool,
) -> Option<Vec<Tensor>> {
    let given: Vec<Option<Tensor>> =
        inputs.iter().enumerate().map(|(i, t)| t.clone().filter(|_| constant && i > 0)).collect();
    let name = &case.node.op_type;
    let kernel = make(&case.view(), &CudaPrepare { gpu, element }, &given)
        .unwrap_or_else(|e| panic!("{name}: {e}"))?;
    let mut values = Vec::new();
    for (i, tensor) in inputs.iter().enumerate() {
        values.push(match tensor {
            Some(_) if kernel.owns_input(i) => None,
            Some(tensor) if kernel.reads_on_host(i) => Some(Value::Host(tensor.clone())),
            // A type that is on the device only in a kernel's own form.
            Some(tensor) => Some(Value::Device(upload(gpu, tensor, element).ok()?)),
            None => None,
        });
    }
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
    let outputs = kernel.run(&mut context, CudaInputs(&values));
    let outputs = outputs.unwrap_or_else(|e| panic!("{name} as {element:?}: {e}"));
    let read = |t: &crate::GpuTensor| t.to_host(gpu).unwrap_or_else(|e| panic!("{name}: {e}"));
    Some(outputs.iter().map(read).collect())
}

fn compare(case: &Case, actual: &[Tensor], expected: &[Tensor], tolerance: f32) {
    assert!(actual.len() >= expected.len(), "{}: too few outputs", case.node.op_type);
    for (actual, expected) in actual.iter().zip(expected) {
        let is_half = matches!(expected.dtype(), DataType::F16 | DataType::BF16 | DataType::F64);
        let expected = if is_half { as_f32(expected) } else { expected.clone() };
        let context = format!("{} on CUDA", case.node.op_type);
        let result = std::panic::catch_unwind(|| assert_same(actual, &expected, tolerance));
        assert!(result.is_ok(), "{context} differs");
    }
}

fn as_f32(tensor: &Tensor) -> Tensor {
    Tensor::from_vec(tensor.shape(), tensor.to_f32_vec().unwrap())
}

/// With floats rounded to half precision.
fn as_half(tensor: &Tensor) -> Tensor {
    if tensor.dtype() != DataType::F32 {
        return tensor.clone();
    }
    let data = tensor.to_f32_vec().unwrap();
    Tensor::from_vec(tensor.shape(), data.iter().map(|x| f16::from_f32(*x).to_f32()).collect())
}

/// Whether all floats are in the range of half precision, and none is a scale of codes, which
/// stays f32 on the device.
fn fits_half(inputs: &[Option<Tensor>], expected: &[Tensor]) -> bool {
    let tensors = || inputs.iter().flatten().chain(expected);
    let fits = |t: &Tensor| {
        t.dtype() != DataType::F32
            || t.to_f32_vec().unwrap().iter().all(|x| !x.is_finite() || x.abs() < 6e4)
    };
    tensors().all(fits) && tensors().all(|t| !matches!(t.dtype(), DataType::I8 | DataType::I4))
}
