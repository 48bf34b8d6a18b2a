//! Cases of operators that move elements.

use planish_ir::Tensor;

use crate::case::{bools, case, floats, ints, list, narrow, node};

/// What is tested here.
pub const OPERATORS: &[&str] = &[
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "OneHot",
    "Pad",
    "Range",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
];

#[test]
fn shapes_change_without_a_copy() {
    node("Identity").agrees(&[floats(1, &[2, 3])]);
    node("Reshape").agrees(&[floats(1, &[2, 3, 4]), list(&[0, -1])]);
    node("Flatten").with("axis", 2).agrees(&[floats(1, &[2, 3, 4])]);
    node("Squeeze").agrees(&[floats(1, &[2, 1, 4]), list(&[1])]);
    node("Squeeze").agrees(&[floats(1, &[2, 1, 4])]);
    node("Unsqueeze").agrees(&[ints(1, &[2, 4], 0, 9), list(&[0, -1])]);
}

#[test]
fn axes_change_their_places() {
    let perms: [(&[usize], &[i64]); 7] = [
        (&[5, 7], &[1, 0]),
        (&[70, 130], &[1, 0]),
        (&[2, 5, 3, 8], &[0, 2, 1, 3]),
        (&[2, 40, 3, 16], &[0, 2, 3, 1]),
        (&[33, 2, 35], &[2, 1, 0]),
        (&[2, 3, 4, 5, 6], &[4, 0, 3, 1, 2]),
        (&[1, 6, 1, 4], &[2, 1, 0, 3]),
    ];
    for (shape, perm) in perms {
        let case = || node("Transpose").with("perm", perm.to_vec());
        case().agrees(&[floats(1, shape)]);
        case().agrees(&[ints(1, shape, 0, 99)]);
        case().agrees(&[bools(1, shape)]);
    }
    node("Transpose").agrees(&[floats(1, &[2, 3, 4])]);
}

#[test]
fn tensors_are_joined_and_cut() {
    for axis in [0, 1, -1] {
        let case = || node("Concat").with("axis", axis);
        case().agrees(&[floats(1, &[2, 4, 8]), floats(2, &[2, 4, 8])]);
        let sizes = |n: usize| match axis {
            0 => [n, 3, 5],
            1 => [3, n, 5],
            _ => [3, 5, n],
        };
        case().agrees(&[floats(1, &sizes(1)), floats(2, &sizes(4)), floats(3, &sizes(2))]);
        case().agrees(&[ints(1, &sizes(1), 0, 9), ints(2, &sizes(0), 0, 9)]);
        let split = || node("Split").with("axis", axis).outputs(3);
        split().agrees(&[floats(1, &sizes(9)), list(&[2, 4, 3])]);
        split().with("num_outputs", 3).agrees(&[floats(1, &sizes(8))]);
    }
    node("Split").with("axis", 2).outputs(2).agrees(&[floats(1, &[2, 3, 64]), list(&[16, 48])]);
}

#[test]
fn parts_are_taken_at_steps() {
    let x = || floats(1, &[6, 7, 16]);
    let case = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        node("Slice").agrees(&[x(), list(starts), list(ends), list(axes), list(steps)]);
    };
    case(&[1], &[4], &[0], &[1]);
    case(&[-3], &[i64::MAX], &[1], &[1]);
    case(&[0, 8], &[6, 16], &[0, 2], &[2, 1]);
    case(&[-1], &[i64::MIN], &[2], &[-1]);
    case(&[5, 6], &[0, 0], &[0, 1], &[-2, -3]);
    case(&[3], &[3], &[1], &[1]);
    node("Slice").agrees(&[ints(1, &[9], 0, 9), list(&[2]), list(&[7])]);
}

#[test]
fn tensors_are_repeated() {
    node("Expand").agrees(&[floats(1, &[3, 1, 8]), list(&[2, 1, 5, 1])]);
    node("Expand").agrees(&[bools(1, &[2, 1, 1, 7]), list(&[2, 1, 4, 7])]);
    node("Expand").agrees(&[ints(1, &[1], 0, 9), list(&[3, 5])]);
    node("Tile").agrees(&[floats(1, &[2, 3, 4]), list(&[2, 1, 3])]);
    node("Tile").agrees(&[floats(1, &[2, 3]), list(&[1, 0])]);
}

