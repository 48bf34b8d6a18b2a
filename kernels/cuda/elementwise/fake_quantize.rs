//! Rounding to a few bits and reading back, for learning.

use super::number::{FLOATS, Number, count, float_only, launch_blocks, typed};
use super::walk::Fields;
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static FAKE_QUANTIZE: Source = Source {
    name: "fake_quantize.cu",
    text: include_str!("fake_quantize.cu"),
    archs: Archs::All,
    variants: FLOATS,
};

/// Groups that lie side by side of which 32 a block are too few blocks.
const FEW: usize = 16_384;

/// Groups of elements that share a scale, and how they are quantised.
#[derive(Debug, Clone, Copy)]
pub struct FakeQuantize {
    /// Elements of one floating-point type.
    pub x: DevicePtr,
    /// What the largest element is multiplied by: one number, or one for each group.
    pub clip_max: DevicePtr,
    /// What the smallest element is multiplied by.
    pub clip_min: DevicePtr,
    /// Each group has clips of its own.
    pub clips_by_group: bool,
    /// Number of groups.
    pub groups: usize,
    /// Elements of a group.
    pub n: usize,
    /// Distance of a group's elements; as many groups lie side by side.
    pub step: usize,
    /// Bits of a code, 2 to 8.
    pub bits: u32,
    /// Codes from 0 with a zero point, else signed ones.
    pub is_asymmetric: bool,
}

/// The gradients that go back through a [`FakeQuantize`].
#[derive(Debug, Clone, Copy)]
pub struct FakeQuantizeGrad {
    /// Gradient of the result.
    pub dy: DevicePtr,
    /// f32, one number for each group: gradients of its clip of the largest element…
    pub of_max: DevicePtr,
    /// …and of the smallest.
    pub of_min: DevicePtr,
}

impl FakeQuantize {
    /// Writes the result to `y`, or, with gradients, the gradient of x.
    ///
    /// # Errors
    /// If there are too many groups.
    pub fn run(
        &self,
        gpu: &Gpu,
        number: Number,
        y: DevicePtr,
        grad: Option<FakeQuantizeGrad>,
    ) -> Result<(), GpuError> {
        float_only("rounding to a few bits", number)?;
        let (groups, n, step) = (self.groups, self.n, self.step.max(1));
        if groups * n == 0 {
            let sums = grad.into_iter().flat_map(|grad| [grad.of_max, grad.of_min]);
            return sums.into_iter().try_for_each(|sums| gpu.zero(sums, 4 * groups));
        }
        let q_max = match self.is_asymmetric {
            true => (1u32 << self.bits) - 1,
            false => (1u32 << (self.bits - 1)) - 1,
        };
        let pointers = [grad.map(|grad| grad.dy), Some(self.x), Some(self.clip_max)]
            .into_iter()
            .chain([Some(self.clip_min), Some(y)])
            .chain([grad.map(|grad| grad.of_max), grad.map(|grad| grad.of_min)]);
        let fields = pointers.fold(Fields::default(), Fields::ptr);
        let fields = fields.i32(count(groups)?).i32(count(n)?).i32(count(step)?);
        let fields = fields.i32(i32::from(self.clips_by_group)).f32(q_max as f32);
        let args = Args::new().bytes(&fields.i32(i32::from(self.is_asymmetric)).bytes());
        let (entry, blocks, threads) = match n {
            256.. if step > 1 && groups <= FEW => {
                ("fake_quantize_narrow", groups.div_ceil(8), 1024)
            }
            _ if step > 1 => ("fake_quantize_columns", groups.div_ceil(32), 1024),
            0..=512 => ("fake_quantize_warp", groups.div_ceil(8), 256),
            _ => ("fake_quantize_block", groups, 256),
        };
        launch_blocks(gpu, &typed(gpu, &FAKE_QUANTIZE, entry, number)?, blocks, threads, &args)
    }
}
