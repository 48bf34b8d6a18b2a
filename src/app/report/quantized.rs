//! Finding in a quantised graph what stands in for the sites of the original.
use planish_ir::{DataType, Graph, Node, NodeId, Tensor, ValueId};
use planish_kernels::DOMAIN;
use planish_passes::sites::{Layout, LinearLayer, Site};

/// What the layers of a site read in the quantised graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// Name of the transformed activation before rounding.
    pub(super) transformed: String,
    /// Name of codes · scale; nothing where activations are not quantised.
    pub(super) rounded: Option<String>,
}

/// The weight of a layer in the quantised graph.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    /// f32 `[channels, n_columns]`, dequantised.
    pub(super) data: Vec<f32>,
    pub(super) n_columns: usize,
    /// What rounding by these scales costs at least on average, Σ scale²/12 over all elements;
    /// nothing where the weight is not quantised.
    pub(super) rounding_noise: Option<f64>,
}

/// Adds what the layers of `site`, one of the original graph's, read in the quantised graph:
/// a `Transform` apart from its quantiser, and codes · scale. Layers are found by the names of
/// their outputs, which quantisation keeps.
pub(super) fn add_reading(
    graph: &mut Graph,
    original: &Graph,
    layout: &Layout,
    site: &Site,
) -> Option<Reading> {
    let product = product(graph, original, layout.linear(*site.linears.first()?))?;
    let node = graph.node(product).clone();
    if node.is("MatMul") {
        let transformed = graph.value(node.input(0)?).name.clone();
        return Some(Reading { transformed, rounded: None });
    }
    let (codes, scale) = (node.input(0)?, node.input(1)?);
    let quantiser = graph.producer_node(codes)?.clone();
    let transformed = match quantiser.op_type.strip_suffix("Quantize")? {
        "Dynamic" => quantiser.input(0)?,
        transform => {
            let node = Node::new(transform, quantiser.inputs.clone()).with_domain(DOMAIN);
            graph.add_op("planish.report.transformed", node)
        }
    };
    let to = i64::from(DataType::F32.to_onnx());
    let name = "planish.report.rounded";
    let codes = graph.add_op(name, Node::new("Cast", vec![Some(codes)]).with("to", to));
    let rounded = graph.add_op(name, Node::new("Mul", vec![Some(codes), Some(scale)]));
    let name = |value: ValueId| graph.value(value).name.clone();
    Some(Reading { transformed: name(transformed), rounded: Some(name(rounded)) })
}

/// The weight that stands in for that of a layer of the original graph.
pub(super) fn weight(graph: &Graph, original: &Graph, linear: &LinearLayer) -> Option<Weight> {
    let node = graph.node(product(graph, original, linear)?);
    let (codes, scale) = match node.is("MatMul") {
        false => (node.input(2)?, node.input(3)?),
        true => {
            let weight = node.input(1)?;
            if let Some(tensor) = graph.constant(weight) {
                let n_columns = *tensor.shape().last()?;
                let data = tensor.to_f32_vec().ok()?;
                return Some(Weight { data, n_columns, rounding_noise: None });
            }
            let node = graph.producer_node(weight).filter(|n| n.is("DequantizeLinear"))?;
            (node.input(0)?, node.input(1)?)
        }
    };
    dequantize(graph.constant(codes)?, graph.constant(scale)?)
}

/// Codes `[K, N]` times scale `[N]` or `[K / block_size, N]`.
fn dequantize(codes: &Tensor, scale: &Tensor) -> Option<Weight> {
    let &[n_rows, n_columns] = codes.shape() else { return None };
    let (codes, scale) = (codes.to_i64_vec().ok()?, scale.to_f32_vec().ok()?);
    let n_groups = scale.len() / n_columns.max(1);
    if n_groups == 0 || scale.len() != n_groups * n_columns || !n_rows.is_multiple_of(n_groups) {
        return None;
    }
    let block_size = n_rows / n_groups;
    let mut noise = 0.0;
    let mut data = Vec::with_capacity(codes.len());
    for (row, codes) in codes.chunks_exact(n_columns).enumerate() {
        let scale = scale.get(row / block_size * n_columns..)?.get(..n_columns)?;
        data.extend(codes.iter().zip(scale).map(|(code, scale)| *code as f32 * scale));
        noise += scale.iter().map(|s| f64::from(s * s)).sum::<f64>() / 12.0;
    }
    Some(Weight { data, n_columns, rounding_noise: Some(noise) })
}

/// The node of the quantised graph that multiplies by the weight of a layer.
fn product(graph: &Graph, original: &Graph, linear: &LinearLayer) -> Option<NodeId> {
    let output = graph.find_value(&original.value(linear.output).name)?;
    let is_product = |id: &NodeId| {
        let node = graph.node(*id);
        let ours = ["QuantizedMatMul", "BlockQuantizedMatMul"];
        node.is("MatMul") || (node.domain == DOMAIN && ours.contains(&node.op_type.as_str()))
    };
    let (node, _) = graph.producer(output)?;
    if is_product(&node) {
        return Some(node);
    }
    let mut terms = graph.node(node).inputs.iter().flatten();
    terms.find_map(|term| graph.producer(*term).map(|(id, _)| id).filter(is_product))
}

#[cfg(test)]
mod tests {
    use planish_passes::quantize::{Clipping, WeightFormat, quantize_columns};

    use super::*;

    #[test]
    fn scales_of_groups_reach_their_rows() {
        let codes = Tensor::from_int4_codes(&[4, 2], &[1, 2, 3, 4, -5, 6, 7, -8]);
        let scale = Tensor::from_vec(&[2, 2], vec![1f32, 10.0, 0.5, 2.0]);
        let weight = dequantize(&codes, &scale).unwrap();
        assert_eq!(weight.data, [1.0, 20.0, 3.0, 40.0, -2.5, 12.0, 3.5, -16.0]);
        let noise = 2.0 * (1.0 + 100.0 + 0.25 + 4.0) / 12.0;
        assert!((weight.rounding_noise.unwrap() - noise).abs() < 1e-9);
    }
    #[test]
    fn the_expected_error_of_rounding_is_near_the_real_one() {
        let wave = |i: i32| (i as f32 * 0.7).sin() * (i as f32 * 0.013).cos();
        let data: Vec<f32> = (0..64 * 32).map(wave).collect();
        let format = WeightFormat { bits: 4, group_size: Some(16) };
        let exact = quantize_columns(&data, 32, format, Clipping::Full).unwrap();
        let weight = dequantize(&exact.codes, &exact.scale).unwrap();
        let ratio = weight.rounding_noise.unwrap() / exact.squared_error;
        assert!((0.8..1.25).contains(&ratio), "{ratio}");
    }
}
