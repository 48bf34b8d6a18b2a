//! Cases of elementwise operators, and of casts.

use planish_ir::{DataType, Tensor};
use planish_kernels::{DOMAIN, MICROSOFT};

use crate::case::{bools, case, floats, ints, list, narrow, node};

/// What is tested here.
pub const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Cos",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "FastGelu",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Sqrt",
    "Sub",
    "Sum",
    "SwiGLU",
    "Swish",
    "Tanh",
    "Where",
    "Xor",
];

/// Shapes of two operands, of every way to broadcast.
const SHAPES: [[&[usize]; 2]; 8] = [
    [&[3, 64], &[3, 64]],
    [&[5, 7], &[5, 7]],
    [&[4, 24], &[24]],
    [&[24], &[4, 24]],
    [&[2, 3, 8], &[]],
    [&[2, 3, 1], &[1, 16]],
    [&[2, 1, 3, 1, 5], &[4, 1, 6, 5]],
    [&[0, 3], &[1, 3]],
];

#[test]
fn arithmetic_and_comparisons_are_broadcast() {
    for op in [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Max",
        "Min",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
    ] {
        for [a, b] in SHAPES {
            let away_from_zero = |t: Option<Tensor>| {
                let t = t.unwrap();
                let values = t.to_f32_vec().unwrap().into_iter();
                Some(Tensor::from_vec(t.shape(), values.map(|x| x + x.signum()).collect()))
            };
            node(op).agrees(&[floats(1, a), away_from_zero(floats(2, b))]);
            let (x, y) = (ints(3, a, -9, 9), ints(4, b, 1, 9));
            node(op).agrees(&[x.clone(), y.clone()]);
            node(op).agrees(&[narrow(x), narrow(y)]);
        }
    }
}

#[test]
fn remainders_have_the_sign_of_one_of_both() {
    for fmod in [0, 1] {
        let case = || node("Mod").with("fmod", fmod);
        case().agrees(&[ints(1, &[40], -20, 20), ints(2, &[40], 1, 7)]);
        case().agrees(&[ints(1, &[40], -20, 20), ints(2, &[40], -7, 0)]);
        case().agrees(&[list(&[7, -7, 7, -7]), list(&[3, 3, -3, -3])]);
    }
    let of = |v: [f32; 4]| Some(Tensor::from_vec(&[4], v.to_vec()));
    node("Mod").with("fmod", 1).agrees(&[of([5.5, -5.5, 5.5, -5.5]), of([2.0, 2.0, -2.0, -2.0])]);
}

#[test]
fn powers_take_exponents_of_other_types() {
    let base = |seed| {
        let t = floats(seed, &[3, 16]).unwrap();
        Some(Tensor::from_vec(&[3, 16], t.to_f32_vec().unwrap().iter().map(|x| x + 2.0).collect()))
    };
    node("Pow").agrees(&[base(1), floats(2, &[16])]);
    node("Pow").agrees(&[floats(1, &[3, 16]), Some(Tensor::scalar(2.0f32))]);
    node("Pow").agrees(&[floats(1, &[3, 16]), Some(Tensor::scalar(3i64))]);
    node("Pow").agrees(&[ints(1, &[10], -5, 5), ints(2, &[10], 0, 6)]);
}

#[test]
fn logic_and_bits() {
    for op in ["And", "Or", "Xor"] {
        node(op).agrees(&[bools(1, &[5, 32]), bools(2, &[5, 32])]);
        node(op).agrees(&[bools(1, &[2, 3, 1, 7]), bools(2, &[1, 1, 5, 7])]);
    }
    for op in ["BitwiseAnd", "BitwiseOr", "BitwiseXor"] {
        node(op).agrees(&[ints(1, &[33], -100, 100), ints(2, &[33], -100, 100)]);
    }
    node("Equal").agrees(&[bools(1, &[33]), bools(2, &[33])]);
    node("Not").agrees(&[bools(1, &[37])]);
    node("BitwiseNot").agrees(&[ints(1, &[37], -50, 50)]);
}

#[test]
fn variadic_operators_take_one_or_more() {
    for op in ["Max", "Min", "Sum", "Mean"] {
        node(op).agrees(&[floats(1, &[4, 8])]);
        node(op).agrees(&[floats(1, &[4, 8]), floats(2, &[8]), floats(3, &[4, 1])]);
    }
}

#[test]
fn functions_of_one_operand() {
    let signed = [floats(1, &[3, 40]), floats(1, &[37])];
    let plain = [
        "Neg",
        "Abs",
        "Sign",
        "Exp",
        "Erf",
        "Tanh",
        "Sigmoid",
        "Relu",
        "Softplus",
        "Round",
        "Floor",
        "Ceil",
        "Cos",
        "Sin",
        "IsNaN",
        "IsInf",
        "Elu",
        "LeakyRelu",
    ];
    for x in &signed {
        for op in plain {
            node(op).agrees(std::slice::from_ref(x));
        }
        let positive = x.as_ref().unwrap();
        let values = positive.to_f32_vec().unwrap().iter().map(|x| x.abs() + 0.1).collect();
        let positive = Tensor::from_vec(positive.shape(), values);
        for op in ["Sqrt", "Reciprocal", "Log"] {
            node(op).agrees(&[Some(positive.clone())]);
        }
    }
    for op in ["Neg", "Abs", "Sign", "Relu"] {
        node(op).agrees(&[ints(1, &[37], -9, 9)]);
    }
}

