//! Memory that is asked for before it is taken: a size that the numbers in a file lead to must end
//! in an error, neither in an abort nor in the system killing the process.

use planish_ir::{Dim, Tensor};

use crate::{Fact, OpDef, OpError, OpNode};

/// From this size on the system is asked how much memory is free; it may promise more than that.
const ASKED_FROM: usize = 256 << 20;
/// Bytes of an element of the widest kind that reference evaluations work with.
const WIDEST: usize = size_of::<i128>();
/// Inputs up to this size are shown to shape inference with their elements: lists of sizes are
/// short, and nothing else decides the shape of an output.
const MAX_SHOWN: usize = 4096;

/// Where the system says the limit of the control group, in version 2 and version 1.
const GROUP_LIMITS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Checks that there may be memory for `n` elements of `width` bytes.
///
/// # Errors
/// [`OpError::Memory`] if there is not.
pub fn check(n: usize, width: usize) -> Result<usize, OpError> {
    let n_bytes = n.checked_mul(width).filter(|n| *n <= isize::MAX as usize / 2);
    match n_bytes {
        Some(n_bytes) if n_bytes < ASKED_FROM || free().is_none_or(|free| n_bytes <= free) => {
            Ok(n_bytes)
        }
        _ => Err(too_much(n, width)),
    }
}

/// An empty vector with room for `n` elements.
///
/// # Errors
/// [`OpError::Memory`] if there is no memory for them.
pub fn reserve<T>(n: usize) -> Result<Vec<T>, OpError> {
    let mut out = Vec::new();
    check(n, size_of::<T>())?;
    out.try_reserve_exact(n).map_err(|_| too_much(n, size_of::<T>()))?;
    Ok(out)
}

/// The error about `n` elements of `width` bytes.
pub(crate) fn too_much(n: usize, width: usize) -> OpError {
    OpError::Memory { n_bytes: n as u128 * width as u128 }
}

/// Checks that there may be memory to evaluate an operator by its reference, as far as shape
/// inference can tell from the inputs.
///
/// # Errors
/// [`OpError::Memory`] if there is not.
pub fn check_evaluation(
    op: &OpDef,
    node: &OpNode,
    inputs: &[Option<Tensor>],
) -> Result<(), OpError> {
    let fact = |tensor: &Option<Tensor>| match tensor {
        None => Fact::absent(),
        Some(tensor) if tensor.n_elements() <= MAX_SHOWN => Fact::of_constant(tensor),
        Some(tensor) => Fact::new(
            Some(tensor.dtype()),
            Some(tensor.shape().iter().map(|n| Dim::from(*n)).collect()),
        ),
    };
    // What the inputs contradict is for the evaluation to say.
    let Ok(outputs) = (op.infer)(node, &inputs.iter().map(fact).collect::<Vec<_>>()) else {
        return Ok(());
    };
    let sizes = outputs.iter().filter_map(|fact| n_elements(fact.shape.as_deref()?));
    sizes.max().map_or(Ok(()), |n| check(n, WIDEST).map(|_| ()))
}

/// Number of elements of a shape without symbols; the greatest number if it can't be held.
fn n_elements(shape: &[Dim]) -> Option<usize> {
    let sizes: Option<Vec<usize>> = shape.iter().map(Dim::as_usize).collect();
    Some(sizes?.into_iter().fold(1, usize::saturating_mul))
}

/// Bytes that this process can still have; `None` where the system does not say (only Linux does).
fn free() -> Option<usize> {
    let free = in_memory_info(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    // No number if there is no limit.
    let limit = |path: &&str| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    Some(GROUP_LIMITS.iter().filter_map(limit).fold(free, usize::min))
}

/// Memory and swap that `/proc/meminfo` says are available.
fn in_memory_info(text: &str) -> Option<usize> {
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    };
    let available = kibibytes("MemAvailable")?;
    Some(available.saturating_add(kibibytes("SwapFree").unwrap_or(0)).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_is_refused() {
        assert_eq!(check(1 << 20, 4).unwrap(), 4 << 20);
        for (n, width) in [(1usize << 50, 4), (usize::MAX, 2), (usize::MAX, 1), (1 << 62, 8)] {
            let message = check(n, width).unwrap_err().to_string();
            assert!(message.contains("more memory than there is"), "{message}");
        }
        assert!(reserve::<u64>(1 << 48).is_err());
        assert!(reserve::<u64>(100).unwrap().capacity() >= 100);
    }

    #[test]
    fn the_error_tells_the_size() {
        assert!(too_much(1 << 40, 4).to_string().starts_with("4398.0 GB"));
        assert!(too_much(usize::MAX, 16).to_string().contains("GB"));
    }

    #[test]
    fn the_systems_words_are_understood() {
        let text = "MemTotal: 24 kB\nMemAvailable:   17 kB\nSwapTotal: 9 kB\nSwapFree:  3 kB\n";
        assert_eq!(in_memory_info(text), Some(20 << 10));
        assert_eq!(in_memory_info("MemAvailable: 5 kB"), Some(5 << 10));
        assert_eq!(in_memory_info("MemAvailable: much"), None);
        #[cfg(target_os = "linux")]
        assert!(free().unwrap() > 1 << 20);
    }
}
