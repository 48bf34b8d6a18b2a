//! Tensors.

use planish_ir::Tensor;

use crate::proto::TensorProto;

/// The tensor without a name, its data inside.
pub(super) fn inline(tensor: &Tensor) -> TensorProto {
    let mut proto = header(tensor);
    match tensor.strings() {
        Some(strings) => proto.string_data = strings.to_vec(),
        None => proto.raw_data = Some(tensor.bytes().clone()),
    }
    proto
}

/// Element type and shape alone.
pub(super) fn header(tensor: &Tensor) -> TensorProto {
    TensorProto {
        dims: tensor.shape().iter().map(|d| *d as i64).collect(),
        data_type: Some(tensor.dtype().to_onnx()),
        ..TensorProto::default()
    }
}
