//! Checking inference: what it says must hold for the outputs that are expected.

use planish_ir::{DataType, Dim, Tensor};
use planish_kernels::{Fact, OpDef, OpNode};

use super::cases::Case;
use super::compare::difference;

/// What is told of the inputs.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// Types and shapes only.
    Shapes,
    /// Contents as well.
    Contents,
    /// Small integer inputs by their contents, the others by shapes with a symbol for every size
    /// above 1.
    Symbols,
}

/// What inference says that does not hold, if anything.
pub fn contradiction(op: &OpDef, view: &OpNode, case: &Case, known: Known) -> Option<String> {
    let facts: Vec<Fact> = case.inputs.iter().map(|t| fact(t.as_ref(), known)).collect();
    let inferred = match (op.infer)(view, &facts) {
        Ok(inferred) => inferred,
        Err(error) => return Some(format!("inference from {known:?} fails: {error}")),
    };
    if inferred.len() < case.outputs.len() {
        return Some(format!("{} facts for {} outputs", inferred.len(), case.outputs.len()));
    }
    let pairs = inferred.iter().zip(&case.outputs);
    let wrong = pairs.filter_map(|(fact, t)| t.as_ref().and_then(|t| check(fact, t))).next();
    wrong.map(|wrong| format!("inference from {known:?}: {wrong}"))
}

fn fact(tensor: Option<&Tensor>, known: Known) -> Fact {
    let Some(tensor) = tensor else { return Fact::absent() };
    let mut fact = Fact::of_constant(tensor);
    let is_parameter = tensor.dtype() == DataType::I64 && tensor.shape().len() <= 1;
    match known {
        Known::Contents => return fact,
        Known::Symbols if is_parameter => return fact,
        Known::Symbols => {
            let symbol = |dim: &Dim| match dim.as_const() {
                Some(n) if n > 1 => Dim::symbol(&format!("n{n}")),
                _ => dim.clone(),
            };
            fact.shape = fact.shape.map(|shape| shape.iter().map(symbol).collect());
        }
        Known::Shapes => {}
    }
    (fact.constant, fact.dims) = (None, None);
    fact
}

fn check(fact: &Fact, tensor: &Tensor) -> Option<String> {
    if fact.dtype.is_some_and(|dtype| dtype != tensor.dtype()) {
        return Some(format!("type {:?}, not {}", fact.dtype, tensor.dtype()));
    }
    if let Some(shape) = &fact.shape {
        let agrees = shape.len() == tensor.shape().len()
            && shape.iter().zip(tensor.shape()).all(|(dim, n)| holds(dim, *n as i64));
        if !agrees {
            return Some(format!("shape {shape:?}, not {:?}", tensor.shape()));
        }
    }
    if let Some(dims) = &fact.dims {
        let elements = tensor.to_i64_vec().unwrap_or_default();
        let agrees = dims.len() == elements.len()
            && dims.iter().zip(&elements).all(|(dim, n)| holds(dim, *n));
        if !agrees {
            return Some(format!("elements {dims:?}, not {elements:?}"));
        }
    }
    fact.constant.as_ref().and_then(|constant| difference(constant, tensor, 1e-3, 1e-6))
}

/// Whether the size comes out as `n`; those that only a run can tell may be anything.
fn holds(dim: &Dim, n: i64) -> bool {
    if dim.symbols().iter().any(|symbol| symbol.contains("unknown_")) {
        return true;
    }
    dim.eval(&|symbol| symbol.strip_prefix('n')?.parse().ok()) == Some(n)
}
