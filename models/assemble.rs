//! One ONNX tensor out of the GGUF tensors that the manifest names for it.

use std::fs::File;
use std::path::Path;

use crate::dequantize::dequantize;
use crate::error::{Error, Result, at};
use crate::gguf::{Gguf, GgufError, TensorInfo, Value};
use crate::layout::Matrix;
use crate::manifest::{Layout, Source, TensorEntry};

/// Weights whose rows llama.cpp permutes, and where the number of their heads is stated.
const PERMUTED: [(&str, &str); 2] = [
    (".attn_q.weight", "llama.attention.head_count"),
    (".attn_k.weight", "llama.attention.head_count_kv"),
];

/// Reads tensors through its own handle on the GGUF file, so that threads do not share one.
pub(crate) struct Assembler<'a> {
    header: &'a Gguf,
    path: &'a Path,
    file: File,
}

impl<'a> Assembler<'a> {
    /// `header` is that of the file at `path`.
    pub(crate) fn open(header: &'a Gguf, path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(at(path))?;
        Ok(Self { header, path, file })
    }

    /// The values of `entry`, row-major.
    pub(crate) fn assemble(&mut self, entry: &TensorEntry) -> Result<Vec<f32>> {
        let unfit = |reason| Error::Tensor { tensor: entry.name.clone(), reason };
        let parts = entry
            .from
            .iter()
            .map(|source| self.part(source, &unfit))
            .collect::<Result<Vec<Matrix>>>()?;
        // A vector is a matrix of one row here: its only axis is the matrix's second.
        let axis = entry.concat_axis.unwrap_or(0) + 2 - entry.shape.len().min(2);
        let whole = Matrix::concatenated(parts, axis)
            .ok_or_else(|| unfit(format!("its sources cannot be joined along axis {axis}")))?;
        if entry.grid() != Some((whole.rows, whole.columns)) {
            let (rows, columns) = (whole.rows, whole.columns);
            return Err(unfit(format!(
                "its sources make [{rows}, {columns}], not {:?}",
                entry.shape
            )));
        }
        Ok(whole.values)
    }

    /// A source as f32, unpermuted and turned as the ONNX tensor wants it.
    fn part(&mut self, source: &Source, unfit: &impl Fn(String) -> Error) -> Result<Matrix> {
        let matrix = self.load(&source.gguf).map_err(|error| self.in_gguf(error))?;
        let matrix =
            matrix.ok_or_else(|| unfit(format!("{} has neither one nor two axes", source.gguf)))?;
        let matrix = match self.heads(&source.gguf) {
            Permutation::None => matrix,
            Permutation::Unknown(key) => {
                return Err(unfit(format!("{} needs {key}, which is not stated", source.gguf)));
            }
            Permutation::Heads(heads) => matrix.unpermuted(heads).ok_or_else(|| {
                unfit(format!("the rows of {} do not make {heads} even heads", source.gguf))
            })?,
        };
        Ok(match source.layout {
            Layout::AsIs => matrix,
            Layout::Transposed => matrix.transposed(),
        })
    }

    fn load(&mut self, name: &str) -> std::result::Result<Option<Matrix>, GgufError> {
        let info = self.header.tensor(name)?;
        let values = dequantize(info.dtype, &info.read(&mut self.file)?)?;
        Ok(grid(info).and_then(|(rows, columns)| Matrix::new(rows, columns, values)))
    }

    fn heads(&self, name: &str) -> Permutation {
        let Some((_, key)) = PERMUTED.into_iter().find(|(suffix, _)| name.ends_with(suffix)) else {
            return Permutation::None;
        };
        let heads = self.header.metadata(key).and_then(Value::as_u64);
        heads
            .and_then(|heads| usize::try_from(heads).ok())
            .map_or(Permutation::Unknown(key), Permutation::Heads)
    }

    fn in_gguf(&self, error: GgufError) -> Error {
        Error::Gguf { path: self.path.to_owned(), error }
    }
}

/// Whether, and how, a GGUF tensor's rows are permuted.
enum Permutation {
    None,
    Heads(usize),
    /// They are, but this metadata key, which says how, is missing.
    Unknown(&'static str),
}

fn grid(info: &TensorInfo) -> Option<(usize, usize)> {
    let axis = |axis: u64| usize::try_from(axis).ok();
    match info.shape[..] {
        [columns] => Some((1, axis(columns)?)),
        [rows, columns] => Some((axis(rows)?, axis(columns)?)),
        _ => None,
    }
}
