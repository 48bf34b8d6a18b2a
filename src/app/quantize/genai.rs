//! The format `matmulnbits`: a graph for ONNX Runtime's own operators, and the configuration that
//! onnxruntime-genai reads beside it.
use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_passes::emit::{
    CACHE_NAMES, Contributed, DecoderInputs, Interface, lower_for_onnxruntime,
};
use planish_passes::quantize::BitWidths;
use planish_runtime::decoder::Roles;
use planish_runtime::text::{TokenizerConfig, text_folder};
use serde_json::{Value, json};

use crate::app::error::AppError;

/// Positions where neither the graph nor a configuration says how many the model was made for.
const UNKNOWN_CONTEXT: usize = 2048;
/// Fields of `config.json` that say it.
const CONTEXT_FIELDS: [&str; 4] =
    ["max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"];
/// The largest share of a configuration's promise that tables are made for: 2²⁰ positions.
const LONGEST: usize = 1 << 20;

/// What `genai_config.json` says of a model.
pub(super) struct GenaiModel {
    interface: Interface,
    context: usize,
    config: Value,
    eos_ids: Vec<u32>,
    notes: Vec<String>,
}

impl GenaiModel {
    /// Rewrites `model`, read from `file`, for ONNX Runtime's own operators.
    ///
    /// # Errors
    /// [`AppError`] if it is no decoder, or something in it has no form there.
    pub(super) fn lower(model: &mut Model, file: &Path, bits: BitWidths) -> Result<Self, AppError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            AppError::failed("cannot write the model in the format matmulnbits", error)
        };
        let roles = Roles::find(model).map_err(|error| failed(error.into()))?;
        let folders = folders(file);
        let config = read_json(&folders, "config.json");
        let genai = read_json(&folders, "genai_config.json");
        let said = context_length(&config, &genai).map(|n| n.min(LONGEST));
        let table = roles.max_positions;
        let context = match (said, table) {
            (Some(said), Some(table)) => said.min(table),
            (said, table) => said.or(table).unwrap_or(UNKNOWN_CONTEXT),
        };
        let inputs = DecoderInputs {
            tokens: roles.tokens,
            mask: roles.mask,
            positions: roles.positions,
            logits: roles.logits,
        };
        let accuracy_level = if bits.activations == 8 { 4 } else { 0 };
        let options = Contributed { accuracy_level, n_positions: context };
        let interface =
            lower_for_onnxruntime(model, inputs, options).map_err(|error| failed(error.into()))?;
        let mut notes = interface.notes.clone();
        if said.or(table).is_none() {
            notes.push(format!(
                "no config.json says how many positions the model was made for: tables and \
                 genai_config.json have {UNKNOWN_CONTEXT}"
            ));
        }
        let load = |folder: &PathBuf| TokenizerConfig::load(folder).ok().map(|text| text.eos_ids);
        let ids = folders.iter().filter_map(load).find(|ids| !ids.is_empty());
        Ok(Self { interface, context, config, eos_ids: ids.unwrap_or_default(), notes })
    }

    /// What the user should know.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// The text of `genai_config.json`.
    ///
    /// # Errors
    /// [`AppError::Internal`] if it can't be made.
    pub(super) fn config(&self) -> Result<String, AppError> {
        let config = json!({ "model": self.model(), "search": self.search() });
        serde_json::to_string_pretty(&config).map_err(|error| {
            AppError::Internal(format!("genai_config.json can't be made: {error}"))
        })
    }

    fn model(&self) -> Value {
        let end = self.eos_ids.first().copied().unwrap_or(0);
        let id = |name: &str| self.config.get(name).and_then(Value::as_u64);
        json!({
            "bos_token_id": id("bos_token_id").unwrap_or(u64::from(end)),
            "context_length": self.context,
            "decoder": self.decoder(),
            "eos_token_id": self.eos_ids,
            "pad_token_id": id("pad_token_id").unwrap_or(u64::from(end)),
            // The type of no model in particular: all is said by the graph and this file.
            "type": "decoder",
            "vocab_size": self.interface.vocabulary,
        })
    }

    fn decoder(&self) -> Value {
        let interface = &self.interface;
        let [q_heads, kv_heads, head_size] = interface.heads;
        let [past_key, past_value, present_key, present_value] = CACHE_NAMES;
        let mut inputs = json!({
            "input_ids": interface.tokens,
            "past_key_names": past_key,
            "past_value_names": past_value,
        });
        let optional =
            [("attention_mask", &interface.mask), ("position_ids", &interface.positions)];
        for (role, name) in optional {
            if let Some(name) = name {
                inputs[role] = name.as_str().into();
            }
        }
        json!({
            "session_options": { "log_id": "onnxruntime-genai", "provider_options": [] },
            "filename": "model.onnx",
            "head_size": head_size,
            "hidden_size": interface.hidden_size,
            "inputs": inputs,
            "outputs": {
                "logits": interface.logits,
                "present_key_names": present_key,
                "present_value_names": present_value,
            },
            "num_attention_heads": q_heads,
            "num_hidden_layers": interface.n_layers,
            "num_key_value_heads": kv_heads,
        })
    }

    /// Greedy, until something else is asked for.
    fn search(&self) -> Value {
        json!({
            "do_sample": false,
            "max_length": self.context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": self.interface.shares_buffer,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        })
    }
}

/// The model's own folder, and that of its tokenizer.
fn folders(file: &Path) -> Vec<PathBuf> {
    let own = file.parent().unwrap_or(Path::new("")).to_owned();
    let of_text = text_folder(file).ok();
    std::iter::once(own).chain(of_text).collect()
}

/// The first file of that name, null where there is none that can be read.
fn read_json(folders: &[PathBuf], name: &str) -> Value {
    let read = |folder: &PathBuf| std::fs::read_to_string(folder.join(name)).ok();
    let texts = folders.iter().filter_map(read);
    texts.filter_map(|text| serde_json::from_str(&text).ok()).next().unwrap_or_default()
}

/// Positions that the model was made for, as its configurations say.
fn context_length(config: &Value, genai: &Value) -> Option<usize> {
    let of = |value: &Value| {
        CONTEXT_FIELDS.iter().find_map(|name| value.get(name).and_then(Value::as_u64))
    };
    let said = of(config).or_else(|| of(config.get("text_config")?));
    let said = said.or_else(|| genai.get("model")?.get("context_length")?.as_u64());
    said.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_looked_for_in_all_configurations() {
        let none = Value::Null;
        assert_eq!(context_length(&json!({ "n_positions": 7 }), &none), Some(7));
        let nested = json!({ "text_config": { "max_position_embeddings": 9 } });
        assert_eq!(context_length(&nested, &none), Some(9));
        assert_eq!(context_length(&none, &json!({ "model": { "context_length": 5 } })), Some(5));
        assert_eq!(context_length(&none, &none), None);
    }
}
