//! Rows through two small factors, and gradients through that, in one pass over the rows.

use super::Kronecker;
use super::number::count;
use crate::{Archs, Args, DevicePtr, Function, Gpu, GpuError, Launch, Source};

pub(super) static ROWS: Source = Source {
    name: "kronecker_rows.cu",
    text: include_str!("kronecker_rows.cu"),
    archs: Archs::All,
    variants: &[
        &[("N1", "24"), ("N2", "24"), ("HAS_P2", "1"), ("WARPS", "1"), ("GROUPS", "16")],
        &[("N1", "56"), ("N2", "128"), ("HAS_P2", "1"), ("WARPS", "4"), ("GROUPS", "2")],
        &[("N1", "64"), ("N2", "9"), ("HAS_P2", "0"), ("WARPS", "1"), ("GROUPS", "16")],
    ],
};

pub(super) static GRADS: Source = Source {
    name: "kronecker_grads.cu",
    text: include_str!("kronecker_grads.cu"),
    archs: Archs::All,
    variants: &[
        &[("N1", "24"), ("N2", "24"), ("HAS_P2", "1"), ("WARPS", "1"), ("GROUPS", "12")],
        &[("N1", "32"), ("N2", "48"), ("HAS_P2", "1"), ("WARPS", "1"), ("GROUPS", "7")],
        &[("N1", "64"), ("N2", "9"), ("HAS_P2", "0"), ("WARPS", "2"), ("GROUPS", "6")],
    ],
};

/// The most rows of a factor.
const MOST: usize = 128;
/// Warps of a block, by the registers that they need.
const TRANSFORM_WARPS: usize = 16;
/// Tiles of 16 × 8 that a warp holds between two products.
const HELD_TILES: usize = 12;
/// Tiles of the sums that a warp holds at most, if it can be helped: a row by as few warps as possible, so that
/// operands are read for many tiles each.
const SUM_TILES: usize = 28;
/// Tiles of the sums that leave registers for 12 warps of a block rather than 8.
const FEW_SUM_TILES: usize = 18;
/// Alignment of rows that are copied 16 bytes at a time.
const ALIGNED: u64 = 16;

/// Rows `[rows, n1 · n2]` of f32, each as X `[n1, n2]`, through the factors: their products are of TF32.
#[derive(Debug, Clone, Copy)]
pub struct KroneckerRows {
    /// P1 and P2, and their sizes.
    pub factors: Kronecker,
    /// Number of rows.
    pub rows: usize,
}

/// How a kernel is compiled, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Warps that share a row.
    warps: usize,
    /// Groups of such warps.
    groups: usize,
    /// Bytes of shared memory.
    shared: usize,
}

impl KroneckerRows {
    /// Whether the kernels take factors of these sizes, and rows at these places.
    pub fn fits(&self, gpu: &Gpu, rows_at: &[DevicePtr]) -> bool {
        let limit = gpu.properties().shared_memory_per_block as usize;
        self.transform_plan(limit).is_some()
            && self.gradient_plan(limit).is_some()
            && count(self.rows).is_ok()
            && rows_at.iter().all(|at| at.0.is_multiple_of(ALIGNED))
    }

    /// Writes P1ᵀ · X · P2 `[n1, n2]` of each row, or, `transposed`, P1 · X · P2ᵀ.
    ///
    /// # Errors
    /// If the kernel does not take such factors, or there are too many rows.
    pub fn transform(
        &self,
        gpu: &Gpu,
        x: DevicePtr,
        y: DevicePtr,
        transposed: bool,
    ) -> Result<(), GpuError> {
        let limit = gpu.properties().shared_memory_per_block as usize;
        let plan = self.transform_plan(limit).ok_or_else(|| self.refusal())?;
        let f = self.function(gpu, &ROWS, "kronecker_rows", plan)?;
        let args = self.args(&[x], y).i32(count(self.rows)?).i32(i32::from(transposed));
        gpu.launch(&f, self.launch(gpu, plan), &args)
    }

    /// Writes dX `[rows, n1 · n2]` and, where wanted, dP1 `[n1, n1]` and dP2 `[n2, n2]`, from X and the
    /// gradients dY of its rows as transformed by P1ᵀ and P2. An absent P2 has no gradient.
    ///
    /// # Errors
    /// As [`KroneckerRows::transform`], and if there is no memory.
    pub fn gradients(
        &self,
        gpu: &Gpu,
        [dy, x]: [DevicePtr; 2],
        dx: DevicePtr,
        of_factors: [Option<DevicePtr>; 2],
    ) -> Result<(), GpuError> {
        let limit = gpu.properties().shared_memory_per_block as usize;
        let plan = self.gradient_plan(limit).ok_or_else(|| self.refusal())?;
        let launch = self.launch(gpu, plan);
        let sums = self.sums();
        let parts = gpu.alloc(4 * launch.grid[0] as usize * sums)?;
        let f = self.function(gpu, &GRADS, "kronecker_grads", plan)?;
        let args = self.args(&[dy, x], dx).ptr(parts.ptr()).i32(count(self.rows)?);
        gpu.launch(&f, launch, &args)?;
        let f = self.function(gpu, &GRADS, "kronecker_sum", plan)?;
        let args = of_factors.into_iter().fold(Args::new().ptr(parts.ptr()), Args::optional);
        let args = args.i32(count(launch.grid[0] as usize)?);
        gpu.launch(&f, Launch::linear(sums.div_ceil(32), 256).overlapping(), &args)
    }

