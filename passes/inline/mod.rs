//! Graphs inside of graphs put in the place of the nodes that hold or call them.
//!
//! Files that are only re-emitted keep their functions and branches; what is canonicalised or run
//! has the functions inlined, and the branches whose condition is settled.

mod branches;
mod functions;
mod splice;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use planish_ir::Model;
use planish_kernels::ops::control_flow::close_all;

use crate::pass::{PassContext, PassError};

pub(crate) use branches::inline_branches;
pub(crate) use functions::inline_functions;

/// The model as engines take it: no calls of functions that they do not know, and no graph that
/// reads more than its node's inputs. Such a model is to be run, not to be written.
///
/// # Errors
/// If a function can't be inlined.
pub fn runnable(model: &Model) -> Result<Cow<'_, Model>, PassError> {
    if !functions::has_calls(model) {
        return Ok(close_all(model));
    }
    let mut inlined = model.clone();
    inline_functions(&mut inlined, &mut PassContext::default())?;
    Ok(Cow::Owned(close_all(&inlined).into_owned()))
}
