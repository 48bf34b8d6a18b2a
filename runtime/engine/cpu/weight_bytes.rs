//! How much memory weights take, each counted once.

use std::collections::HashSet;

use planish_ir::Tensor;

/// Adds up the weights of kernels and the constants beside them.
#[derive(Default)]
pub(super) struct WeightBytes {
    /// What kernels hold in a form of their own.
    packed: usize,
    /// Addresses and sizes of what they hold as it is in the file.
    shared: HashSet<(usize, usize)>,
}

impl WeightBytes {
    /// Counts a kernel that holds `n_bytes` in the place of the constants `owned`. As many bytes
    /// as these have are these themselves, which other nodes may read too, such as the table of
    /// an embedding and a head.
    pub fn add_kernel(&mut self, n_bytes: usize, owned: &[Tensor]) {
        if n_bytes == owned.iter().map(|tensor| tensor.bytes().len()).sum::<usize>() {
            self.shared.extend(owned.iter().map(place));
        } else {
            self.packed += n_bytes;
        }
    }

    /// All bytes, those of `constants` included.
    pub fn total<'a>(&self, constants: impl Iterator<Item = &'a Tensor>) -> usize {
        let places: HashSet<_> = self.shared.iter().copied().chain(constants.map(place)).collect();
        self.packed + places.into_iter().map(|(_, n)| n).sum::<usize>()
    }
}

fn place(tensor: &Tensor) -> (usize, usize) {
    (tensor.bytes().as_ptr() as usize, tensor.bytes().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_two_nodes_read_counts_once() {
        let table = Tensor::from_vec(&[4], vec![1f32; 4]);
        let mut bytes = WeightBytes::default();
        bytes.add_kernel(16, std::slice::from_ref(&table));
        bytes.add_kernel(5, &[Tensor::from_vec(&[4], vec![2f32; 4])]);
        assert_eq!(bytes.total([table.clone()].iter()), 16 + 5);
    }
}
