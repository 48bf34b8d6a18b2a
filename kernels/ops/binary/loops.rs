//! The loops of the fast forms.

use bytemuck::{NoUninit, Pod};

use crate::buffers::Buffer;
use crate::ops::common::parallel::for_each_part;
use crate::ops::common::plan::Plan;
use crate::{CpuContext, OpError};

/// `f(a, b)` for all `n` elements of the broadcast of the operands.
pub(super) fn zip<T: Pod + Sync, U: Pod + NoUninit + Send>(
    context: &CpuContext,
    (a, b): (&[T], &[T]),
    (plan, n): (&Plan<2>, usize),
    f: impl Fn(T, T) -> U + Sync,
) -> Result<Buffer, OpError> {
    let mut buffer = context.buffers.take_for::<U>(n)?;
    for_each_part(context, buffer.as_mut::<U>(), 1, |start, part| {
        plan.walk(start, part.len(), |at, len, [i, j]| {
            stretch(&mut part[at..at + len], &a[i..], &b[j..], plan.steps, &f);
        });
    });
    Ok(buffer)
}

/// One inner loop, written out for each way the operands can step.
fn stretch<T: Pod, U>(out: &mut [U], a: &[T], b: &[T], steps: [usize; 2], f: &impl Fn(T, T) -> U) {
    let n = out.len();
    match steps {
        [0, 0] => out.iter_mut().for_each(|o| *o = f(a[0], b[0])),
        [_, 0] => {
            let b = b[0];
            out.iter_mut().zip(&a[..n]).for_each(|(o, a)| *o = f(*a, b));
        }
        [0, _] => {
            let a = a[0];
            out.iter_mut().zip(&b[..n]).for_each(|(o, b)| *o = f(a, *b));
        }
        _ => {
            let pairs = a[..n].iter().zip(&b[..n]);
            out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o = f(*a, *b));
        }
    }
}
