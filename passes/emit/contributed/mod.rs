//! The form that ONNX Runtime and onnxruntime-genai run fastest: the operators that ONNX Runtime
//! contributes itself (domain `com.microsoft`), and inputs and outputs as the latter feeds them.

mod attention;
mod blocks;
mod interface;
mod lookup;
mod norms;
mod packed;
mod products;
mod rotary;

#[cfg(test)]
mod tests;

use planish_ir::{Graph, Model, NodeId, ValueId};
use planish_kernels::MICROSOFT;
use planish_kernels::infer::infer;

use super::swish::lower_swish;
use super::transforms::expand_transforms;
use super::{EmitError, opset, types, used};
use crate::half::cast_weights;
pub use interface::CACHE_NAMES;

/// The operator set that is written: that of models by onnxruntime-genai's builder, which ONNX
/// Runtime's own rewriting knows best.
const OPSET: i64 = 21;

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contributed {
    /// `accuracy_level` of products with 4-bit weights: 4 lets activations be rounded to 8 bits
    /// inside, 0 doesn't. With 8-bit weights it is 4.
    pub accuracy_level: i64,
    /// Positions that tables of rotary embeddings have rows for.
    pub n_positions: usize,
}

/// What inputs and outputs of a decoder are for.
#[derive(Clone, Debug)]
pub struct DecoderInputs {
    /// Token ids `[batch, sequence]`.
    pub tokens: ValueId,
    /// Attention mask `[batch, past + sequence]`.
    pub mask: Option<ValueId>,
    /// Positions `[batch, sequence]`.
    pub positions: Option<ValueId>,
    /// The output of logits `[batch, sequence, vocabulary]`.
    pub logits: ValueId,
}

/// What a model that was written looks like from outside; caches are called as [`CACHE_NAMES`] say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The input of token ids.
    pub tokens: String,
    /// The input of the attention mask.
    pub mask: Option<String>,
    /// The input of positions, if any are read.
    pub positions: Option<String>,
    /// The output of logits.
    pub logits: String,
    /// Attentions with a cache.
    pub n_layers: usize,
    /// Query heads, key and value heads, channels of a head.
    pub heads: [usize; 3],
    /// Channels of the stream that the head reads.
    pub hidden_size: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Whether past and present may be one buffer.
    pub shares_buffer: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Rewrites a canonical model whose weights alone are quantised for ONNX Runtime's own operators.
///
/// - products with codes: `MatMulNBits`, which itself rounds activations to 8 bits, block by block,
///   where `accuracy_level` is 4;
/// - a table of codes: `GatherBlockQuantized` on the same data as the head;
/// - transforms: `Reshape` and `MatMul`;
/// - attention: `GroupQueryAttention`, with rotary embedding from tables;
/// - norms: `SimplifiedLayerNormalization` and its like, with the residual sum.
///
/// Inputs that nothing reads any more go, caches are renamed, floats of 16 bits at the boundary
/// become f32.
///
/// # Errors
/// If a weight has no such form, or something needs an operator of planish's own.
pub fn lower_for_onnxruntime(
    model: &mut Model,
    mut inputs: DecoderInputs,
    options: Contributed,
) -> Result<Interface, EmitError> {
    let logits_at = model.graph.outputs.iter().position(|v| *v == inputs.logits);
    interface::widen_boundary(&mut model.graph);
    inputs.logits = logits_at.map_or(inputs.logits, |at| model.graph.outputs[at]);
    interface::ensure_mask(&mut model.graph, &mut inputs);
    expand_transforms(model)?;
    lower_swish(model);
    let attentions = attention::lower_attentions(model, &inputs, options.n_positions)?;
    norms::lower_norms(model)?;
    let mut packed = products::Packed::default();
    products::lower_products(&mut model.graph, options, &mut packed)?;
    lookup::lower_lookups(&mut model.graph, &mut packed);
    packed::pack_projections(&mut model.graph);
    finish(model)?;
    let mut interface = interface::name_interface(model, &inputs, &attentions.caches)?;
    interface.heads = attentions.heads.unwrap_or_default();
    (interface.hidden_size, interface.vocabulary) = head_sizes(model, inputs.logits)?;
    interface.notes = attentions.left;
    Ok(interface)
}

/// Domains, operator set and types.
fn finish(model: &mut Model) -> Result<(), EmitError> {
    used::check_no_own(model)?;
    model.set_opset("", OPSET.max(opset::lowest(model)));
    model.set_opset(MICROSOFT, 1);
    model.ir_version = model.ir_version.max(super::IR_VERSION);
    used::remove_unused_imports(model);
    cast_weights(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    types::declare_results(model)?;
    Ok(())
}

/// Channels that the product behind the logits reads, and that it gives; 0 where that is not known.
fn head_sizes(model: &Model, logits: ValueId) -> Result<(usize, usize), EmitError> {
    let facts = infer(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    let graph = &model.graph;
    let vocabulary = facts.get(logits).dim(-1).and_then(|dim| dim.as_usize()).unwrap_or(0);
    let mut value = logits;
    while let Some(node) = graph.producer_node(value) {
        let weight = node.input(1).and_then(|weight| facts.get(weight).dim(0)?.as_usize());
        match (node.op_type.as_str(), node.input(0)) {
            ("MatMulNBits", _) => return Ok((node.int("K", 0) as usize, vocabulary)),
            ("MatMul", _) => return Ok((weight.unwrap_or(0), vocabulary)),
            (_, Some(x)) => value = x,
            (_, None) => break,
        }
    }
    Ok((0, vocabulary))
}

fn refused(graph: &Graph, id: NodeId, reason: String) -> EmitError {
    EmitError::Refused { node: graph.node(id).describe(), reason }
}