#[test]
fn elements_are_put_around() {
    for mode in ["constant", "edge", "reflect", "wrap"] {
        let case = || case("", "Pad", 19).with("mode", mode);
        case().agrees(&[floats(1, &[4, 5]), list(&[1, 2, 3, 1])]);
        case().agrees(&[floats(1, &[4, 5]), list(&[0, -1, 2, -1])]);
    }
    node("Pad").agrees(&[floats(1, &[3, 3]), list(&[1, 1, 1, 1]), Some(Tensor::scalar(2.5f32))]);
    let pads = list(&[2, 0]);
    case("", "Pad", 18).agrees(&[ints(1, &[2, 3], 0, 9), pads, None, list(&[1])]);
}

#[test]
fn triangles_and_ranges() {
    for upper in [0, 1] {
        for k in [-2, 0, 1] {
            let case = node("Trilu").with("upper", upper);
            case.agrees(&[floats(1, &[2, 5, 7]), Some(Tensor::scalar(k as i64))]);
        }
        node("Trilu").with("upper", upper).agrees(&[bools(1, &[6, 6])]);
    }
    let scalar = |x: i64| Some(Tensor::scalar(x));
    node("Range").agrees(&[scalar(3), scalar(50), scalar(4)]);
    node("Range").agrees(&[scalar(3), scalar(-9), scalar(-5)]);
    let scalar = |x: f32| Some(Tensor::scalar(x));
    node("Range").agrees(&[scalar(0.5), scalar(9.0), scalar(0.25)]);
}

#[test]
fn slices_are_gathered() {
    for axis in [0, 1, 2] {
        let at = || ints(2, &[2, 3], -4, 4);
        let case = || node("Gather").with("axis", axis);
        case().agrees(&[floats(1, &[4, 5, 16]), at()]);
        case().agrees(&[floats(1, &[4, 5, 7]), narrow(at())]);
        case().agrees(&[ints(1, &[4, 5, 7], 0, 99), Some(Tensor::scalar(-1i64))]);
        let at = || ints(2, &[3, 2, 4], -3, 3);
        let case = || node("GatherElements").with("axis", axis);
        case().agrees(&[floats(1, &[3, 3, 4]), at()]);
        case().agrees(&[floats(1, &[3, 3, 4]), narrow(at())]);
    }
    node("GatherND").agrees(&[floats(1, &[4, 5, 6]), ints(2, &[7, 2], -4, 4)]);
    node("GatherND").agrees(&[floats(1, &[4, 5, 6]), ints(2, &[2, 3, 3], -4, 4)]);
    let batched = node("GatherND").with("batch_dims", 1);
    batched.agrees(&[floats(1, &[3, 5, 6]), ints(2, &[3, 2, 1], -5, 5)]);
}

#[test]
fn updates_are_scattered() {
    for reduction in ["none", "add", "mul", "max", "min"] {
        for axis in [0, 1] {
            let case = || node("ScatterElements").with("axis", axis).with("reduction", reduction);
            let shape = if axis == 0 { [7, 5] } else { [5, 7] };
            let at = || ints(2, &shape, -5, 5);
            case().agrees(&[floats(1, &[5, 5]), at(), floats(3, &shape)]);
            case().agrees(&[ints(1, &[5, 5], 0, 9), narrow(at()), ints(3, &shape, 0, 9)]);
        }
        let case = node("ScatterND").with("reduction", reduction);
        case.agrees(&[floats(1, &[4, 6]), ints(2, &[9, 1], -4, 4), floats(3, &[9, 6])]);
    }
    node("ScatterND").agrees(&[
        floats(1, &[2, 3, 4]),
        ints(2, &[2, 2, 2], -2, 2),
        floats(3, &[2, 2, 4]),
    ]);
}

#[test]
fn indices_become_vectors() {
    for axis in [-1, 0, 1] {
        let values = Some(Tensor::from_vec(&[2], vec![-0.5f32, 2.0]));
        let case = node("OneHot").with("axis", axis);
        case.agrees(&[ints(1, &[3, 4], -6, 7), Some(Tensor::scalar(5i64)), values]);
    }
}
