//! What several operators share: axes, broadcasting, generic reading and picking of elements,
//! and the loops of the fast forms.

pub(super) mod axes;
pub(super) mod broadcast;
pub(super) mod facts;
pub(super) mod fallback;
pub(super) mod index;
pub(super) mod numbers;
pub(super) mod parallel;
pub(super) mod pick;
pub(super) mod plan;
pub(super) mod strided;

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
