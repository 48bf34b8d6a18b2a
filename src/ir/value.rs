//! Values: what nodes read and write.

use bytes::Bytes;

use crate::{DataType, Dim, Tensor};

/// Identity of a value within one graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ValueId(pub(crate) petgraph::stable_graph::NodeIndex);

impl ValueId {
    /// A small number, unique within the graph, for dense side tables.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// Element type and shape of a tensor; `shape: None` means that not even the rank is known.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorType {
    /// Element type; `None` if unknown.
    pub dtype: Option<DataType>,
    /// Sizes, outermost first.
    pub shape: Option<Vec<Dim>>,
}

impl TensorType {
    /// A type whose rank is known.
    pub fn new(dtype: DataType, shape: Vec<Dim>) -> Self {
        Self { dtype: Some(dtype), shape: Some(shape) }
    }

    /// The type of a constant.
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(tensor.dtype(), tensor.shape().iter().map(|d| Dim::from(*d)).collect())
    }

    /// The rank, if known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

/// Type of a value.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum ValueType {
    /// Nothing is known.
    #[default]
    Unknown,
    /// A dense tensor.
    Tensor(TensorType),
    /// A sequence, map, optional or sparse tensor: kept as its encoded `TypeProto`.
    Other(Bytes),
}

impl ValueType {
    /// A tensor of known rank.
    pub fn tensor(dtype: DataType, shape: Vec<Dim>) -> Self {
        Self::Tensor(TensorType::new(dtype, shape))
    }

    /// The tensor type, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

/// A value: a graph input, an initializer, or an output of a node.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// Name, unique within the graph.
    pub name: String,
    /// Type as declared or inferred.
    pub ty: ValueType,
    /// The data of an initializer.
    pub constant: Option<Tensor>,
    /// ONNX `doc_string`.
    pub doc: String,
    /// ONNX `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Whether the type stands in the file (`value_info`, input or output), or was inferred.
    pub declared: bool,
}

impl Value {
    /// Element type, if known.
    pub fn dtype(&self) -> Option<DataType> {
        self.constant.as_ref().map(Tensor::dtype).or(self.ty.as_tensor()?.dtype)
    }

    /// Shape, if the rank is known.
    pub fn shape(&self) -> Option<&[Dim]> {
        self.ty.as_tensor()?.shape.as_deref()
    }
}
