//! `weights.json`: what an exporter's external data file holds, and what it is made of.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result, at};

/// The external data file of one exported graph.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// Length of the file.
    pub bytes: u64,
    /// Its tensors, sorted by offset once read by [`Manifest::read`].
    pub tensors: Vec<TensorEntry>,
}

/// One tensor of the external data file.
#[derive(Clone, Debug, Deserialize)]
pub struct TensorEntry {
    /// The ONNX initializer's name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Axes, outermost first: one or two.
    pub shape: Vec<usize>,
    /// Where the tensor begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Hexadecimal SHA-256 of its bytes.
    pub sha256: String,
    /// The GGUF tensors that it is made of, in order.
    pub from: Vec<Source>,
    /// The axis of `shape` along which several sources are joined.
    pub concat_axis: Option<usize>,
}

/// Element types of external data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// Little-endian IEEE 754 single precision.
    Float32,
}

/// A GGUF tensor as a part of an ONNX tensor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Source {
    /// The GGUF tensor's name.
    pub gguf: String,
    /// How it is turned before it is joined with others.
    pub layout: Layout,
}

/// Orientation of an ONNX tensor relative to GGUF's [out, in].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The same axes.
    AsIs,
    /// [in, out].
    Transposed,
}

impl Manifest {
    /// Reads and checks a manifest: tensors lie inside the file, do not overlap, and are as long
    /// as their shapes say.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Manifest`] when it is not valid.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).map_err(at(path))?;
        let invalid = |reason| Error::Manifest { path: path.to_owned(), reason };
        let mut manifest: Self =
            serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        manifest.tensors.sort_by_key(|tensor| tensor.offset);
        manifest.check().map_err(invalid)?;
        Ok(manifest)
    }

    /// Bytes of all tensors, without the padding between them.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.length).sum()
    }

    /// The zero padding: every range of the file that no tensor covers.
    pub fn gaps(&self) -> Vec<Range<u64>> {
        let starts = self.tensors.iter().map(|tensor| tensor.offset).chain([self.bytes]);
        let ends = [0].into_iter().chain(self.tensors.iter().map(TensorEntry::end));
        ends.zip(starts).map(|(end, start)| end..start).filter(|gap| !gap.is_empty()).collect()
    }

    fn check(&self) -> std::result::Result<(), String> {
        let mut free_from = 0;
        for tensor in &self.tensors {
            tensor.check().map_err(|reason| format!("tensor \"{}\" {reason}", tensor.name))?;
            if tensor.offset < free_from {
                return Err(format!("tensor \"{}\" overlaps the one before it", tensor.name));
            }
            free_from = tensor.end();
            if free_from > self.bytes {
                return Err(format!("tensor \"{}\" ends beyond the file", tensor.name));
            }
        }
        Ok(())
    }
}

impl TensorEntry {
    /// Rows and columns of the tensor as a matrix; a vector has one row.
    pub(crate) fn grid(&self) -> Option<(usize, usize)> {
        match self.shape[..] {
            [columns] => Some((1, columns)),
            [rows, columns] => Some((rows, columns)),
            _ => None,
        }
    }

    /// Where the tensor ends in the file.
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let (rows, columns) = self.grid().ok_or("has neither one nor two axes")?;
        let elements = rows.checked_mul(columns).and_then(|elements| elements.checked_mul(4));
        if elements.map(|bytes| bytes as u64) != Some(self.length) {
            return Err(format!(
                "is {} bytes long, but its shape is {:?}",
                self.length, self.shape
            ));
        }
        if self.from.is_empty() {
            return Err("names no GGUF tensor".into());
        }
        if self.concat_axis.is_some_and(|axis| axis >= self.shape.len()) {
            return Err("is joined along an axis that it does not have".into());
        }
        if self.from.len() > 1 && self.concat_axis.is_none() {
            return Err("is made of several GGUF tensors, but names no concat_axis".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Exporter;

    fn tensor(name: &str, offset: u64) -> Value {
        json!({
            "name": name, "dtype": "float32", "shape": [2, 3], "offset": offset, "length": 24,
            "sha256": name, "from": [{"gguf": "g", "layout": "as_is"}], "concat_axis": null,
        })
    }

    fn read(manifest: &Value) -> Result<Manifest> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.json");
        fs::write(&path, manifest.to_string()).unwrap();
        Manifest::read(&path)
    }

    fn refusal(change: impl Fn(&mut Value)) -> String {
        let mut manifest = json!({"bytes": 64, "tensors": [tensor("a", 0), tensor("b", 32)]});
        change(&mut manifest);
        read(&manifest).unwrap_err().to_string()
    }

    #[test]
    fn all_four_exporters_manifests_are_valid() {
        for exporter in Exporter::ALL {
            let manifest = Manifest::read(&exporter.manifest()).unwrap();
            assert_eq!(manifest.bytes, 538_169_344, "{exporter}");
            assert_eq!(manifest.tensor_bytes(), 538_060_032, "{exporter}");
            let padding: u64 = manifest.gaps().iter().map(|gap| gap.end - gap.start).sum();
            assert_eq!(padding + manifest.tensor_bytes(), manifest.bytes, "{exporter}");
        }
    }

    #[test]
    fn tensors_are_sorted_and_what_lies_between_is_a_gap() {
        let manifest = json!({"bytes": 64, "tensors": [tensor("b", 32), tensor("a", 0)]});
        let manifest = read(&manifest).unwrap();
        assert_eq!(manifest.tensors[0].name, "a");
        assert_eq!(manifest.gaps(), [24..32, 56..64]);
    }

    #[test]
    fn misplaced_tensors_are_refused_by_name() {
        let overlap = refusal(|manifest| manifest["tensors"][1]["offset"] = json!(8));
        assert!(overlap.contains("\"b\" overlaps"), "{overlap}");
        let beyond = refusal(|manifest| manifest["bytes"] = json!(48));
        assert!(beyond.contains("\"b\" ends beyond"), "{beyond}");
        let huge = refusal(|manifest| manifest["tensors"][1]["offset"] = json!(u64::MAX));
        assert!(huge.contains("\"b\" ends beyond"), "{huge}");
    }

    #[test]
    fn entries_that_contradict_themselves_are_refused() {
        let shape = refusal(|manifest| manifest["tensors"][0]["shape"] = json!([2, 4]));
        assert!(shape.contains("24 bytes long"), "{shape}");
        let axes = refusal(|manifest| manifest["tensors"][0]["shape"] = json!([1, 2, 3]));
        assert!(axes.contains("axes"), "{axes}");
        let none = refusal(|manifest| manifest["tensors"][0]["from"] = json!([]));
        assert!(none.contains("no GGUF tensor"), "{none}");
        let dtype = refusal(|manifest| manifest["tensors"][0]["dtype"] = json!("int3"));
        assert!(dtype.contains("int3"), "{dtype}");
        let axis = refusal(|manifest| manifest["tensors"][0]["concat_axis"] = json!(2));
        assert!(axis.contains("axis"), "{axis}");
        let several = refusal(|manifest| {
            let source = manifest["tensors"][0]["from"][0].clone();
            manifest["tensors"][0]["from"] = json!([source, source]);
        });
        assert!(several.contains("concat_axis"), "{several}");
    }
}
