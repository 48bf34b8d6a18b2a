//! What several operators share: reading tensors as f32, broadcasting, facts of outputs.

pub(super) mod attend;
pub(super) mod body;
pub(super) mod codes;
pub(super) mod cuda;
pub(super) mod cuda_fake_quantize;
pub(super) mod cuda_held;
pub(super) mod cuda_kronecker;
pub(super) mod cuda_norm_grads;
pub(super) mod cuda_norms;
pub(super) mod cuda_packed;
pub(super) mod cuda_products;
pub(super) mod cuda_transform;
pub(super) mod dense;
pub(super) mod factors;
pub(super) mod facts;
pub(super) mod fake_quantize;
pub(super) mod fast;
pub(super) mod grid;
pub(super) mod heads;
pub(super) mod held;
pub(super) mod kronecker;
pub(super) mod norm_grad;
pub(super) mod packed;
pub(super) mod products;
pub(super) mod quant;
pub(super) mod rotary;
pub(super) mod rows;
pub(super) mod through;
pub(super) mod through_body;

#[cfg(test)]
pub(super) mod cuda_testing;
#[cfg(test)]
pub(super) mod grad_testing;
#[cfg(test)]
pub(super) mod gradient;
#[cfg(test)]
pub(super) mod oracle;
#[cfg(test)]
pub(super) mod surrogate;
#[cfg(test)]
pub(super) mod testing;

pub(super) use dense::Dense;
