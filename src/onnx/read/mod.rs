//! From ONNX files to the graph IR.
//!
//! What ONNX can say and the IR can't hold is refused: sparse initializers, training information,
//! quantisation annotations, multi-device configurations, tensors in segments. Dropped without a
//! word are only descriptions that nothing reads: doc strings of attributes, names and doc
//! strings of tensors in attributes, denotations of types, `value_info` of values that the graph
//! does not have.

mod attribute;
mod external;
mod function;
mod graph;
mod locate;
mod tensor;
mod types;

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;
use planish_ir::{Model, OpsetImport, verify};
use prost::Message;

use crate::error::{Problem, ReadError};
use crate::proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};
use external::ExternalFiles;
pub use locate::find_model;

/// What the parts of the reader share.
struct Context {
    external: ExternalFiles,
    /// Dimensions so far of which the file says nothing.
    n_unknown_dims: usize,
}

/// Reads the model in the ONNX file at `path`. The file and the external data files beside it
/// are mapped into memory: as long as the model lives, they must not be changed in place (files
/// that are replaced by renaming, as [`crate::write_model`] does, are safe).
///
/// # Errors
/// If a file can't be read, is not ONNX, or says what no graph can mean; see [`ReadError`].
pub fn read_model(path: &Path) -> Result<Model, ReadError> {
    let bytes = map_file(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let external = ExternalFiles::beside(folder, path);
    read(bytes, external, &path.display().to_string())
}

/// Reads a model from memory; external data is looked for in `folder`, if one is given.
///
/// # Errors
/// As [`read_model`].
pub fn read_model_bytes(bytes: Bytes, folder: Option<&Path>) -> Result<Model, ReadError> {
    let external = folder.map_or_else(ExternalFiles::none, |f| ExternalFiles::beside(f, f));
    read(bytes, external, "the model")
}

/// A regular file as shared memory.
fn map_file(path: &Path) -> io::Result<Bytes> {
    // Asked before opening: opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(path)?;
    // SAFETY: the map is only read, as plain bytes. That nobody shortens the file meanwhile is
    // the caller's part, as documented.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

fn read(bytes: Bytes, external: ExternalFiles, file: &str) -> Result<Model, ReadError> {
    let proto =
        decode(bytes).map_err(|reason| ReadError::NotOnnx { file: file.to_owned(), reason })?;
    let mut context = Context { external, n_unknown_dims: 0 };
    let invalid = |problem| ReadError::Invalid { file: file.to_owned(), problem };
    let model = convert(proto, &mut context).map_err(invalid)?;
    verify(&model).map_err(|error| invalid(error.into()))?;
    Ok(model)
}

fn decode(bytes: Bytes) -> Result<ModelProto, String> {
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    let proto = ModelProto::decode(bytes)
        .map_err(|error| format!("it is damaged, cut short or of another kind ({error})"))?;
    if proto.graph.is_none() {
        return Err("it holds no graph".into());
    }
    if proto.ir_version.is_none() {
        return Err("it does not say which version of ONNX's format it is in".into());
    }
    Ok(proto)
}

fn convert(proto: ModelProto, context: &mut Context) -> Result<Model, Problem> {
    let refuse = |present: bool, what| {
        let place = "the model".to_owned();
        if present { Err(Problem::Unsupported { place, what }) } else { Ok(()) }
    };
    refuse(!proto.training_info.is_empty(), "training information")?;
    refuse(!proto.configuration.is_empty(), "a multi-device configuration")?;
    let graph = graph::read(proto.graph.unwrap_or_default(), context)?.finish()?;
    Ok(Model {
        ir_version: proto.ir_version.unwrap_or_default(),
        opset_imports: opset_imports(proto.opset_import),
        producer_name: proto.producer_name.unwrap_or_default(),
        producer_version: proto.producer_version.unwrap_or_default(),
        domain: proto.domain.unwrap_or_default(),
        model_version: proto.model_version.unwrap_or_default(),
        doc: proto.doc_string.unwrap_or_default(),
        metadata: metadata(proto.metadata_props),
        functions: function::read_all(proto.functions, context)?,
        graph,
    })
}

/// `ai.onnx` is another name of ONNX's own domain.
fn domain(name: Option<String>) -> String {
    name.filter(|n| n != "ai.onnx").unwrap_or_default()
}

/// The imports, each domain once with the highest version, as ONNX binds it.
fn opset_imports(protos: Vec<OperatorSetIdProto>) -> Vec<OpsetImport> {
    let mut imports: Vec<OpsetImport> = Vec::new();
    for proto in protos {
        let import = OpsetImport {
            domain: domain(proto.domain),
            version: proto.version.unwrap_or_default(),
        };
        match imports.iter_mut().find(|i| i.domain == import.domain) {
            Some(known) => known.version = known.version.max(import.version),
            None => imports.push(import),
        }
    }
    imports
}

fn metadata(entries: Vec<StringStringEntryProto>) -> Vec<(String, String)> {
    let pair = |e: StringStringEntryProto| (e.key.unwrap_or_default(), e.value.unwrap_or_default());
    entries.into_iter().map(pair).collect()
}
