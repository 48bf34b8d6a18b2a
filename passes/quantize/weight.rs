//! Rounding weights to a few bits.

use planish_ir::Tensor;

use crate::parallel::for_each_chunk;

/// Steps of the clipping search: ratios 1.00, 0.98, …, 0.50 of the range.
const N_RATIOS: usize = 26;
/// Columns that are gathered together: as many f32 as a cache line holds.
const TILE: usize = 16;

/// How the weights of a layer are rounded: symmetric, codes −2^(bits−1) to 2^(bits−1) − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightFormat {
    /// 4 or 8.
    pub bits: u8,
    /// Weights along the input channels that share a scale; `None`: all of an output channel.
    pub group_size: Option<usize>,
    /// Whether the range is shrunk to where the squared error is least; else the largest weight
    /// is represented exactly.
    pub clip_search: bool,
}

/// A weight in codes.
#[derive(Clone, Debug)]
pub struct QuantizedWeight {
    /// `INT4` or `INT8`, of the shape of the weight.
    pub codes: Tensor,
    /// f32: `[N]` for one scale per output channel, `[K / group_size, N]` for groups.
    pub scale: Tensor,
    /// Σ (w − scale · code)².
    pub squared_error: f64,
    /// Σ w².
    pub squared_norm: f64,
}

/// An element that is infinite or not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

/// Codes and scales of one output channel.
#[derive(Clone, Default)]
struct Channel {
    codes: Vec<i8>,
    scales: Vec<f32>,
    squared_error: f64,
    squared_norm: f64,
}

/// Rounds a weight `[K, N]` of a linear layer, whose output channels are columns. A group size
/// must divide K.
///
/// # Errors
/// If an element is not finite.
pub fn quantize_columns(
    weight: &[f32],
    n_columns: usize,
    format: WeightFormat,
) -> Result<QuantizedWeight, NotFinite> {
    check_finite(weight)?;
    let n_rows = weight.len() / n_columns.max(1);
    let mut channels = vec![Channel::default(); n_columns];
    for_each_chunk(&mut channels, TILE, cost(weight.len(), format), |tile, channels| {
        let first = tile * TILE;
        let mut columns = vec![0.0; n_rows * channels.len()];
        for (i, row) in weight.chunks(n_columns).enumerate() {
            for (j, x) in row[first..first + channels.len()].iter().enumerate() {
                columns[j * n_rows + i] = *x;
            }
        }
        for (channel, column) in channels.iter_mut().zip(columns.chunks(n_rows)) {
            *channel = Channel::new(column, format);
        }
    });
    let codes = transposed(&channels, n_rows, |channel| &channel.codes);
    let n_groups = channels.first().map_or(1, |channel| channel.scales.len());
    let scales = transposed(&channels, n_groups, |channel| &channel.scales);
    let shape =
        if format.group_size.is_some() { vec![n_groups, n_columns] } else { vec![n_columns] };
    Ok(assemble(&channels, &[n_rows, n_columns], codes, Tensor::from_vec(&shape, scales), format))
}

/// Rounds a weight `[N, K]` whose output channels are rows, with one scale for each (a group size
/// is not looked at).
///
/// # Errors
/// If an element is not finite.
pub fn quantize_rows(
    weight: &[f32],
    n_columns: usize,
    format: WeightFormat,
) -> Result<QuantizedWeight, NotFinite> {
    check_finite(weight)?;
    let format = WeightFormat { group_size: None, ..format };
    let n_rows = weight.len() / n_columns.max(1);
    let mut channels = vec![Channel::default(); n_rows];
    for_each_chunk(&mut channels, TILE, cost(weight.len(), format), |tile, channels| {
        let rows = weight[tile * TILE * n_columns..].chunks(n_columns);
        channels
            .iter_mut()
            .zip(rows)
            .for_each(|(channel, row)| *channel = Channel::new(row, format));
    });
    let mut codes = Vec::with_capacity(weight.len());
    channels.iter().for_each(|channel| codes.extend_from_slice(&channel.codes));
    let scales = channels.iter().flat_map(|channel| channel.scales.iter().copied()).collect();
    let scale = Tensor::from_vec(&[n_rows], scales);
    Ok(assemble(&channels, &[n_rows, n_columns], codes, scale, format))
}

fn check_finite(weight: &[f32]) -> Result<(), NotFinite> {
    if weight.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(NotFinite) }
}

