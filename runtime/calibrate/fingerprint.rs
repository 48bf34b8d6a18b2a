//! A number that stands for a model and a text.

use planish_ir::Model;

/// Bytes at both ends of each weight that count.
const SAMPLED: usize = 4096;

/// Equal for the same graph, weights and tokens; of large weights only the ends are read.
pub fn fingerprint(model: &Model, ids: &[u32]) -> u64 {
    let mut hash = Fnv::default();
    let graph = &model.graph;
    for id in graph.node_ids() {
        hash.add(graph.node(id).describe().as_bytes());
    }
    for tensor in graph.value_ids().filter_map(|v| graph.constant(v)) {
        let bytes = tensor.bytes();
        hash.add(format!("{:?} {}", tensor.shape(), tensor.dtype()).as_bytes());
        hash.add(&bytes[..bytes.len().min(SAMPLED)]);
        hash.add(&bytes[bytes.len().saturating_sub(SAMPLED)..]);
    }
    ids.iter().for_each(|id| hash.add(&id.to_le_bytes()));
    hash.0
}

/// FNV-1a (Fowler, Noll and Vo), 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

#[cfg(test)]
mod tests {
    use planish_ir::Tensor;

    use super::*;

    #[test]
    fn other_weights_and_other_tokens_tell() {
        let model = |last: f32| {
            let mut model = Model::default();
            model.graph.add_constant("w", Tensor::from_vec(&[2], vec![1.0, last]));
            model
        };
        assert_eq!(fingerprint(&model(1.0), &[1, 2]), fingerprint(&model(1.0), &[1, 2]));
        assert_ne!(fingerprint(&model(1.0), &[1, 2]), fingerprint(&model(2.0), &[1, 2]));
        assert_ne!(fingerprint(&model(1.0), &[1, 2]), fingerprint(&model(1.0), &[2, 1]));
    }
}
