//! Kronecker products of small matrices, and gradients through them.

use super::number::{count, grid, launch, launch_blocks};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Launch, Source};

pub(super) static KRONECKER: Source = Source {
    name: "kronecker.cu",
    text: include_str!("kronecker.cu"),
    archs: Archs::All,
    variants: &[&[]],
};

/// P1 `[n1, n1]` and P2 `[n2, n2]`, f32; an absent one is the identity.
#[derive(Debug, Clone, Copy)]
pub struct Kronecker {
    /// P1.
    pub left: Option<DevicePtr>,
    /// P2.
    pub right: Option<DevicePtr>,
    /// n1.
    pub n1: usize,
    /// n2.
    pub n2: usize,
}

impl Kronecker {
    fn args(&self, pointers: [Option<DevicePtr>; 3]) -> Result<Args, GpuError> {
        let args = pointers.into_iter().fold(Args::new(), Args::optional);
        Ok(args.i32(count(self.n1)?).i32(count(self.n2)?))
    }

    /// Writes P1 ⊗ P2, `[n1 · n2, n1 · n2]`.
    ///
    /// # Errors
    /// If it has too many elements.
    pub fn product(&self, gpu: &Gpu, y: DevicePtr) -> Result<(), GpuError> {
        let n = self.n1 * self.n2;
        let args = self.args([self.left, self.right, Some(y)])?;
        launch(gpu, &gpu.function(&KRONECKER, "kronecker", &[])?, n * n, &args)
    }

    /// Writes the gradient of P1 from that of the product.
    ///
    /// # Errors
    /// If there are too many elements.
    pub fn left_gradient(&self, gpu: &Gpu, dy: DevicePtr, dp1: DevicePtr) -> Result<(), GpuError> {
        let f = gpu.function(&KRONECKER, "kronecker_grad_left", &[])?;
        let args = self.args([Some(dy), self.right, Some(dp1)])?;
        launch_blocks(gpu, &f, self.n1 * self.n1, 128, &args)
    }

    /// Writes the gradient of P2 from that of the product.
    ///
    /// # Errors
    /// If there are too many elements.
    pub fn right_gradient(&self, gpu: &Gpu, dy: DevicePtr, dp2: DevicePtr) -> Result<(), GpuError> {
        let f = gpu.function(&KRONECKER, "kronecker_grad_right", &[])?;
        let args = self.args([Some(dy), self.left, Some(dp2)])?;
        let blocks = [count(self.n2)? as u32, grid(self.n2.div_ceil(32))?, 1];
        let launch = Launch { grid: blocks, block: [1024, 1, 1], shared: 0, overlap: true };
        gpu.launch(&f, launch, &args)
    }
}