fn cost(n: usize, format: WeightFormat) -> usize {
    n * if format.clip_search { N_RATIOS } else { 1 } * 4
}

/// What every channel lists, the channels side by side: `[n, channels]`.
fn transposed<T: Copy>(channels: &[Channel], n: usize, list: impl Fn(&Channel) -> &[T]) -> Vec<T> {
    let mut result = Vec::with_capacity(n * channels.len());
    for i in 0..n {
        result.extend(channels.iter().map(|channel| list(channel)[i]));
    }
    result
}

fn assemble(
    channels: &[Channel],
    shape: &[usize],
    codes: Vec<i8>,
    scale: Tensor,
    format: WeightFormat,
) -> QuantizedWeight {
    let codes = match format.bits {
        4 => Tensor::from_int4_codes(shape, &codes),
        _ => Tensor::from_vec(shape, codes),
    };
    let squared_error = channels.iter().map(|channel| channel.squared_error).sum();
    let squared_norm = channels.iter().map(|channel| channel.squared_norm).sum();
    QuantizedWeight { codes, scale, squared_error, squared_norm }
}

impl Channel {
    fn new(values: &[f32], format: WeightFormat) -> Self {
        let qmax = f32::from((1u8 << (format.bits - 1)) - 1);
        let mut channel = Self { codes: Vec::with_capacity(values.len()), ..Self::default() };
        for group in values.chunks(format.group_size.unwrap_or(values.len()).max(1)) {
            let scale = best_scale(group, qmax, format.clip_search);
            let code = |x: &f32| round(x / scale, qmax) as i8;
            channel.codes.extend(group.iter().map(code));
            channel.squared_error += f64::from(squared_error(group, scale, qmax));
            channel.squared_norm += group.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            channel.scales.push(scale);
        }
        channel
    }
}

/// max|w| / qmax, or with `search` the fraction of it that has the least squared error.
fn best_scale(values: &[f32], qmax: f32, search: bool) -> f32 {
    let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    // Codes of a group of zeros are zero whatever the scale, which must be a number to divide by.
    let full = if largest > 0.0 { (largest / qmax).max(f32::MIN_POSITIVE) } else { 1.0 };
    if !search {
        return full;
    }
    let scales = (0..N_RATIOS).map(|i| full * (1.0 - 0.02 * i as f32));
    let measured = scales.map(|scale| (squared_error(values, scale, qmax), scale));
    measured.fold((f32::INFINITY, full), |best, next| if next.0 < best.0 { next } else { best }).1
}

/// The nearest integer (ties to even) within −qmax − 1 to qmax. Adding and subtracting 1.5 · 2²³
/// rounds like `round_ties_even`, and is vectorised where that is a call per element.
fn round(x: f32, qmax: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x.clamp(-qmax - 1.0, qmax) + MAGIC) - MAGIC
}

