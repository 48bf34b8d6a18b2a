//! What the configuration files beside a tokenizer say.
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::TextError;

/// The folder with the `tokenizer.json` of a model, given as an `.onnx` file or as a folder.
///
/// That is the model's own folder or the one above: exporters put graphs into `onnx/` below the
/// tokenizer.
///
/// # Errors
/// [`TextError::NoTokenizer`].
pub fn text_folder(model: &Path) -> Result<PathBuf, TextError> {
    let folder = if model.is_dir() { model } else { model.parent().unwrap_or(Path::new("")) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let candidates = [folder.to_path_buf(), folder.join("..")];
    candidates
        .into_iter()
        .find(|candidate| candidate.join("tokenizer.json").is_file())
        .ok_or_else(|| TextError::NoTokenizer { folder: folder.into() })
}

/// Facts from `tokenizer_config.json`, `generation_config.json`, `config.json`,
/// `genai_config.json` and `chat_template.jinja`; every one of these files may be missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenizerConfig {
    /// Special tokens by role, for instance `bos_token`.
    pub special_tokens: BTreeMap<String, String>,
    /// Ids that end a text, as far as the configurations give ids.
    pub eos_ids: Vec<u32>,
    /// Source of the chat template.
    pub chat_template: Option<String>,
}

impl TokenizerConfig {
    /// Reads the configuration files in `folder`.
    ///
    /// The end-of-text ids are those of the first file that names some: `generation_config.json`,
    /// `config.json`, `genai_config.json`. A `chat_template.jinja` goes before the field of
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`TextError::Read`] and [`TextError::Json`] for files that exist but cannot be used.
    pub fn load(folder: &Path) -> Result<Self, TextError> {
        let tokenizer = read_json(&folder.join("tokenizer_config.json"))?;
        let genai = read_json(&folder.join("genai_config.json"))?;
        let sources = [
            read_json(&folder.join("generation_config.json"))?,
            read_json(&folder.join("config.json"))?,
            genai.get("model").cloned().unwrap_or_default(),
        ];
        let eos_ids = sources.iter().map(|source| token_ids(source.get("eos_token_id")));
        let template = match read_text(&folder.join("chat_template.jinja"))? {
            Some(text) => Some(text),
            None => template_field(tokenizer.get("chat_template")),
        };
        Ok(Self {
            special_tokens: special_tokens(&tokenizer),
            eos_ids: eos_ids.into_iter().find(|ids| !ids.is_empty()).unwrap_or_default(),
            chat_template: template,
        })
    }
}

/// The text of a file, or nothing when it does not exist.
fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { path: path.into(), source }),
    }
}

/// The JSON of a file, or null when it does not exist.
fn read_json(path: &Path) -> Result<Value, TextError> {
    let Some(text) = read_text(path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text).map_err(|source| TextError::Json { path: path.into(), source })
}

/// Reads `2` and `[2, 5]` alike.
fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// All fields named `…_token` that hold a token: a string, or an object with `content`.
fn special_tokens(config: &Value) -> BTreeMap<String, String> {
    let fields = config.as_object().into_iter().flatten();
    fields
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| {
            let token = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some((key.clone(), token.to_owned()))
        })
        .collect()
}

/// The template itself, or the one named `default` in a list of named templates.
fn template_field(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str().map(str::to_owned)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn load(files: &[(&str, &str)]) -> TokenizerConfig {
        TokenizerConfig::load(folder(files).path()).unwrap()
    }

    #[test]
    fn an_empty_folder_says_nothing() {
        assert_eq!(load(&[]), TokenizerConfig::default());
    }

    #[test]
    fn the_first_file_with_end_ids_wins() {
        let generation = ("generation_config.json", r#"{"eos_token_id": [7, 8]}"#);
        let config = ("config.json", r#"{"eos_token_id": 2}"#);
        let genai = ("genai_config.json", r#"{"model": {"eos_token_id": 3}}"#);
        assert_eq!(load(&[generation, config, genai]).eos_ids, [7, 8]);
        assert_eq!(load(&[config, genai]).eos_ids, [2]);
        assert_eq!(load(&[("generation_config.json", "{}"), genai]).eos_ids, [3]);
    }

    #[test]
    fn special_tokens_are_strings_or_objects() {
        let text = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null}"#;
        let tokens = load(&[("tokenizer_config.json", text)]).special_tokens;
        let pairs: Vec<_> = tokens.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("bos_token", "<s>"), ("eos_token", "</s>")]);
    }

    #[test]
    fn templates_come_from_their_own_file_first() {
        let list = r#"{"chat_template": [{"name": "tool_use", "template": "t"},
            {"name": "default", "template": "d"}]}"#;
        let field = ("tokenizer_config.json", list);
        assert_eq!(load(&[field]).chat_template.as_deref(), Some("d"));
        let file = ("chat_template.jinja", "f");
        assert_eq!(load(&[field, file]).chat_template.as_deref(), Some("f"));
    }

    #[test]
    fn damaged_json_names_its_file() {
        let folder = folder(&[("config.json", "{")]);
        let error = TokenizerConfig::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("config.json is not valid JSON"), "{error}");
    }

    #[test]
    fn the_tokenizer_is_beside_the_model_or_one_folder_up() {
        let folder = folder(&[("tokenizer.json", "{}")]);
        let onnx = folder.path().join("onnx");
        std::fs::create_dir(&onnx).unwrap();
        assert_eq!(text_folder(folder.path()).unwrap(), folder.path());
        assert_eq!(text_folder(&onnx.join("model.onnx")).unwrap(), onnx.join(".."));
        let deep = onnx.join("deep");
        std::fs::create_dir(&deep).unwrap();
        let error = text_folder(&deep).unwrap_err().to_string();
        assert!(error.starts_with("there is no tokenizer.json in"), "{error}");
    }
}
