//! Initializers and constants.

use planish_onnx::proto::tensor_proto::DataLocation;
use planish_onnx::proto::{GraphProto, TensorProto};

use super::Random;

/// Bytes of an element by ONNX's number of its type, where they are whole.
const WIDTHS: [(i32, usize); 8] =
    [(1, 4), (2, 1), (3, 1), (6, 4), (7, 8), (9, 1), (10, 2), (11, 8)];
/// Types that there are, and two that there are not.
const N_TYPES: usize = 30;

/// Changes one initializer: small ones, which hold sizes and axes, more often than others.
pub fn change(graph: &mut GraphProto, random: &mut Random) {
    let is_small = |t: &TensorProto| count(t).is_some_and(|n| n <= 8);
    let all = graph.initializer.len();
    let small: Vec<usize> = (0..all).filter(|i| is_small(&graph.initializer[*i])).collect();
    let any = random.below(all);
    let chosen = random.pick(&small).copied().filter(|_| !random.one_in(4)).unwrap_or(any);
    if let Some(tensor) = graph.initializer.get_mut(chosen) {
        change_tensor(tensor, random);
    }
}

/// Changes a tensor: an element, its shape with or without its data, its type, its place.
pub fn change_tensor(tensor: &mut TensorProto, random: &mut Random) {
    match random.below(12) {
        0..6 => change_element(tensor, random),
        6..9 => {
            random.change_list(&mut tensor.dims, |r| r.below(5) as i64);
            fit(tensor);
        }
        9 => random.change_list(&mut tensor.dims, Random::integer),
        10 => {
            tensor.data_type = Some(random.below(N_TYPES) as i32);
            fit(tensor);
        }
        _ => {
            let is_external = tensor.data_location() == DataLocation::External;
            let place = if is_external { DataLocation::Default } else { DataLocation::External };
            tensor.data_location = Some(place as i32);
        }
    }
}

fn change_element(tensor: &mut TensorProto, random: &mut Random) {
    let Some(width) = width(tensor.data_type()) else { return };
    let element = match tensor.data_type() {
        1 => random.float().to_le_bytes().to_vec(),
        11 => f64::from(random.float()).to_le_bytes().to_vec(),
        _ => random.integer().to_le_bytes()[..width].to_vec(),
    };
    let Some(raw) = tensor.raw_data.as_mut() else { return };
    let mut data = raw.to_vec();
    let at = random.below(data.len() / width) * width;
    if let Some(place) = data.get_mut(at..at + width) {
        place.copy_from_slice(&element);
    }
    *raw = data.into();
}

/// Cuts or fills the data so that it has the size that type and shape say.
fn fit(tensor: &mut TensorProto) {
    const MOST: usize = 4096;
    let n = count(tensor).filter(|n| *n <= MOST).unwrap_or(0);
    if let (Some(width), Some(raw)) = (width(tensor.data_type()), tensor.raw_data.as_mut()) {
        let mut data = raw.to_vec();
        data.resize(n * width, 1);
        *raw = data.into();
    }
}

/// Number of elements, if there can be so many.
fn count(tensor: &TensorProto) -> Option<usize> {
    let sizes = tensor.dims.iter().map(|d| usize::try_from(*d).ok());
    sizes.into_iter().try_fold(1usize, |n, d| n.checked_mul(d?))
}

fn width(data_type: i32) -> Option<usize> {
    WIDTHS.iter().find(|(code, _)| *code == data_type).map(|(_, width)| *width)
}