/// Σ (w − scale · code)², in eight sums so that the loop is vectorised.
fn squared_error(values: &[f32], scale: f32, qmax: f32) -> f32 {
    let error = |x: f32| (x - scale * round(x / scale, qmax)).powi(2);
    let mut sums = [0.0f32; 8];
    let chunks = values.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|x| error(*x)).sum();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += error(*x));
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Random;

    fn format(bits: u8, group_size: Option<usize>, clip_search: bool) -> WeightFormat {
        WeightFormat { bits, group_size, clip_search }
    }

    fn normal(n: usize) -> Vec<f32> {
        let mut random = Random::new(4);
        (0..n).map(|_| random.normal() as f32).collect()
    }

    #[test]
    fn the_largest_weight_of_a_column_is_exact() {
        let weight = [0.875, 10.0, -0.4375, 20.0, 0.125, -35.0];
        let result = quantize_columns(&weight, 2, format(4, None, false)).unwrap();
        assert_eq!(result.scale.to_f32_vec().unwrap(), [0.125, 5.0]);
        assert_eq!(result.codes.to_i64_vec().unwrap(), [7, 2, -4, 4, 1, -7]);
    }

    #[test]
    fn ties_go_to_even_and_codes_stay_in_range() {
        let rounded = [0.5, 1.5, 2.5, -0.5, -1.5, 9.0, -9.0].map(|x| round(x, 7.0));
        assert_eq!(rounded, [0.0, 2.0, 2.0, 0.0, -2.0, 7.0, -8.0]);
    }

    #[test]
    fn groups_have_scales_of_their_own() {
        let weight = [1.0, 2.0, 3.5, 7.0, 10.0, 20.0, 35.0, 70.0];
        let result = quantize_columns(&weight, 2, format(4, Some(2), false)).unwrap();
        assert_eq!(result.scale.shape(), [2, 2]);
        assert_eq!(result.scale.to_f32_vec().unwrap(), [0.5, 1.0, 5.0, 10.0]);
        assert_eq!(result.codes.to_i64_vec().unwrap(), [2, 2, 7, 7, 2, 2, 7, 7]);
    }

    /// The operator that learning goes through sees the weight as it is rounded in the end.
    #[test]
    fn fake_quantize_columns_gives_the_same_values() {
        let op =
            planish_kernels::ops::find(planish_kernels::DOMAIN, "FakeQuantizeColumns").unwrap();
        let (k, n) = (48, 35);
        let weight = normal(k * n);
        for (bits, group) in [(4, None), (8, None), (4, Some(16))] {
            let result = quantize_columns(&weight, n, format(bits, group, false)).unwrap();
            let (codes, scale) =
                (result.codes.to_f32_vec().unwrap(), result.scale.to_f32_vec().unwrap());
            let rows = group.unwrap_or(k);
            let want: Vec<f32> =
                (0..k * n).map(|i| codes[i] * scale[i / n / rows * n + i % n]).collect();
            let node = planish_ir::Node::new("FakeQuantizeColumns", Vec::new());
            let node = node.with("bits", i64::from(bits));
            let node = node.with("block_size", group.unwrap_or(0) as i64);
            let ones = Tensor::from_vec(result.scale.shape(), vec![1.0f32; scale.len()]);
            let weight = Tensor::from_vec(&[k, n], weight.clone());
            let inputs = [Some(weight), Some(ones.clone()), Some(ones)];
            let op_node = planish_kernels::OpNode { node: &node, opset: 1 };
            let y = (op.eval)(&op_node, &inputs).unwrap();
            assert_eq!(y[0].to_f32_vec().unwrap(), want);
        }
    }

    #[test]
    fn searching_lowers_the_error() {
        let weight = normal(96 * 33);
        let error = |search| {
            let result = quantize_columns(&weight, 33, format(4, None, search)).unwrap();
            result.squared_error / result.squared_norm
        };
        assert!(error(true) < 0.9 * error(false), "{} {}", error(true), error(false));
    }

    #[test]
    fn the_error_is_that_of_the_codes() {
        let weight = normal(40 * 5);
        let result = quantize_columns(&weight, 5, format(8, None, true)).unwrap();
        let (codes, scale) =
            (result.codes.to_f32_vec().unwrap(), result.scale.to_f32_vec().unwrap());
        let error = |(i, x): (usize, &f32)| f64::from(x - codes[i] * scale[i % 5]).powi(2);
        let expected: f64 = weight.iter().enumerate().map(error).sum();
        assert!((result.squared_error - expected).abs() < 1e-3 * expected);
        assert!(expected < 1e-4 * result.squared_norm);
    }

    #[test]
    fn rows_are_rounded_as_columns_of_the_transpose() {
        let weight = normal(20 * 6);
        let turned: Vec<f32> = (0..120).map(|i| weight[i % 20 * 6 + i / 20]).collect();
        let columns = quantize_columns(&weight, 6, format(8, None, true)).unwrap();
        let rows = quantize_rows(&turned, 20, format(8, None, true)).unwrap();
        assert_eq!(rows.scale, columns.scale);
        assert_eq!(rows.codes.shape(), [6, 20]);
        let (a, b) = (rows.codes.to_i64_vec().unwrap(), columns.codes.to_i64_vec().unwrap());
        assert!((0..120).all(|i| a[i] == b[i % 20 * 6 + i / 20]));
    }

    #[test]
    fn zeros_stay_zeros_and_infinities_are_refused() {
        let zeros = quantize_columns(&[0.0; 6], 2, format(4, None, true)).unwrap();
        assert_eq!(zeros.codes.to_i64_vec().unwrap(), [0; 6]);
        assert!(zeros.scale.to_f32_vec().unwrap().iter().all(|s| *s > 0.0));
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(quantize_columns(&[1.0, bad], 1, format(4, None, true)).is_err());
            assert!(quantize_rows(&[1.0, bad], 2, format(8, None, true)).is_err());
        }
    }
}
