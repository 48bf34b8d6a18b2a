//! What comes before attention and attention itself, in one launch where there are few new positions.

use super::attend::{DecodePlan, FEW, ROWS, wants_clusters};
use super::cache::held;
use super::{Attend, KvCache, Prepare, Queries, Rows, sources};
use crate::{Element, Function, Gpu, GpuError};

/// Shared memory that the kernel declares besides what it is given, at most.
const DECLARED: usize = 20_480;

impl KvCache {
    /// [`KvCache::prepare`] and [`KvCache::attend`], in one launch if there are few new positions.
    /// The queries are those of `attend` as they come from their projection; those of `prepare`,
    /// which need not be given, are not looked at.
    ///
    /// # Errors
    /// As both have them, and if they speak of different positions.
    pub fn step(&self, gpu: &Gpu, prepare: &Prepare, attend: &Attend) -> Result<(), GpuError> {
        if prepare.new != attend.new || prepare.past != attend.past {
            return Err(GpuError::unsupported("a step prepares the positions that it attends to"));
        }
        if attend.new == 0 {
            return Ok(());
        }
        let fused = attend.new <= FEW && self.shape().element != Element::F32;
        let plan =
            fused.then(|| self.decode_plan(gpu, attend, wants_clusters(attend))).transpose()?;
        match plan {
            Some(plan) if self.is_one_launch(gpu, prepare, &plan) => {
                self.step_in(gpu, prepare, attend, &plan)
            }
            _ => self.step_in_two(gpu, prepare, attend),
        }
    }

    /// By two launches, whatever the sizes.
    pub(super) fn step_in_two(
        &self,
        gpu: &Gpu,
        prepare: &Prepare,
        attend: &Attend,
    ) -> Result<(), GpuError> {
        let shape = self.shape();
        if prepare.rotation.is_none() && prepare.query_matrix.is_none() {
            self.prepare(gpu, &Prepare { queries: None, ..*prepare })?;
            return self.attend(gpu, attend);
        }
        let width = attend.q_heads * shape.head_dim;
        let out = gpu.alloc(shape.batch * attend.new * width * shape.element.bytes())?;
        let queries = Queries { rows: attend.queries, heads: attend.q_heads, out: out.ptr() };
        self.prepare(gpu, &Prepare { queries: Some(queries), ..*prepare })?;
        let queries = Rows { at: out.ptr(), stride: width };
        self.attend(gpu, &Attend { queries, ..*attend })
    }

    /// Whether a block's queries are one tile, and shared memory has room for all.
    pub(super) fn is_one_launch(&self, gpu: &Gpu, prepare: &Prepare, plan: &DecodePlan) -> bool {
        let room = gpu.properties().shared_memory_per_block as usize;
        plan.rows <= ROWS && self.step_shared(prepare, plan) + DECLARED <= room
    }

    /// Bytes of shared memory, as `NewSpace` divides them; the outputs lie where the matrices were.
    fn step_shared(&self, prepare: &Prepare, plan: &DecodePlan) -> usize {
        let shape = self.shape();
        let padded = shape.head_dim.next_multiple_of(16);
        let pitch = 2 * padded + 16;
        let matrices = [prepare.query_matrix, prepare.key_matrix];
        let held = matrices.iter().flatten().count() * padded * pitch;
        4 * ROWS * pitch + 2 * FEW * shape.row_bytes() + held.max(plan.shared)
    }

    /// By one launch.
    pub(super) fn step_in(
        &self,
        gpu: &Gpu,
        prepare: &Prepare,
        attend: &Attend,
        plan: &DecodePlan,
    ) -> Result<(), GpuError> {
        self.check(&Prepare { queries: None, ..*prepare })?;
        let f = self.step_kernel(gpu, prepare, plan)?;
        let shared = self.step_shared(prepare, plan);
        self.launch_decode(gpu, attend, plan, f, shared, |args| {
            let mut args = prepare.keys.argument(args)?;
            args = prepare.values.argument(args)?;
            args = prepare.transform_args(args)?;
            Ok(self.clip_args(args))
        })
    }

    fn step_kernel(
        &self,
        gpu: &Gpu,
        prepare: &Prepare,
        plan: &DecodePlan,
    ) -> Result<&Function, GpuError> {
        let angle = prepare.rotation.map_or(Element::F32, |r| r.element);
        let index = usize::from(angle == Element::F32) * 4
            + usize::from(plan.clusters) * 2
            + usize::from(plan.is_half());
        held(&self.kernels.step[index], || {
            let angle = ("ANGLE", angle.define().1);
            let mut more = vec![plan.warps_define(), plan.halves_define(), sources::FUSED, angle];
            if plan.clusters {
                more.push(sources::CLUSTER);
            }
            let source = if plan.clusters { &sources::STEP_IN_CLUSTERS } else { &sources::STEP };
            self.function(gpu, source, "attend_decode", &more)
        })
    }
}
