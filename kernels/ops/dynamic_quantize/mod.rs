//! planish's `DynamicQuantize`: symmetric codes of each row (token), with one scale a row.
//!
//! qmax = 2^(bits−1) − 1; amax = max(clip_max · max(X), −clip_min · min(X));
//! scale = max(amax, 1e-8) / qmax; codes = clip(round_half_even(X / scale), −qmax − 1, qmax).

use planish_ir::{DataType, Dim, Function, Tensor};

use super::support::body::{self, Body};
use super::support::quant::Quantiser;
use super::support::{Dense, facts};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("DynamicQuantize", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(super::transform_quantize::cuda::cuda)
    .with_function(function)];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Quantiser::read(op)?;
    Ok(code_facts(facts::required(inputs, 0)?))
}

/// Codes and scales of rows of the shape of `x`.
pub(in crate::ops) fn code_facts(x: &Fact) -> Vec<Fact> {
    let codes = Fact::new(Some(DataType::I8), x.shape.clone());
    let scales = Fact::new(Some(DataType::F32), facts::with_last(x, Dim::from(1i64)));
    vec![codes, scales]
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = Dense::read(required(inputs, 0)?)?;
    let quantiser = Quantiser::read(op)?;
    quantise_rows(&x, |row| quantiser.symmetric(row))
}

/// Codes and scales of the rows of `x`; an error if rows have no channels, and so no range.
pub(in crate::ops) fn quantise_rows(
    x: &Dense,
    quantise: impl Fn(&[f32]) -> (Vec<i8>, f32),
) -> Result<Vec<Tensor>, OpError> {
    if x.last() == 0 {
        return Err(OpError::shape(format!("{:?} has rows without channels", x.shape)));
    }
    let rows: Vec<(Vec<i8>, f32)> = x.rows().map(quantise).collect();
    let (codes, scales): (Vec<Vec<i8>>, Vec<f32>) = rows.into_iter().unzip();
    let mut scale_shape = x.shape.clone();
    scale_shape.pop();
    scale_shape.push(1);
    let scales = Tensor::from_vec(&scale_shape, scales);
    Ok(vec![Tensor::from_vec(&x.shape, codes.concat()), scales])
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("DynamicQuantize", &["X"]);
    let (codes, scale) = body::quantize(&mut body, inputs[0]);
    body.finish(&[(codes, "codes"), (scale, "scale")])
}
