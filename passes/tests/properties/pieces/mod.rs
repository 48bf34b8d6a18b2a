//! Pieces of graphs as exporters write them, some of which the passes know, and operators at
//! random. A piece that does not suit a value is left out.

mod attention;
mod elementwise;
mod linear;
mod norm;
mod shapes;

use planish_ir::ValueId;

use crate::builder::Builder;

/// Adds nodes that read a value; returns their result.
pub type Piece = fn(&mut Builder, ValueId) -> Option<ValueId>;

/// Every piece; what the passes rewrite most stands more than once.
pub const ALL: &[Piece] = &[
    elementwise::unary,
    elementwise::unary,
    elementwise::binary,
    elementwise::binary,
    elementwise::with_constant,
    elementwise::with_constant,
    elementwise::quotient,
    elementwise::larger,
    elementwise::clip,
    elementwise::swish,
    elementwise::gelu,
    elementwise::no_op,
    elementwise::in_f64,
    linear::linear,
    linear::linear,
    linear::gemm,
    linear::product_of_two,
    linear::fused,
    norm::root_mean_square,
    norm::layer,
    norm::layer_operator,
    norm::reduced,
    attention::attention,
    attention::rotated,
    shapes::split_heads,
    shapes::merge_heads,
    shapes::reordered,
    shapes::there_and_back,
    shapes::sliced,
    shapes::expanded,
    shapes::reshaped_by_its_shape,
    shapes::gathered,
];
