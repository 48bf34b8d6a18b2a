//! Times of rows through two factors as in learning, beside those of large products.

use super::{Kronecker, KroneckerRows};
use crate::cublas::{self, Gemm};
use crate::{DeviceBuffer, DevicePtr, Element, Gpu, GpuError};

const ROWS: usize = 8192;
const FACTORS: [[usize; 2]; 4] = [[24, 24], [32, 48], [9, 64], [12, 128]];
/// Bytes that are kept for a factor, and for one of n1 · n2 rows.
const SMALL: usize = 64 << 10;
const LARGE: usize = 16 << 20;

/// Bytes of each of the buffers of [`cases`].
pub(super) const BYTES: usize = 4 * ROWS * 12 * 128;

/// What is timed: a name, the bytes that must move, and the launches.
type Case<'a> = (String, usize, Box<dyn Fn() -> Result<(), GpuError> + 'a>);

/// With rows of x, dy and dx in the first buffers and all else in the last.
pub(super) fn cases<'a>(gpu: &'a Gpu, buffers: &'a [DeviceBuffer]) -> Vec<Case<'a>> {
    FACTORS.into_iter().flat_map(|sizes| of(gpu, buffers, sizes)).collect()
}

fn of<'a>(gpu: &'a Gpu, buffers: &'a [DeviceBuffer], [n1, n2]: [usize; 2]) -> Vec<Case<'a>> {
    let [x, dy, dx, rest] = [0, 1, 2, 3].map(|i| buffers[i].ptr());
    let [p1, p2, dp1, dp2] = [0, 1, 2, 3].map(|i| rest.offset(i * SMALL));
    let factors = Kronecker { left: Some(p1), right: Some(p2), n1, n2 };
    let rows = KroneckerRows { factors, rows: ROWS };
    let large = Large {
        gpu,
        factors,
        matrix: rest.offset(4 * SMALL),
        of_matrix: rest.offset(4 * SMALL + LARGE),
    };
    let bytes = 4 * ROWS * n1 * n2;
    let case = |what: &str, passes: usize, run| {
        (format!("{what}, {ROWS} × {n1} · {n2}"), passes * bytes, run)
    };
    let mut cases = vec![];
    if rows.fits(gpu, &[x, dy, dx]) {
        let forward = move || rows.transform(gpu, x, dx, false);
        let back = move || rows.gradients(gpu, [dy, x], dx, [Some(dp1), Some(dp2)]);
        cases.push(case("two factors", 2, Box::new(forward) as Box<dyn Fn() -> _>));
        cases.push(case("gradients of two factors", 3, Box::new(back)));
    }
    // Without cuBLAS there is nothing to compare with.
    if large.transform(x, dx, false).is_ok() {
        let forward = move || large.transform(x, dx, false);
        let back = move || large.gradients([dy, x], dx, [dp1, dp2]);
        cases.push(case("their product", 2, Box::new(forward)));
        cases.push(case("gradients through their product", 3, Box::new(back)));
    }
    cases
}

/// The way by P1 ⊗ P2.
#[derive(Clone, Copy)]
struct Large<'a> {
    gpu: &'a Gpu,
    factors: Kronecker,
    matrix: DevicePtr,
    of_matrix: DevicePtr,
}

impl Large<'_> {
    fn transform(&self, x: DevicePtr, y: DevicePtr, transposed: bool) -> Result<(), GpuError> {
        self.factors.product(self.gpu, self.matrix)?;
        let n = self.factors.n1 * self.factors.n2;
        let product = Gemm {
            rows: ROWS,
            k: n,
            n,
            x,
            trans_x: false,
            w: self.matrix,
            trans_w: transposed,
            out: y,
            element: Element::F32,
            alpha: 1.0,
            accumulate: false,
            tf32: true,
        };
        cublas::gemm(self.gpu, product)
    }

    fn gradients(
        &self,
        [dy, x]: [DevicePtr; 2],
        dx: DevicePtr,
        [dp1, dp2]: [DevicePtr; 2],
    ) -> Result<(), GpuError> {
        self.transform(dy, dx, true)?;
        let n = self.factors.n1 * self.factors.n2;
        let product = Gemm {
            rows: n,
            k: ROWS,
            n,
            x,
            trans_x: true,
            w: dy,
            trans_w: false,
            out: self.of_matrix,
            element: Element::F32,
            alpha: 1.0,
            accumulate: false,
            tf32: true,
        };
        cublas::gemm(self.gpu, product)?;
        self.factors.left_gradient(self.gpu, self.of_matrix, dp1)?;
        self.factors.right_gradient(self.gpu, self.of_matrix, dp2)
    }
}
