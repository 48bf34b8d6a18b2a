//! Elements at given indices.

use super::number::{ALL, Number, WIDTHS, count, launch, of_width, typed};
use super::walk::{Fields, Walk, array};
use crate::{Archs, Args, DevicePtr, Gpu, GpuError, Source};

pub(super) static GATHER: Source = Source {
    name: "gather.cu",
    text: include_str!("gather.cu"),
    archs: Archs::All,
    variants: WIDTHS,
};

pub(super) static SCATTER: Source = Source {
    name: "scatter.cu",
    text: include_str!("scatter.cu"),
    archs: Archs::All,
    variants: ALL,
};

/// Indices on the device; negative ones count from the end.
#[derive(Debug, Clone, Copy)]
pub struct Indices {
    /// Where they are.
    pub at: DevicePtr,
    /// Whether they are i64, not i32.
    pub is_wide: bool,
}

impl Indices {
    /// Indices of a type.
    ///
    /// # Errors
    /// For types other than i64 and i32.
    pub fn new(at: DevicePtr, number: Number) -> Result<Self, GpuError> {
        match number {
            Number::I64 => Ok(Self { at, is_wide: true }),
            Number::I32 => Ok(Self { at, is_wide: false }),
            _ => Err(GpuError::unsupported("indices must be i64 or i32")),
        }
    }

    fn put(self, args: Args) -> Args {
        args.ptr(self.at).i32(i32::from(self.is_wide))
    }
}

/// Sizes of a gather.
#[derive(Debug, Clone, Copy)]
pub struct GatherSizes {
    /// Elements before the axis.
    pub outer: usize,
    /// Elements along the axis.
    pub size: usize,
    /// Elements after the axis.
    pub inner: usize,
    /// Number of indices.
    pub n_indices: usize,
}

/// Slices of x `[outer, size, inner]` at indices, elements of `width` bytes: y
/// `[outer, n_indices, inner]`. An index out of bounds gives zeros.
///
/// # Errors
/// If there are too many elements.
pub fn gather(
    gpu: &Gpu,
    width: usize,
    x: DevicePtr,
    indices: Indices,
    y: DevicePtr,
    sizes: GatherSizes,
) -> Result<(), GpuError> {
    let GatherSizes { outer, size, inner, n_indices } = sizes;
    let (width, inner) = widest(width, inner, &[x, y]);
    let n = outer * n_indices * inner;
    if n == 0 {
        return Ok(());
    }
    let f = of_width(gpu, &GATHER, "gather", width)?;
    let args = indices.put(Args::new().ptr(x)).ptr(y).i32(count(n)?);
    let args = args.i32(count(n_indices)?).i32(count(size)?).i32(count(inner)?);
    launch(gpu, &f, n, &args)
}

/// The widest elements that rows of `inner` elements of `width` bytes consist of, and how many.
fn widest(width: usize, inner: usize, pointers: &[DevicePtr]) -> (usize, usize) {
    let fits = |bytes: &usize| {
        *bytes > width
            && (inner * width).is_multiple_of(*bytes)
            && pointers.iter().all(|p| p.0.is_multiple_of(*bytes as u64))
    };
    let bytes = [16, 8, 4, 2].into_iter().find(fits).unwrap_or(width);
    (bytes, inner * width / bytes)
}

/// `y[at] = x[at with indices[at] at axis]`, of `shape`, `y` and `indices` of shape `picked`.
///
/// # Errors
/// If there are more axes or elements than kernels take.
pub fn gather_elements(
    gpu: &Gpu,
    width: usize,
    (x, shape): (DevicePtr, &[usize]),
    (indices, picked): (Indices, &[usize]),
    axis: usize,
    y: DevicePtr,
) -> Result<(), GpuError> {
    let n: usize = picked.iter().product();
    if n == 0 {
        return Ok(());
    }
    let steps = dense(shape);
    let step = |i: usize| if i == axis { 0 } else { steps[i] };
    let axes: Vec<_> = picked.iter().enumerate().map(|(i, size)| (*size, [step(i)])).collect();
    let walk = Walk::new(&axes)?;
    let f = of_width(gpu, &GATHER, "gather_elements", width)?;
    let args = indices.put(Args::new().ptr(x)).ptr(y).i32(count(n)?);
    let args = args.u64(shape[axis] as u64).u64(steps[axis] as u64).bytes(&walk.to_bytes());
    launch(gpu, &f, n, &args)
}

/// Row-major steps.
pub(super) fn dense(shape: &[usize]) -> Vec<i64> {
    let mut steps = vec![1i64; shape.len()];
    for axis in (1..shape.len()).rev() {
        steps[axis - 1] = steps[axis] * shape[axis] as i64;
    }
    steps
}

/// How tuples of indices name slices of a tensor of shape `[batch..., indexed..., inner...]`.
#[derive(Debug, Clone)]
pub struct Tuples<'a> {
    /// The tensor's shape.
    pub shape: &'a [usize],
    /// Leading axes that tuples and tensor share.
    pub batch_axes: usize,
    /// Indices of a tuple.
    pub length: usize,
    /// Number of tuples.
    pub n: usize,
}

