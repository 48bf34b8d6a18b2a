//! What a model file contains.
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use planish_ir::{Graph, Model, ValueId};
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;
use planish_passes::sites::Layout;
use serde::Serialize;

use super::error::AppError;
use super::model::read;

/// A graph input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueReport {
    /// Its name.
    pub name: String,
    /// ONNX's name of the element type, for instance `float16`.
    pub dtype: String,
    /// Extents: numbers, names of symbolic dimensions, or `?`.
    pub shape: Vec<String>,
}

/// Summary of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectReport {
    /// The file that was read.
    pub path: PathBuf,
    /// Name and version of the exporter, as the file states them.
    pub producer: String,
    /// Version of each operator set, by domain (`ai.onnx` for the standard one).
    pub opsets: BTreeMap<String, i64>,
    /// Inputs of the graph, in its order.
    pub inputs: Vec<ValueReport>,
    /// Outputs of the graph, in its order.
    pub outputs: Vec<ValueReport>,
    /// How many nodes of each operator there are, by `domain::op` (no domain for standard ones).
    pub nodes: BTreeMap<String, usize>,
    /// Number of elements of all weights.
    pub parameters: u64,
    /// Bytes of all weights as stored.
    pub weight_bytes: u64,
    /// Bytes of the weights by element type.
    pub weight_bytes_by_dtype: BTreeMap<String, u64>,
    /// The file's own key-value metadata.
    pub metadata: BTreeMap<String, String>,
    /// What canonicalisation recognised; nothing where it failed.
    pub recognised: Option<Recognised>,
    /// Why rewrites were left undone.
    pub notes: Vec<String>,
}

/// What canonicalisation recognised in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recognised {
    /// Repeated pieces of the residual stream.
    pub blocks: usize,
    /// Groups of linear layers that read the same activation.
    pub sites: usize,
    /// Linear layers, the parts of fused ones counted apart, the head included.
    pub linear_layers: usize,
    /// Attentions with grouped heads and KV cache.
    pub attentions: usize,
    /// Whether the head shares its weight with the embedding.
    pub tied_head: bool,
    /// How many nodes of each operator the canonical graph has.
    pub nodes: BTreeMap<String, usize>,
    /// Products that are not quantised, and why.
    pub left_alone: Vec<LeftAloneReport>,
    /// Blocks and sites in words.
    pub text: String,
}

/// A node that quantisation leaves alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftAloneReport {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// Reads an `.onnx` file (or `model.onnx` in a folder) and sums it up.
///
/// # Errors
/// [`AppError`] when the path cannot be read or is no ONNX model.
pub fn inspect(path: &Path) -> Result<InspectReport, AppError> {
    let (mut model, file) = read(path)?;
    let mut report = summary(&model, file);
    let mut manager = PassManager::new();
    let before = names(&model.graph);
    match recognise(&mut model, &mut manager) {
        Ok(recognised) => report.recognised = Some(recognised),
        Err(error) => report.notes.push(format!("nothing was recognised: {error}")),
    }
    let after = names(&model.graph);
    // What one rule misses another may lift: then the name is gone, and there is nothing to say.
    let is_there = |name: &str| !before.contains(name) || after.contains(name);
    let notes = manager.reports().iter().flat_map(|pass| &pass.notes);
    let current = notes.filter(|note| note.split('"').skip(1).step_by(2).all(is_there));
    report.notes.extend(current.cloned());
    Ok(report)
}

/// The names of all values and nodes.
fn names(graph: &Graph) -> BTreeSet<String> {
    let values = graph.value_ids().map(|id| graph.value(id).name.clone());
    values.chain(graph.node_ids().map(|id| graph.node(id).name.clone())).collect()
}

/// What the file itself says.
fn summary(model: &Model, path: PathBuf) -> InspectReport {
    let graph = &model.graph;
    let mut weights: BTreeMap<String, u64> = BTreeMap::new();
    let mut parameters = 0;
    for tensor in graph.value_ids().filter_map(|id| graph.value(id).constant.as_ref()) {
        parameters += tensor.n_elements() as u64;
        *weights.entry(tensor.dtype().to_string()).or_default() += tensor.bytes().len() as u64;
    }
    let domain =
        |domain: &str| if domain.is_empty() { "ai.onnx".into() } else { domain.to_owned() };
    InspectReport {
        path,
        producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
        opsets: model.opset_imports.iter().map(|o| (domain(&o.domain), o.version)).collect(),
        inputs: graph.inputs.iter().map(|id| value_report(graph, *id)).collect(),
        outputs: graph.outputs.iter().map(|id| value_report(graph, *id)).collect(),
        nodes: count_nodes(graph),
        parameters,
        weight_bytes: weights.values().sum(),
        weight_bytes_by_dtype: weights,
        metadata: model.metadata.iter().cloned().collect(),
        recognised: None,
        notes: Vec::new(),
    }
}

fn value_report(graph: &Graph, id: ValueId) -> ValueReport {
    let value = graph.value(id);
    let dtype = value.dtype().map_or("?".to_owned(), |dtype| dtype.to_string());
    let shape = value.shape().map(|shape| shape.iter().map(ToString::to_string).collect());
    ValueReport { name: value.name.clone(), dtype, shape: shape.unwrap_or(vec!["?".to_owned()]) }
}

fn count_nodes(graph: &Graph) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let name = match node.domain.as_str() {
            "" => node.op_type.clone(),
            domain => format!("{domain}::{}", node.op_type),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Canonicalises the model and lays it out.
fn recognise(
    model: &mut Model,
    manager: &mut PassManager,
) -> Result<Recognised, Box<dyn StdError>> {
    canonicalize(model, manager)?;
    let layout = Layout::new(model)?;
    let of_layout = |id: &planish_passes::sites::SiteId| layout.site(*id).n_parts;
    let left_alone = |left: &planish_passes::sites::LeftAlone| LeftAloneReport {
        node: left.node.clone(),
        reason: left.reason.clone(),
    };
    Ok(Recognised {
        blocks: layout.blocks.len(),
        sites: layout.sites.len(),
        linear_layers: layout.site_ids().map(|id| of_layout(&id)).sum::<usize>()
            + usize::from(layout.head.is_some()),
        attentions: layout.attentions.len(),
        tied_head: layout.head.as_ref().is_some_and(|head| head.is_tied()),
        nodes: count_nodes(&model.graph),
        left_alone: layout.left_alone.iter().map(left_alone).collect(),
        text: layout.to_string(),
    })
}
