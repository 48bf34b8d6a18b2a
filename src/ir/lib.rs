//! The graph that every part of planish works on: import, canonicalisation, calibration, fusion,
//! emission and execution share this one type.
//!
//! A [`Model`] holds a [`Graph`]; a graph is held in petgraph's `StableDiGraph`, where values are
//! vertices as well as nodes, so nodes with several outputs, absent optional inputs and weights
//! that two nodes share need no tricks. Nothing outside this crate touches petgraph, and the
//! order of every iteration is deterministic.

pub mod attribute;
pub mod dim;
pub mod dtype;
pub mod graph;
pub mod model;
pub mod node;
pub mod tensor;
pub mod text;
pub mod value;
pub mod verify;

mod dim_parse;
mod edit;
mod order;

pub use attribute::Attribute;
pub use dim::Dim;
pub use dtype::DataType;
pub use graph::{Capture, Graph, GraphError};
pub use model::{Function, Model, OpsetImport};
pub use node::{Node, NodeId};
pub use tensor::{Tensor, TensorError};
pub use value::{TensorType, Value, ValueId, ValueType};
pub use verify::{VerifyError, verify};
