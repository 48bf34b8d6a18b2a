//! JSON as Python's `json.dumps(…, ensure_ascii=False)` prints it, for chat templates.
//!
//! Jinja's own `tojson` escapes for HTML, which would put `\u003c` into prompts.
use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// The filter `tojson`, with Python's optional argument `indent`.
pub(super) fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = options.get(ignored)?;
    }
    options.assert_all_used()?;
    let json = serde_json::to_value(&value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, "no JSON").with_source(e))?;
    let mut text = String::new();
    write(&mut text, &json, indent, 0);
    Ok(Value::from_safe_string(text))
}

fn write(out: &mut String, value: &Json, indent: Option<usize>, depth: usize) {
    match value {
        Json::Array(items) if !items.is_empty() => {
            let items = items.iter().map(|item| (None, item));
            write_items(out, ('[', ']'), items, indent, depth);
        }
        Json::Object(items) if !items.is_empty() => {
            let items = items.iter().map(|(key, item)| (Some(key.as_str()), item));
            write_items(out, ('{', '}'), items, indent, depth);
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn write_items<'a>(
    out: &mut String,
    brackets: (char, char),
    items: impl Iterator<Item = (Option<&'a str>, &'a Json)>,
    indent: Option<usize>,
    depth: usize,
) {
    out.push(brackets.0);
    for (index, (key, item)) in items.enumerate() {
        if index > 0 {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        new_line(out, indent, depth + 1);
        if let Some(key) = key {
            out.push_str(&Json::from(key).to_string());
            out.push_str(": ");
        }
        write(out, item, indent, depth + 1);
    }
    new_line(out, indent, depth);
    out.push(brackets.1);
}

fn new_line(out: &mut String, indent: Option<usize>, depth: usize) {
    if let Some(indent) = indent {
        out.push('\n');
        out.push_str(&" ".repeat(indent * depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(json: &str, indent: Option<usize>) -> String {
        let mut text = String::new();
        write(&mut text, &serde_json::from_str(json).unwrap(), indent, 0);
        text
    }

    #[test]
    fn separators_have_spaces() {
        let text = dump(r#"{"a":[1,2.5,null],"b":{},"c":"\"<é>\n"}"#, None);
        assert_eq!(text, r#"{"a": [1, 2.5, null], "b": {}, "c": "\"<é>\n"}"#);
    }

    #[test]
    fn indented_text_is_pythons() {
        let text = dump(r#"{"a":[1,[]],"b":true}"#, Some(2));
        assert_eq!(text, "{\n  \"a\": [\n    1,\n    []\n  ],\n  \"b\": true\n}");
    }
}