#[test]
fn what_is_no_number_stays_visible() {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5, -0.5, 1.5, 2.5, -200.0, 60.0];
    let x = || Some(Tensor::from_vec(&[9], odd.to_vec()));
    for op in ["Exp", "Sigmoid", "Tanh", "Relu", "Round", "IsNaN", "Neg", "Abs", "Sign", "Erf"] {
        node(op).agrees(&[x()]);
    }
    for (positive, negative) in [(1, 1), (1, 0), (0, 1), (0, 0)] {
        let case = node("IsInf").with("detect_positive", positive);
        case.with("detect_negative", negative).agrees(&[x()]);
    }
    for op in ["Max", "Min", "Equal", "Less", "GreaterOrEqual"] {
        node(op).agrees(&[x(), Some(Tensor::scalar(0.5f32))]);
        node(op).agrees(&[Some(Tensor::scalar(0.5f32)), x()]);
    }
}

#[test]
fn activations() {
    let x = || {
        let t = floats(1, &[5, 48]).unwrap();
        Some(Tensor::from_vec(&[5, 48], t.to_f32_vec().unwrap().iter().map(|x| x * 6.0).collect()))
    };
    for domain in ["", MICROSOFT] {
        case(domain, "Gelu", 20).agrees(&[x()]);
        case(domain, "Gelu", 20).with("approximate", "tanh").agrees(&[x()]);
    }
    case(MICROSOFT, "FastGelu", 1).agrees(&[x()]);
    case(MICROSOFT, "FastGelu", 1).agrees(&[x(), floats(2, &[48])]);
    case(MICROSOFT, "QuickGelu", 1).agrees(&[x()]);
    case("", "Swish", 24).agrees(&[x()]);
    case("", "Swish", 24).with("alpha", 1.5f32).agrees(&[x()]);
    case(DOMAIN, "SwiGLU", 1).agrees(&[x(), floats(2, &[5, 48])]);
    case(DOMAIN, "SwiGLU", 1).agrees(&[x(), floats(2, &[1, 48])]);
}

#[test]
fn elements_are_limited_to_a_range() {
    let bound = |x: f32| Some(Tensor::scalar(x));
    for (low, high) in [(bound(-0.3), bound(0.4)), (None, bound(0.1)), (bound(0.5), bound(-0.5))] {
        node("Clip").agrees(&[floats(1, &[3, 33]), low, high]);
    }
    case("", "Clip", 6).with("min", 0.0f32).agrees(&[floats(1, &[33])]);
    node("Clip").agrees(&[ints(1, &[33], -9, 9), Some(Tensor::scalar(0i64))]);
}

#[test]
fn one_of_two_is_chosen() {
    let shapes: [&[usize]; 4] = [&[3, 4, 16], &[], &[16], &[3, 1, 1]];
    for a in shapes {
        for b in shapes {
            node("Where").agrees(&[bools(1, &[3, 4, 16]), floats(2, a), floats(3, b)]);
            node("Where").agrees(&[bools(1, &[4, 1]), ints(2, a, 0, 9), ints(3, b, 0, 9)]);
        }
    }
    node("Where").agrees(&[bools(1, &[5, 7]), bools(2, &[5, 7]), bools(3, &[7])]);
}

#[test]
fn casts_between_all_types() {
    use DataType::{BF16, Bool, F16, F32, I8, I32, I64, U8};
    let x = [-3.7f32, -1.0, -0.2, 0.0, 0.5, 1.0, 2.9, 100.0, 127.4];
    for from in [F32, I64, I32, I8, Bool] {
        let start = node_cast(Some(Tensor::from_vec(&[9], x.to_vec())), from);
        for to in [F32, I64, I32, I8, U8, Bool] {
            let case = || node("Cast").with("to", i64::from(to.to_onnx()));
            case().agrees(std::slice::from_ref(&start));
            node("CastLike").agrees(&[start.clone(), node_cast(list(&[1]), to)]);
        }
        // All floats are kept in the engine's type.
        for (to, tolerance) in [(F16, 1e-3), (BF16, 1e-2)] {
            let case = node("Cast").with("to", i64::from(to.to_onnx())).within(tolerance);
            case.agrees(std::slice::from_ref(&start));
        }
    }
    let odd = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e9, -3e9, 1e4];
    for to in [I64, I32, Bool] {
        let case = node("Cast").with("to", i64::from(to.to_onnx()));
        case.agrees(&[Some(Tensor::from_vec(&[6], odd.clone()))]);
    }
}

/// The tensor cast by the reference.
fn node_cast(x: Option<Tensor>, to: DataType) -> Option<Tensor> {
    let node = planish_ir::Node::new("Cast", Vec::new()).with("to", i64::from(to.to_onnx()));
    let op = planish_kernels::ops::find("", "Cast").unwrap();
    let view = planish_kernels::OpNode { node: &node, opset: 18 };
    Some((op.eval)(&view, &[x]).unwrap().remove(0))
}
