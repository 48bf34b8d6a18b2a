//! How much memory weights take, each counted once.

use std::collections::HashSet;

use planish_ir::Tensor;

use super::plan::Slot;
use crate::engine::constants::SMALL;

/// Adds up the weights of kernels and the constants beside them.
#[derive(Default)]
pub(super) struct WeightBytes {
    /// What kernels hold in a form of their own.
    packed: usize,
    /// Addresses and sizes of what they hold as it is in the file.
    shared: HashSet<(usize, usize)>,
}

impl WeightBytes {
    /// Counts a kernel that holds `n_bytes` in the place of the constants `owned`. Codes are
    /// always packed anew; as many bytes as floats have are the floats themselves, which other
    /// nodes may read too, such as the table of an embedding and a head.
    pub fn add_kernel(&mut self, n_bytes: usize, owned: &[Tensor]) {
        let n_owned: usize = owned.iter().map(|tensor| tensor.bytes().len()).sum();
        if n_bytes == n_owned && owned.iter().all(|tensor| tensor.dtype().is_float()) {
            self.shared.extend(owned.iter().map(place));
        } else {
            self.packed += n_bytes;
        }
    }

    /// Whether the memory of a mapped file is saved by copying `constants` out of it: nobody else
    /// holds on to the file, and they are less than what was packed, hence read, from it.
    pub fn can_leave_file(&self, constants: &[(Slot, Tensor)]) -> bool {
        let in_file = constants.iter().map(|(_, tensor)| tensor.bytes().len());
        let shared = self.shared.iter().filter(|(_, n)| *n > SMALL);
        shared.count() == 0 && in_file.sum::<usize>() < self.packed
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

    #[test]
    fn the_file_is_left_where_that_saves_memory() {
        let codes = Tensor::from_vec(&[100], vec![1i8; 100]);
        let mut bytes = WeightBytes::default();
        bytes.add_kernel(100, std::slice::from_ref(&codes));
        assert_eq!(bytes.total([codes.clone()].iter()), 200, "packed codes are a copy");
        assert!(bytes.can_leave_file(&[(0, Tensor::from_vec(&[24], vec![0f32; 24]))]));
        assert!(!bytes.can_leave_file(&[(0, Tensor::from_vec(&[25], vec![0f32; 25]))]));
        let large = Tensor::from_vec(&[SMALL], vec![0f32; SMALL]);
        bytes.add_kernel(4 * SMALL, &[large]);
        assert!(!bytes.can_leave_file(&[]));
    }
}