    /// Elements of both gradients of factors.
    fn sums(&self) -> usize {
        let Kronecker { right, n1, n2, .. } = self.factors;
        n1 * n1 + right.map_or(0, |_| n2 * n2)
    }

    fn args(&self, inputs: &[DevicePtr], output: DevicePtr) -> Args {
        let args = inputs.iter().copied().fold(Args::new(), Args::ptr);
        args.optional(self.factors.left).optional(self.factors.right).ptr(output)
    }

    /// A block for each multiprocessor: it holds what one has.
    fn launch(&self, gpu: &Gpu, plan: Plan) -> Launch {
        let blocks = self.rows.clamp(1, gpu.properties().multiprocessors as usize);
        let threads = 32 * plan.warps * plan.groups;
        Launch::linear(blocks, threads as u32).with_shared(plan.shared).overlapping()
    }

    fn function(
        &self,
        gpu: &Gpu,
        source: &'static Source,
        entry: &str,
        plan: Plan,
    ) -> Result<Function, GpuError> {
        let Kronecker { right, n1, n2, .. } = self.factors;
        let values = [n1, n2, usize::from(right.is_some()), plan.warps, plan.groups];
        let values = values.map(|value| value.to_string());
        let names = ["N1", "N2", "HAS_P2", "WARPS", "GROUPS"];
        let defines: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
        gpu.function(source, entry, &defines)
    }

    fn refusal(&self) -> GpuError {
        let Kronecker { n1, n2, .. } = self.factors;
        GpuError::unsupported(format!("factors of {n1} and {n2} rows are too large for one pass"))
    }

    /// `None` if the factors have no elements or too many, or don't fit `limit` bytes. The sizes of what lies
    /// in shared memory are those of kronecker_rows.cu.
    fn transform_plan(&self, limit: usize) -> Option<Plan> {
        let Sizes { k1, k2, m1, has_p2, .. } = Sizes::of(&self.factors)?;
        let tiles = m1 / 16;
        let shared_by = |warps: &usize| tiles.div_ceil(*warps) * (k2 / 8) <= HELD_TILES;
        let choices = || [1, 2, 4, 8].into_iter().filter(|warps| *warps <= tiles);
        let warps = choices().find(shared_by).or_else(|| choices().next_back())?;
        let factors = k1 * step_8(m1) + has_p2 * k2 * step_4(k2);
        let group = 2 * k1 * step_8(k2);
        let groups = (limit / 4).saturating_sub(factors) / group;
        let groups = groups.min(TRANSFORM_WARPS / warps);
        let shared = 4 * (factors + groups * group);
        (groups > 0).then_some(Plan { warps, groups, shared })
    }

    /// As `transform_plan`, for kronecker_grads.cu.
    fn gradient_plan(&self, limit: usize) -> Option<Plan> {
        let Sizes { k1, k2, m1, m2, has_p2 } = Sizes::of(&self.factors)?;
        let held = |m: usize, k: usize, warps: usize| (m / 16).div_ceil(warps) * (k / 8);
        let tiles = |warps| held(m1, k1, warps) + has_p2 * held(m2, k2, warps);
        let warps = [1, 2, 4].into_iter().find(|warps| tiles(*warps) <= SUM_TILES).unwrap_or(8);
        let factors = m1 * step_4(k1) + has_p2 * k2 * step_8(k2);
        let group = 2 * (m1 * step_4(k2) + k1 * step_8(m2));
        let groups = (limit / 4).saturating_sub(factors) / group;
        let most_warps = if tiles(warps) <= FEW_SUM_TILES { 12 } else { 8 };
        let groups = groups.min(most_warps / warps);
        // The sums of the groups take the place of the rows.
        let sums = m1 * k1 + has_p2 * m2 * (k2 + 1);
        let shared = 4 * (factors + sums.max(groups * group));
        (groups > 0 && shared <= limit).then_some(Plan { warps, groups, shared })
    }
}

/// n1 and n2 as multiples of 8 and of 16, and 1 if P2 is there.
struct Sizes {
    k1: usize,
    k2: usize,
    m1: usize,
    m2: usize,
    has_p2: usize,
}

impl Sizes {
    fn of(factors: &Kronecker) -> Option<Self> {
        let Kronecker { right, n1, n2, .. } = *factors;
        let fits = [n1, n2].iter().all(|n| (1..=MOST).contains(n));
        let [k1, k2] = [n1, n2].map(|n| n.next_multiple_of(8));
        let [m1, m2] = [n1, n2].map(|n| n.next_multiple_of(16));
        fits.then_some(Self { k1, k2, m1, m2, has_p2: usize::from(right.is_some()) })
    }
}

/// The least step from `n` that is 8 modulo 16.
fn step_8(n: usize) -> usize {
    n + (24 - n % 16) % 16
}

/// The least step from `n` that is 4 modulo 8.
fn step_4(n: usize) -> usize {
    n + (12 - n % 8) % 8
}
