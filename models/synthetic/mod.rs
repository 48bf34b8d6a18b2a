//! Models of a known shape with random weights, for measuring speed and memory.
//!
//! [`generate`] writes the graph as `torch.onnx.export(dynamo=True)` writes that of a Llama at
//! opset 23, and weights that are distributed as trained ones are: normal, with a few channels
//! of the residual stream much larger than the others. Nothing about a model's quality can be
//! learned from it.

mod fill;
mod graph;
mod random;
mod shape;
#[cfg(test)]
mod tests;
mod weights;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use planish_ir::{DataType, Model, Tensor, text};
use planish_onnx::{ExternalData, WriteOptions, write_model};
use serde_json::{Value, json};

use crate::error::{Error, Result, at};
use crate::progress::Progress;
use graph::Written;
pub use shape::LlamaShape;
use weights::Layout;

const DATA: &str = "model.onnx.data";

/// How floats are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// 32 bits.
    F32,
    /// IEEE 754's 16 bits.
    F16,
}

impl FloatType {
    fn dtype(self) -> DataType {
        match self {
            Self::F32 => DataType::F32,
            Self::F16 => DataType::F16,
        }
    }
}

/// Writes the folder `folder` with `model.onnx`, `model.onnx.data` and `config.json` of a Llama.
/// The same shape, type and seed give the same bytes. Weights are streamed to the file: they take
/// no memory.
///
/// # Errors
/// [`Error::Shape`] for sizes that no such model can have, [`Error::Io`] if the folder exists or
/// a file can't be written, [`Error::Write`] if the graph can't.
pub fn generate(
    shape: &LlamaShape,
    dtype: FloatType,
    seed: u64,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    shape.check()?;
    if folder.exists() {
        return Err(at(folder)(io::ErrorKind::AlreadyExists.into()));
    }
    let partial = partial(folder);
    fs::create_dir_all(&partial).map_err(at(&partial))?;
    let filled = fill_folder(shape, dtype.dtype(), seed, &partial, progress)
        .and_then(|()| fs::rename(&partial, folder).map_err(at(folder)));
    if filled.is_err() {
        // Nothing can be done about a folder that can't be removed either.
        let _ = fs::remove_dir_all(&partial);
    }
    filled
}

/// The folder's name while it is not whole.
fn partial(folder: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(folder.file_name().unwrap_or_default());
    name.push(".partial");
    folder.with_file_name(name)
}

fn fill_folder(
    shape: &LlamaShape,
    dtype: DataType,
    seed: u64,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let written = graph::write(shape, dtype.name());
    let layout = Layout::new(&written.weights, dtype);
    let path = folder.join(DATA);
    fill::fill(&layout, seed, &path, progress)?;
    let data = map(&path)?;
    let model = assemble(&written, &layout, &data);
    let options = WriteOptions {
        external_data: ExternalData::InPlace { file_name: DATA.into(), data },
        ..WriteOptions::default()
    };
    let path = folder.join("model.onnx");
    write_model(&model, &path, &options).map_err(|error| Error::Write { path, error })?;
    let path = folder.join("config.json");
    fs::write(&path, format!("{:#}\n", config(shape, dtype))).map_err(at(&path))
}

fn map(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(at(path))?;
    // SAFETY: the map is only read, and nobody else knows of the unfinished folder.
    let map = unsafe { Mmap::map(&file) }.map_err(at(path))?;
    Ok(Bytes::from_owner(map))
}

/// The graph, its weights views of `data`.
fn assemble(written: &Written, layout: &Layout, data: &Bytes) -> Model {
    let mut model = text::parse(&written.text).expect("what is written here follows the syntax");
    let graph = &mut model.graph;
    let n_inputs = graph.inputs.len() - layout.weights.len();
    let weights = graph.inputs.split_off(n_inputs);
    for (id, placed) in weights.into_iter().zip(&layout.weights) {
        let bytes = data.slice(placed.offset as usize..(placed.offset + placed.bytes) as usize);
        let tensor = Tensor::new(layout.dtype, placed.weight.shape.clone(), bytes);
        graph.value_mut(id).constant = Some(tensor.expect("the layout is made of these sizes"));
    }
    model
}

/// `config.json`, as transformers writes it.
fn config(shape: &LlamaShape, dtype: DataType) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "dtype": if dtype == DataType::F16 { "float16" } else { "float32" },
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": 8192,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": false,
        "use_cache": true,
        "vocab_size": shape.vocabulary,
    })
}
