//! Chat templates in Jinja, as `transformers` renders them.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, context};

use super::TextError;
use super::{pyjson, strftime};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }
}

/// A compiled chat template.
///
/// The environment is that of `transformers`: blocks are trimmed and their indentation stripped,
/// `break` and `continue` exist, strings and dictionaries have Python's methods, `raise_exception`
/// and `strftime_now` can be called, and `tojson` prints as Python's `json.dumps`.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    folder: PathBuf,
}

/// Name of the template within the environment, as error messages show it.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source`; `special_tokens` become variables such as `bos_token`, and `folder` is
    /// named in errors.
    ///
    /// # Errors
    /// [`TextError::ChatTemplate`].
    pub fn new(
        source: &str,
        special_tokens: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Result<Self, TextError> {
        let mut environment = environment();
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| failure(folder, &error))?;
        Ok(Self { environment, special_tokens: special_tokens.clone(), folder: folder.into() })
    }

    /// Renders a conversation; with `reply`, up to where the assistant's next turn begins.
    ///
    /// # Errors
    /// [`TextError::ChatTemplate`], also when the template itself refuses the conversation.
    pub fn render(&self, messages: &[Message], reply: bool) -> Result<String, TextError> {
        let messages: Vec<_> = messages
            .iter()
            .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
            .collect();
        let arguments = context! {
            messages,
            add_generation_prompt => reply,
            tools => (),
            documents => (),
            ..Value::from_serialize(&self.special_tokens)
        };
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(arguments))
            .map_err(|error| failure(&self.folder, &error))
    }
}

fn failure(folder: &Path, error: &Error) -> TextError {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let problem = match (error.kind(), error.detail()) {
        // The template's own words, from raise_exception, stand alone.
        (ErrorKind::InvalidOperation, Some(detail)) => format!("{detail}{line}"),
        (kind, Some(detail)) => format!("{kind}: {detail}{line}"),
        (kind, None) => format!("{kind}{line}"),
    };
    TextError::ChatTemplate { folder: folder.into(), problem }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(pythonic);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| strftime::now(format));
    environment.add_filter("tojson", pyjson::tojson);
    environment
}

/// Prints truth values and nothing as Python does.
fn pythonic(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let word = match value.kind() {
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::None => "None",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(word).map_err(Error::from)
}

/// Lets a template refuse a conversation.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::smollm2;
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, String> {
        let tokens = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        let template = ChatTemplate::new(source, &tokens, Path::new("folder"));
        template.and_then(|t| t.render(messages, true)).map_err(|e| e.to_string())
    }

    #[test]
    fn smollm2s_template_adds_its_system_turn() {
        let template = smollm2().chat_template().unwrap();
        let system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by \
                      Hugging Face<|im_end|>\n";
        let turn = "<|im_start|>user\nHi!<|im_end|>\n";
        let prompt = template.render(&[Message::user("Hi!")], true).unwrap();
        assert_eq!(prompt, format!("{system}{turn}<|im_start|>assistant\n"));
        let history = template.render(&[Message::user("Hi!")], false).unwrap();
        assert_eq!(history, format!("{system}{turn}"));
    }

    #[test]
    fn the_prompt_is_tokenised_with_its_special_tokens() {
        let tokenizer = smollm2();
        let prompt = tokenizer.chat_template().unwrap().render(&[Message::user("Hi!")], true);
        let ids = tokenizer.encode(&prompt.unwrap(), false).unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == 1).count(), 3);
        assert_eq!(ids.iter().filter(|&&id| id == 2).count(), 2);
    }

    #[test]
    fn special_tokens_and_loop_are_variables() {
        let source = "{{ bos_token }}{% for m in messages %}{{ loop.index0 }}{{ m.content }}\
                      {% if not loop.last %},{% endif %}{% endfor %}";
        let messages = [Message::user("a"), Message::user("b")];
        assert_eq!(render(source, &messages).unwrap(), "<s>0a,1b");
    }

    #[test]
    fn blocks_are_trimmed_as_in_transformers() {
        let source = "{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n\
                      {% endfor %}\nend\n";
        assert_eq!(render(source, &[Message::user("a")]).unwrap(), "user\nend");
    }

    #[test]
    fn pythons_methods_and_loop_controls_work() {
        let source = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}\
                      {{ m.content.strip().split('</think>')[-1].lstrip('\\n') }}\
                      {% if m['content'].startswith(' ') %}!{% endif %}{% endfor %}\
                      {% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}\
                      {{ tools is none }}";
        let messages = [Message::user(" a</think>\nb "), Message::user("c")];
        assert_eq!(render(source, &messages).unwrap(), "b!2True");
    }

    #[test]
    fn content_is_not_escaped() {
        assert_eq!(render("{{ messages[0].content }}", &[Message::user("<&>")]).unwrap(), "<&>");
    }

    #[test]
    fn a_template_may_refuse() {
        let source = "{% if messages %}{{ raise_exception('No users, please') }}{% endif %}";
        let error = render(source, &[Message::user("a")]).unwrap_err();
        assert_eq!(error, "the chat template of folder fails: No users, please (line 1)");
    }

    #[test]
    fn errors_name_the_line() {
        let error = render("a\n{% if %}", &[]).unwrap_err();
        assert!(error.contains("syntax error") && error.contains("(line 2)"), "{error}");
    }

    #[test]
    fn the_date_can_be_printed() {
        let year: u32 = render("{{ strftime_now('%Y') }}", &[]).unwrap().parse().unwrap();
        assert!(year >= 2024);
    }

    #[test]
    fn json_is_pythons() {
        let source = "{{ messages | tojson }}";
        let expected = r#"[{"role": "user", "content": "<é>"}]"#;
        assert_eq!(render(source, &[Message::user("<é>")]).unwrap(), expected);
    }
}
