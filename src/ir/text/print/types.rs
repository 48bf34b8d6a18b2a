//! Types of values.

use super::literal::{hex, is_identifier, quoted};
use crate::text::{ENCODED, UNDEFINED, is_unknown_dim};
use crate::{DataType, Dim, Tensor, TensorType, ValueType};

/// The type followed by a space, or nothing if it is unknown.
pub(super) fn prefix(ty: &ValueType) -> String {
    match ty {
        ValueType::Unknown => String::new(),
        ValueType::Tensor(tensor) => format!("{} ", tensor_type(tensor)),
        ValueType::Other(bytes) => format!("{ENCODED}(\"{}\") ", hex(bytes)),
    }
}

/// `float[N,4]`; `float` is a scalar, `float[]` a tensor of unknown rank.
pub(super) fn tensor_type(tensor: &TensorType) -> String {
    let dtype = tensor.dtype.map_or(UNDEFINED, DataType::name);
    match tensor.shape.as_deref() {
        None => format!("{dtype}[]"),
        Some([]) => dtype.to_owned(),
        Some(dims) => {
            let dims: Vec<String> = dims.iter().map(dim).collect();
            format!("{dtype}[{}]", dims.join(","))
        }
    }
}

/// The type of a constant.
pub(super) fn of_tensor(tensor: &Tensor) -> String {
    tensor_type(&TensorType::of(tensor))
}

fn dim(dim: &Dim) -> String {
    let text = dim.to_string();
    if is_unknown_dim(dim) {
        "?".to_owned()
    } else if dim.as_const().is_some() || is_identifier(&text) {
        text
    } else {
        quoted(&text)
    }
}
