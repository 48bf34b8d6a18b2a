//! Weights that are no numbers, found before any work is done: what comes of them may well look
//! like numbers, as maxima and rounding to integers swallow NaN.
use std::path::Path;

use planish_ir::{DataType, Graph, Model, Tensor, ValueId};

use super::error::AppError;

/// Refuses a model that has a weight with an element that is not a finite number.
///
/// A constant of one element may be anything, and −∞ is refused only where a product reads it:
/// masks are made of it.
///
/// # Errors
/// [`AppError::Input`], naming the file and the weight.
pub(super) fn check_weights(model: &Model, file: &Path) -> Result<(), AppError> {
    let graph = &model.graph;
    for id in graph.value_ids() {
        let value = graph.value(id);
        let Some(tensor) = value.constant.as_ref().filter(|tensor| tensor.n_elements() > 1) else {
            continue;
        };
        let found = find(tensor);
        let what = match found {
            Found { nan: true, .. } => "not a number",
            Found { infinite: true, .. } => "infinite",
            Found { minus_infinite: true, .. } if feeds_product(graph, id) => "infinite",
            _ => continue,
        };
        let (path, name) = (file.display(), &value.name);
        let message = format!("{path}: the weight \"{name}\" has an element that is {what}");
        return Err(AppError::Input(message));
    }
    Ok(())
}

/// What a tensor has besides finite numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Found {
    nan: bool,
    infinite: bool,
    minus_infinite: bool,
}

/// Looks at the bits, so that no weight is held as floats.
fn find(tensor: &Tensor) -> Found {
    let bytes = tensor.bytes();
    let widened = |b: &[u8; 2]| u64::from(u16::from_le_bytes(*b));
    match tensor.dtype() {
        DataType::F16 => scan(bytes, 0x7C00, 0x8000, widened),
        DataType::BF16 => scan(bytes, 0x7F80, 0x8000, widened),
        DataType::F32 => {
            scan(bytes, 0x7F80_0000, 0x8000_0000, |b| u64::from(u32::from_le_bytes(*b)))
        }
        DataType::F64 => scan(bytes, 0x7FF0 << 48, 1 << 63, |b| u64::from_le_bytes(*b)),
        _ => Found::default(),
    }
}

/// Elements that are looked at together: a loop that only asks whether all are finite runs as fast
/// as memory is read.
const PART: usize = 4096;

/// `exponent` are the bits that are all set in what is not finite; infinities have no other bit
/// but `sign`.
fn scan<const N: usize>(
    bytes: &[u8],
    exponent: u64,
    sign: u64,
    bits: impl Fn(&[u8; N]) -> u64,
) -> Found {
    let mut found = Found::default();
    let is_finite = |element: &[u8; N]| bits(element) & exponent != exponent;
    for part in bytes.as_chunks::<N>().0.chunks(PART) {
        if part.iter().fold(true, |all, element| all & is_finite(element)) {
            continue;
        }
        for bits in part.iter().filter(|element| !is_finite(element)).map(&bits) {
            found.nan |= bits & !sign != exponent;
            found.infinite |= bits == exponent;
            found.minus_infinite |= bits == exponent | sign;
        }
    }
    found
}

/// Whether a matrix product reads the value, or another form of it.
fn feeds_product(graph: &Graph, value: ValueId) -> bool {
    let forms = ["Transpose", "Cast", "Reshape", "Identity"];
    graph.users(value).into_iter().any(|(id, _)| {
        let node = graph.node(id);
        let is_form = || forms.iter().any(|op| node.is(op));
        let passes_on = || node.output(0).is_some_and(|output| feeds_product(graph, output));
        node.is("MatMul") || node.is("Gemm") || is_form() && passes_on()
    })
}

#[cfg(test)]
mod tests {
    use planish_ir::{Node, ValueType};

    use super::*;

    /// What is said of a model in which `op` reads the tensor.
    fn check(tensor: Tensor, ops: &[&str]) -> String {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let mut w = graph.add_constant("w", tensor);
        for op in ops {
            let inputs = if *op == "Transpose" { vec![Some(w)] } else { vec![Some(x), Some(w)] };
            w = graph.add_op("y", Node::new(*op, inputs));
        }
        graph.outputs.push(w);
        let model = Model { graph, ..Model::default() };
        check_weights(&model, Path::new("m.onnx")).err().map_or(String::new(), |e| e.to_string())
    }

    fn floats(last: f32) -> Tensor {
        Tensor::from_vec(&[3], vec![1.0, 0.0, last])
    }

    #[test]
    fn numbers_pass() {
        for last in [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0] {
            assert_eq!(check(floats(last), &["MatMul"]), "");
        }
        assert_eq!(check(Tensor::from_vec(&[2], vec![-1i64, i64::MAX]), &["Add"]), "");
    }

    #[test]
    fn weights_are_named() {
        let message = check(floats(f32::NAN), &["Add"]);
        assert_eq!(message, "m.onnx: the weight \"w\" has an element that is not a number");
        assert!(check(floats(f32::INFINITY), &["MatMul"]).ends_with("infinite"));
        assert!(check(floats(f32::NEG_INFINITY), &["Transpose", "MatMul"]).ends_with("infinite"));
    }

    #[test]
    fn masks_and_single_constants_may_be_infinite() {
        assert_eq!(check(floats(f32::NEG_INFINITY), &["Add"]), "");
        assert_eq!(check(Tensor::from_vec(&[1], vec![f32::NAN]), &["Where"]), "");
    }

    #[test]
    fn every_float_type_is_looked_at() {
        let found = |dtype, bits: &[u8]| {
            let bytes = [vec![0; bits.len()], bits.to_vec()].concat();
            let found = find(&Tensor::new(dtype, vec![2], bytes.into()).unwrap());
            (found.nan, found.infinite, found.minus_infinite)
        };
        assert_eq!(found(DataType::F16, &0x7C01u16.to_le_bytes()), (true, false, false));
        assert_eq!(found(DataType::F16, &0x7BFFu16.to_le_bytes()), (false, false, false));
        assert_eq!(found(DataType::BF16, &0x7F80u16.to_le_bytes()), (false, true, false));
        assert_eq!(found(DataType::BF16, &0xFF80u16.to_le_bytes()), (false, false, true));
        assert_eq!(found(DataType::F64, &f64::NAN.to_le_bytes()), (true, false, false));
        assert_eq!(found(DataType::F64, &f64::NEG_INFINITY.to_le_bytes()), (false, false, true));
        assert_eq!(found(DataType::F64, &f64::MAX.to_le_bytes()), (false, false, false));
    }
}