impl Tuples<'_> {
    /// Elements of a slice.
    fn inner(&self) -> usize {
        self.shape[self.batch_axes + self.length..].iter().product()
    }

    fn to_bytes(&self) -> Result<Vec<u8>, GpuError> {
        let batches: usize = self.shape[..self.batch_axes].iter().product();
        let indexed = self.batch_axes..self.batch_axes + self.length;
        let sizes: Vec<i64> = self.shape[indexed.clone()].iter().map(|n| *n as i64).collect();
        let steps = &dense(self.shape)[indexed];
        let fields = array(steps, 0)?.into_iter().fold(Fields::default(), Fields::i64);
        let fields = array(&sizes, 0)?.into_iter().fold(fields, Fields::i64);
        let batch_step: usize = self.shape[self.batch_axes..].iter().product();
        let per_batch = count((self.n / batches.max(1)).max(1))?;
        Ok(fields.i32(self.length as i32).i32(per_batch).i64(batch_step as i64).bytes())
    }
}

/// The slices that tuples name, one after the other.
///
/// # Errors
/// If there are more axes or elements than kernels take.
pub fn gather_nd(
    gpu: &Gpu,
    width: usize,
    x: DevicePtr,
    indices: Indices,
    y: DevicePtr,
    tuples: &Tuples,
) -> Result<(), GpuError> {
    let inner = tuples.inner();
    let n = tuples.n * inner;
    if n == 0 {
        return Ok(());
    }
    let f = of_width(gpu, &GATHER, "gather_nd", width)?;
    let args = indices.put(Args::new().ptr(x)).ptr(y).i32(count(n)?).i32(count(inner)?);
    launch(gpu, &f, n, &args.bytes(&tuples.to_bytes()?))
}

/// `[outer, depth, inner]` of indices `[outer, inner]`: the second of `values` where the index is
/// met, else the first.
///
/// # Errors
/// If there are too many elements.
pub fn one_hot(
    gpu: &Gpu,
    width: usize,
    indices: Indices,
    values: DevicePtr,
    y: DevicePtr,
    [outer, depth, inner]: [usize; 3],
) -> Result<(), GpuError> {
    let n = outer * depth * inner;
    if n == 0 {
        return Ok(());
    }
    let f = of_width(gpu, &GATHER, "one_hot", width)?;
    let args = indices.put(Args::new()).ptr(values).ptr(y).i32(count(n)?);
    launch(gpu, &f, n, &args.i32(count(depth)?).i32(count(inner)?))
}

/// What becomes of an element and an update, in the order of the codes in scatter.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The update; of several the last.
    None,
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// The larger.
    Max,
    /// The smaller.
    Min,
}

/// ONNX's ScatterElements in place: y has shape `shape`, indices and updates `picked`.
///
/// # Errors
/// If there are more axes or elements than kernels take.
pub fn scatter_elements(
    gpu: &Gpu,
    (reduction, number): (Reduction, Number),
    (y, shape): (DevicePtr, &[usize]),
    (indices, picked): (Indices, &[usize]),
    updates: DevicePtr,
    axis: usize,
) -> Result<(), GpuError> {
    if picked.contains(&0) {
        return Ok(());
    }
    let (steps, own) = (dense(shape), dense(picked));
    let others = (0..shape.len()).filter(|i| *i != axis);
    let axes: Vec<_> = others.map(|i| (picked[i], [steps[i], own[i]])).collect();
    let walk = Walk::new(&axes)?;
    count(picked.iter().product())?;
    let f = typed(gpu, &SCATTER, "scatter_elements", number)?;
    let args = indices.put(Args::new().i32(reduction as i32).ptr(y)).ptr(updates);
    let args = args.i32(count(walk.n())?).i32(count(picked[axis])?).u64(shape[axis] as u64);
    let args = args.u64(steps[axis] as u64).u64(own[axis] as u64).bytes(&walk.to_bytes());
    launch(gpu, &f, walk.n(), &args)
}

/// ONNX's ScatterND in place.
///
/// # Errors
/// If there are more axes or elements than kernels take.
pub fn scatter_nd(
    gpu: &Gpu,
    (reduction, number): (Reduction, Number),
    y: DevicePtr,
    indices: Indices,
    updates: DevicePtr,
    tuples: &Tuples,
) -> Result<(), GpuError> {
    let inner = tuples.inner();
    if tuples.n * inner == 0 {
        return Ok(());
    }
    let f = typed(gpu, &SCATTER, "scatter_nd", number)?;
    let args = indices.put(Args::new().i32(reduction as i32).ptr(y)).ptr(updates);
    let args = args.i32(count(tuples.n)?).i32(count(inner)?).bytes(&tuples.to_bytes()?);
    launch(gpu, &f, inner, &args)
}
