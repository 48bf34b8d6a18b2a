//! From the graph IR to ONNX files.

mod attribute;
mod external;
mod graph;
mod stream;
mod temp;
mod tensor;
mod types;

use std::path::Path;

use bytes::Bytes;
use planish_ir::text::names::Names;
use planish_ir::{Function, Model, OpsetImport};
use prost::Message;

use crate::error::WriteError;
use crate::proto::{FunctionProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use external::{Data, DataFile, ExistingFile};
use stream::Stream;
use temp::TempFile;

/// Largest protobuf file that readers accept: one byte less than 2 GiB.
const MAX_PROTOBUF: usize = i32::MAX as usize;

/// How to write a model.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Where the data of initializers goes.
    pub external_data: ExternalData,
    /// Which types of intermediate values are written.
    pub value_info: ValueInfo,
}

/// Where the data of initializers goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ExternalData {
    /// Into the ONNX file itself, which must stay below 2 GiB.
    #[default]
    Inline,
    /// Initializers of at least `min_bytes` go to a file called `file_name` beside the ONNX
    /// file. String tensors and tensors in attributes stay in the ONNX file.
    Beside {
        /// Plain file name, such as `model.onnx.data`.
        file_name: String,
        /// Bytes from which on a tensor is external.
        min_bytes: usize,
    },
    /// Initializers that are views of `data`, the contents of the file called `file_name` beside
    /// the ONNX file, stay where they are: for weights that were written before the graph. All
    /// others go into the ONNX file.
    InPlace {
        /// Plain file name, such as `model.onnx.data`.
        file_name: String,
        /// The whole file, mapped.
        data: Bytes,
    },
}

/// Which types of intermediate values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueInfo {
    /// Those that stood in the file that was read.
    #[default]
    Declared,
    /// Those that were inferred as well.
    All,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteReport {
    /// Size of the ONNX file in bytes.
    pub bytes: u64,
    /// Size of the external data file in bytes, 0 if there is none.
    pub external_bytes: u64,
}

/// What the parts of the writer share.
struct Context {
    data: Data,
    value_info: ValueInfo,
}

/// Writes a model to `path`, with its nodes in topological order. Tensors go straight from their
/// bytes to the files; those that share bytes are stored once in the external data file. The
/// files are written under temporary names beside their targets and renamed when they are whole,
/// so a model may replace the files that its own tensors are views of.
///
/// # Errors
/// If a file can't be written, would be larger than protobuf allows, or the graph has a cycle.
pub fn write_model(
    model: &Model,
    path: &Path,
    options: &WriteOptions,
) -> Result<WriteReport, WriteError> {
    let data = match &options.external_data {
        ExternalData::Inline => Data::Inline,
        ExternalData::Beside { file_name, min_bytes } => {
            Data::New(DataFile::create(path, file_name, *min_bytes)?)
        }
        ExternalData::InPlace { file_name, data } => {
            Data::Existing(ExistingFile::new(path, file_name, data)?)
        }
    };
    let mut context = Context { data, value_info: options.value_info };
    let proto = model_proto(model, &mut context)?;
    let bytes = proto.encoded_len();
    if bytes > MAX_PROTOBUF {
        return Err(WriteError::TooLarge { path: path.to_owned(), bytes });
    }
    let io = |source| WriteError::Io { path: path.to_owned(), source };
    let (temp, file) = TempFile::create(path).map_err(io)?;
    let mut stream = Stream::new(file);
    // The stream takes any number of bytes, so encoding itself can't fail.
    proto.encode(&mut stream).map_err(|error| io(error.into()))?;
    stream.finish().map_err(io)?;
    let external_bytes = context.data.finish()?;
    temp.persist().map_err(io)?;
    Ok(WriteReport { bytes: bytes as u64, external_bytes })
}

fn model_proto(model: &Model, context: &mut Context) -> Result<ModelProto, WriteError> {
    let functions = model.functions.iter().map(|f| function(f, context));
    Ok(ModelProto {
        functions: functions.collect::<Result<_, _>>()?,
        ir_version: Some(model.ir_version),
        opset_import: opset_imports(&model.opset_imports),
        producer_name: text(&model.producer_name),
        producer_version: text(&model.producer_version),
        domain: text(&model.domain),
        model_version: (model.model_version != 0).then_some(model.model_version),
        doc_string: text(&model.doc),
        graph: Some(graph::write(&model.graph, &Names::outermost(), context)?),
        metadata_props: metadata(&model.metadata),
        ..ModelProto::default()
    })
}

fn function(function: &Function, context: &mut Context) -> Result<FunctionProto, WriteError> {
    let (names, body) = (Names::outermost(), &function.body);
    let name_of = |id: &planish_ir::ValueId| names.get(body, *id).to_owned();
    let mut defaults = Vec::new();
    for (name, value) in &function.attribute_defaults {
        let place = attribute::Place { node: &function.name, name, graph: body, names: &names };
        defaults.push(attribute::write(value, place, context)?);
    }
    let mut node = graph::constants_as_nodes(body, &names);
    node.extend(graph::nodes(body, &names, context)?);
    Ok(FunctionProto {
        name: text(&function.name),
        input: body.inputs.iter().map(name_of).collect(),
        output: body.outputs.iter().map(name_of).collect(),
        attribute: function.attributes.clone(),
        attribute_proto: defaults,
        node,
        doc_string: text(&function.doc),
        opset_import: opset_imports(&function.opset_imports),
        domain: text(&function.domain),
        overload: text(&function.overload),
        value_info: types::value_infos(body, &names, true, context.value_info)?,
        metadata_props: metadata(&function.metadata),
    })
}

fn opset_imports(imports: &[OpsetImport]) -> Vec<OperatorSetIdProto> {
    let proto = |import: &OpsetImport| OperatorSetIdProto {
        // Written even if empty: some readers ask for the field.
        domain: Some(import.domain.clone()),
        version: Some(import.version),
    };
    imports.iter().map(proto).collect()
}

/// A text field, left out if empty.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn metadata(entries: &[(String, String)]) -> Vec<StringStringEntryProto> {
    let entry = |(key, value): &(String, String)| StringStringEntryProto {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    entries.iter().map(entry).collect()
}
