//! Another basis for the residual stream: x · R in the place of x everywhere between embedding and
//! head (SliceGPT, arXiv 2401.15024; QuaRot, arXiv 2404.00456, and SpinQuant's R₁, arXiv
//! 2405.16406). R is orthogonal, so norms that only look at lengths see nothing of it; it merges
//! into what writes and reads the stream, and nothing of it is left to run.

use planish_ir::{DataType, Graph, Model, NodeId, Tensor, ValueId};

use super::fold::LinearFold;
use super::insert::{floats, replace_constant};
use super::kronecker::multiply_columns;
use super::{Matrix, TransformError};
use crate::half::to_type;
use crate::sites::{Layout, LinearId, Reader, ResidualStream};

/// An orthogonal matrix R = A ⊗ B of the channels of the stream.
#[derive(Clone, Debug)]
pub struct StreamRotation {
    /// A, `[n₁, n₁]`.
    pub left: Matrix,
    /// B, `[n₂, n₂]`.
    pub right: Matrix,
}

/// Rotates the stream of a canonical model, which `stream` must describe. The logits stay as they
/// are, up to rounding; keys and values too. Weights of norms before linear layers become ones.
/// Weights keep their types. An embedding and a head that shared a table have one each afterwards;
/// the layout must be made anew.
///
/// # Errors
/// If the matrix does not have as many channels as the stream, or a weight can't be read.
pub fn rotate_stream(
    model: &mut Model,
    layout: &Layout,
    stream: &ResidualStream,
    rotation: &StreamRotation,
) -> Result<(), TransformError> {
    let graph = &mut model.graph;
    let rotate = Rotate {
        layout,
        rotation,
        turned: (rotation.left.transposed(), rotation.right.transposed()),
    };
    // The head reads the embedding's table while that is as it was.
    for reader in &stream.readers {
        rotate.reader(graph, reader)?;
    }
    for writer in &stream.writers {
        rotate.writer(graph, *writer)?;
    }
    rotate.rows(graph, stream.embedding, 0, None)
}

struct Rotate<'a> {
    layout: &'a Layout,
    rotation: &'a StreamRotation,
    /// Aᵀ and Bᵀ.
    turned: (Matrix, Matrix),
}

impl Rotate<'_> {
    fn channels(&self) -> usize {
        self.rotation.left.n_rows() * self.rotation.right.n_rows()
    }

    /// W becomes W · R, and so does the bias.
    fn writer(&self, graph: &mut Graph, id: LinearId) -> Result<(), TransformError> {
        let linear = self.layout.linear(id);
        self.rows(graph, linear.node, 1, None)?;
        match linear.bias {
            Some(bias) => self.rows(graph, bias.node, bias.index, None),
            None => Ok(()),
        }
    }

    /// The rows of a constant, times `scale` if there is one, become themselves times R.
    fn rows(
        &self,
        graph: &mut Graph,
        node: NodeId,
        index: usize,
        scale: Option<&[f64]>,
    ) -> Result<(), TransformError> {
        let Some((value, dtype, shape)) = constant(graph, node, index) else { return Ok(()) };
        let n = self.channels();
        if shape.last() != Some(&n) {
            return Err(misfit(graph, value));
        }
        let mut data = floats(graph, value)?.into_owned();
        let StreamRotation { left, right } = self.rotation;
        multiply_columns(&mut data, scale, left, right);
        replace_constant(graph, value, node, index, to_type(dtype, &shape, data));
        Ok(())
    }

    /// The layers behind a norm of weight γ read Rᵀ · diag(γ) · W, and the norm's weight is one.
    fn reader(&self, graph: &mut Graph, reader: &Reader) -> Result<(), TransformError> {
        let gamma = match reader.norm {
            Some(norm) => self.take_weight(graph, norm)?,
            None => None,
        };
        for id in &reader.linears {
            self.columns(graph, self.layout.linear(*id).node, gamma.as_deref())?;
        }
        match self.layout.head.as_ref().filter(|_| reader.head) {
            Some(head) => match head.transpose {
                Some(transpose) => self.rows(graph, transpose, 0, gamma.as_deref()),
                None => self.columns(graph, head.node, gamma.as_deref()),
            },
            None => Ok(()),
        }
    }

    /// The weight of a norm, which becomes one.
    fn take_weight(
        &self,
        graph: &mut Graph,
        norm: NodeId,
    ) -> Result<Option<Vec<f64>>, TransformError> {
        let Some((value, dtype, _)) = constant(graph, norm, 1) else { return Ok(None) };
        let n = self.channels();
        let weight = floats(graph, value)?;
        if weight.len() != n && weight.len() != 1 {
            return Err(misfit(graph, value));
        }
        let gamma = (0..n).map(|j| f64::from(weight[j % weight.len()])).collect();
        drop(weight);
        replace_constant(graph, value, norm, 1, to_type(dtype, &[n], vec![1.0; n]));
        Ok(Some(gamma))
    }

    /// The weight of a product becomes Rᵀ · diag(`scale`) · W.
    fn columns(
        &self,
        graph: &mut Graph,
        node: NodeId,
        scale: Option<&[f64]>,
    ) -> Result<(), TransformError> {
        let Some((value, dtype, shape)) = constant(graph, node, 1) else { return Ok(()) };
        let [rows, columns] = shape[..] else { return Err(misfit(graph, value)) };
        if rows != self.channels() {
            return Err(misfit(graph, value));
        }
        let fold = LinearFold {
            row_scale: scale.map(<[f64]>::to_vec),
            row_matrices: Some(self.turned.clone()),
            ..LinearFold::default()
        };
        let folded = fold.fold_weight(&floats(graph, value)?, columns);
        replace_constant(graph, value, node, 1, to_type(dtype, &shape, folded));
        Ok(())
    }
}

fn constant(graph: &Graph, node: NodeId, index: usize) -> Option<(ValueId, DataType, Vec<usize>)> {
    let value = graph.node(node).input(index)?;
    let tensor: &Tensor = graph.constant(value)?;
    Some((value, tensor.dtype(), tensor.shape().to_vec()))
}

fn misfit(graph: &Graph, value: ValueId) -> TransformError {
    let place = format!("\"{}\"", graph.value(value).name);
    TransformError::Misfit { place, reason: "the stream has another number of channels" }
}
