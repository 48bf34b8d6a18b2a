//! Comparing tensors.

use half::f16;
use planish_ir::{DataType, Tensor};

/// What differs between the tensor computed and the one expected, if anything does.
pub fn difference(actual: &Tensor, expected: &Tensor, rtol: f64, atol: f64) -> Option<String> {
    let (dtype, shape) = (expected.dtype(), expected.shape());
    if actual.dtype() != dtype || actual.shape() != shape {
        let (d, s) = (actual.dtype(), actual.shape());
        return Some(format!("{d}{s:?} instead of {dtype}{shape:?}"));
    }
    if !dtype.is_float() {
        let same = match expected.strings() {
            Some(strings) => actual.strings() == Some(strings),
            None => actual.bytes() == expected.bytes(),
        };
        let show = |t: &Tensor| t.to_i64_vec().map_or_else(|_| String::new(), |v| format!("{v:?}"));
        return (!same).then(|| format!("{} instead of {}", show(actual), show(expected)));
    }
    let precision = match dtype {
        DataType::F16 => f64::from(f16::EPSILON.to_f32()),
        DataType::BF16 => 1.0 / 64.0,
        _ => 0.0,
    };
    let (x, y) = (floats(actual), floats(expected));
    let differs = |(x, y): &(&f64, &f64)| {
        let close = (*x - *y).abs() <= atol + rtol.max(precision) * y.abs();
        !(close || *x == *y || (x.is_nan() && y.is_nan()))
    };
    let (x, y) = x.iter().zip(&y).find(differs)?;
    Some(format!("{x} instead of {y}"))
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DataType::F64 => tensor.as_slice::<f64>().unwrap().into_owned(),
        _ => tensor.to_f32_vec().unwrap().into_iter().map(f64::from).collect(),
    }
}
