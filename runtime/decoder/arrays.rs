//! One run of a graph on given arrays.

use std::collections::{HashMap, HashSet};

use planish_ir::{DataType, Model, Tensor};

use super::feed::{Extent, Feed, FeedNames};
use super::given::Given;
use super::{DecoderError, Roles};
use crate::engine::{CompileOptions, Engine, IoInfo};
use crate::npz::{NpyArray, NpyType};

/// Inputs that decoders usually have, though not every graph reads them: whoever feeds several
/// decoders feeds them to all.
const USUAL_INPUTS: [&str; 2] = ["attention_mask", "position_ids"];

/// Runs the graph as it is, once, on named arrays; returns all its outputs in the graph's order.
/// Of a decoder's inputs, caches that are absent are empty, masks that are absent are all ones,
/// and positions that are absent follow the past. A mask or positions, by their usual names, that
/// the graph has no input for are left out, with a warning.
///
/// # Errors
/// [`DecoderError`] if an input is missing, unknown, or of another type or shape than the graph
/// says, or if the engine fails.
pub fn forward_arrays(
    model: &Model,
    engine: &dyn Engine,
    inputs: Vec<(String, NpyArray)>,
) -> Result<Vec<(String, NpyArray)>, DecoderError> {
    let mut given = HashMap::new();
    for (name, array) in inputs {
        let tensor = to_tensor(&name, array)?;
        given.insert(name, tensor);
    }
    let executable = engine.compile(model, &CompileOptions::default())?;
    let is_input = |name: &str| executable.inputs().iter().any(|input| input.name == name);
    for usual in USUAL_INPUTS.into_iter().filter(|name| !is_input(name)) {
        if given.remove(usual).is_some() {
            tracing::warn!("\"{usual}\" is not an input of this graph, left out");
        }
    }
    if let Some(unknown) = given.keys().find(|name| !is_input(name)) {
        return Err(DecoderError::NoSuchInput(unknown.clone()));
    }
    for input in executable.inputs() {
        given.get(&input.name).map_or(Ok(()), |tensor| input.check(tensor))?;
    }
    let makers = Roles::find(model).ok().and_then(|roles| Makers::new(model, roles, &given));
    let tensor = |input: &IoInfo| {
        let made = || makers.as_ref().and_then(|makers| makers.make(input));
        let found = given.get(&input.name).cloned().or_else(|| input.default.clone()).or_else(made);
        found.ok_or_else(|| DecoderError::MissingInput(input.name.clone()))
    };
    let tensors = executable.inputs().iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
    let outputs = executable.session().run(&tensors)?;
    let named = executable.outputs().iter().zip(outputs);
    named.map(|(info, tensor)| Ok((info.name.clone(), to_array(&info.name, &tensor)?))).collect()
}

/// Makes the inputs of a decoder that follow from its token ids and caches.
struct Makers {
    names: FeedNames,
    empty: HashMap<String, Tensor>,
    /// Inputs that nothing reads.
    unread: HashSet<String>,
    extent: Extent,
}

impl Makers {
    /// Takes the sizes from the token ids and caches that are given; `None` without token ids.
    fn new(model: &Model, roles: Roles, given: &HashMap<String, Tensor>) -> Option<Self> {
        let names = FeedNames::new(&model.graph, &roles);
        let &[batch, length] = given.get(&names.tokens)?.shape() else { return None };
        let name = |value| model.graph.value(value).name.clone();
        let past = |pair: &super::CachePair| Some(pair.n_positions(given.get(&name(pair.past))?));
        let past = roles.caches.iter().find_map(past).unwrap_or(0);
        let empty =
            roles.caches.iter().filter_map(|pair| Some((name(pair.past), pair.empty(batch)?)));
        let extent = Extent { batch, past, length, logits_from: 0 };
        let unread = model.graph.inputs.iter().filter(|v| model.graph.users(**v).is_empty());
        let unread = unread.map(|v| name(*v)).collect();
        Some(Self { empty: empty.collect(), unread, names, extent })
    }

    fn make(&self, input: &IoInfo) -> Option<Tensor> {
        if let Some(cache) = self.empty.get(&input.name) {
            return (self.extent.past == 0).then(|| cache.clone());
        }
        if self.unread.contains(&input.name) {
            return Some(Feed::of(input, &self.names).ok()?.make(Given::ids(&[]), self.extent));
        }
        let made =
            [&self.names.mask, &self.names.positions, &self.names.switch].map(Option::as_ref);
        let feed = made.contains(&Some(&input.name)).then(|| Feed::of(input, &self.names).ok());
        Some(feed??.make(Given::ids(&[]), self.extent))
    }
}

fn to_tensor(name: &str, array: NpyArray) -> Result<Tensor, DecoderError> {
    let dtype = match array.dtype {
        NpyType::Bool => DataType::Bool,
        NpyType::U8 => DataType::U8,
        NpyType::U16 => DataType::U16,
        NpyType::U32 => DataType::U32,
        NpyType::U64 => DataType::U64,
        NpyType::I8 => DataType::I8,
        NpyType::I16 => DataType::I16,
        NpyType::I32 => DataType::I32,
        NpyType::I64 => DataType::I64,
        NpyType::F16 => DataType::F16,
        NpyType::F32 => DataType::F32,
        NpyType::F64 => DataType::F64,
    };
    Tensor::new(dtype, array.shape, array.bytes.into()).map_err(|error| DecoderError::Array {
        name: name.into(),
        problem: format!("is damaged: {error}"),
    })
}

fn to_array(name: &str, tensor: &Tensor) -> Result<NpyArray, DecoderError> {
    let shape = tensor.shape().to_vec();
    let raw = |dtype| NpyArray { dtype, shape: shape.clone(), bytes: tensor.bytes().to_vec() };
    Ok(match tensor.dtype() {
        DataType::Bool => raw(NpyType::Bool),
        DataType::U8 => raw(NpyType::U8),
        DataType::U16 => raw(NpyType::U16),
        DataType::U32 => raw(NpyType::U32),
        DataType::U64 => raw(NpyType::U64),
        DataType::I8 => raw(NpyType::I8),
        DataType::I16 => raw(NpyType::I16),
        DataType::I32 => raw(NpyType::I32),
        DataType::I64 => raw(NpyType::I64),
        DataType::F16 => raw(NpyType::F16),
        DataType::F32 => raw(NpyType::F32),
        DataType::F64 => raw(NpyType::F64),
        other => {
            let problem = format!("is {other}, which .npz files can't hold");
            return Err(DecoderError::Array { name: name.into(), problem });
        }
    })
}
