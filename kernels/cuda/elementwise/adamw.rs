//! AdamW over many tensors at once.

use super::number::{count, launch_blocks};
use super::walk::Fields;
use crate::{Archs, Args, DeviceBuffer, DevicePtr, Gpu, GpuError, Source};

pub(super) static ADAMW: Source = Source {
    name: "adamw.cu",
    text: include_str!("adamw.cu"),
    archs: Archs::All,
    variants: &[&[]],
};

/// Elements that a block takes, as in adamw.cu.
const CHUNK: usize = 4096;
const THREADS: u32 = 256;

/// What is the same for all tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConstants {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Floor of the divisor.
    pub epsilon: f32,
}

/// A tensor that takes part in a step, f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// What is moved.
    pub value: DevicePtr,
    /// As many elements; nothing leaves the value as it is.
    pub gradient: Option<DevicePtr>,
    /// The rate, before the schedule's factor.
    pub rate: f32,
}

/// AdamW without decay, of a list of tensors; moments and numbers of steps are on the device. A
/// gradient with an element that is no finite number moves nothing.
pub struct AdamW {
    constants: AdamWConstants,
    sizes: Vec<usize>,
    /// Both moments of each tensor, one after the other.
    moments: DeviceBuffer,
    states: DeviceBuffer,
    stretches: DeviceBuffer,
    n_stretches: usize,
    table: DeviceBuffer,
    /// What the table holds.
    written: Vec<Moved>,
}

impl AdamW {
    /// Before the first step, for tensors of `sizes` elements.
    ///
    /// # Errors
    /// If a tensor is too large, or there is no memory.
    pub fn new(gpu: &Gpu, sizes: &[usize], constants: AdamWConstants) -> Result<Self, GpuError> {
        let mut stretches = Vec::new();
        for (tensor, size) in sizes.iter().enumerate() {
            count(*size)?;
            let starts = (0..*size).step_by(CHUNK);
            stretches.extend(starts.flat_map(|start| [tensor as u32, start as u32]));
        }
        let bytes = 8 * sizes.iter().sum::<usize>();
        let (moments, states) = (gpu.alloc(bytes)?, gpu.alloc(8 * sizes.len())?);
        gpu.zero(moments.ptr(), bytes)?;
        gpu.zero(states.ptr(), 8 * sizes.len())?;
        let (n_stretches, sizes) = (stretches.len() / 2, sizes.to_vec());
        let (stretches, table) = (gpu.upload(&stretches)?, gpu.alloc(40 * sizes.len())?);
        let written = Vec::new();
        Ok(Self { constants, sizes, moments, states, stretches, n_stretches, table, written })
    }

    /// A step, of rates times `factor`. `tensors` are in the order of the sizes.
    ///
    /// # Errors
    /// If there are not as many as sizes, or a launch fails.
    pub fn step(&mut self, gpu: &Gpu, tensors: &[Moved], factor: f32) -> Result<(), GpuError> {
        if tensors.len() != self.sizes.len() {
            let (got, wanted) = (tensors.len(), self.sizes.len());
            return Err(GpuError::unsupported(format!("AdamW of {got} tensors, not {wanted}")));
        }
        if self.n_stretches == 0 {
            return Ok(());
        }
        if self.written != tensors {
            gpu.write(self.table.ptr(), &self.table_of(tensors)?)?;
            self.written = tensors.to_vec();
        }
        let AdamWConstants { beta_1, beta_2, epsilon } = self.constants;
        let find = |entry| gpu.function(&ADAMW, entry, &[]);
        let all = Args::new().ptr(self.table.ptr()).ptr(self.stretches.ptr());
        let all = all.ptr(self.states.ptr());
        launch_blocks(gpu, &find("adamw_check")?, self.n_stretches, THREADS, &all)?;
        let args = all.f32(factor).f32(beta_1).f32(beta_2).f32(epsilon);
        launch_blocks(gpu, &find("adamw_move")?, self.n_stretches, THREADS, &args)?;
        let args = Args::new().ptr(self.table.ptr()).ptr(self.states.ptr());
        let blocks = self.sizes.len().div_ceil(THREADS as usize);
        let args = args.i32(count(self.sizes.len())?);
        launch_blocks(gpu, &find("adamw_count")?, blocks, THREADS, &args)
    }

    /// The tensors as adamw.cu reads them.
    fn table_of(&self, tensors: &[Moved]) -> Result<Vec<u8>, GpuError> {
        let (mut bytes, mut at) = (Vec::new(), self.moments.ptr());
        for (tensor, size) in tensors.iter().zip(&self.sizes) {
            let (first, second) = (at, at.offset(4 * size));
            at = at.offset(8 * size);
            let pointers = [Some(tensor.value), tensor.gradient, Some(first), Some(second)];
            let fields = pointers.into_iter().fold(Fields::default(), Fields::ptr);
            bytes.extend(fields.f32(tensor.rate).i32(count(*size)?).bytes());
        }
        Ok(bytes)
    }
}
