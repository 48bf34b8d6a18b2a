//! A tokenizer for models whose tokens mean nothing.

/// A `tokenizer.json` whose `n` tokens are the words w0, w1, ….
pub fn tokenizer(n: usize) -> String {
    let vocab: Vec<_> = (0..n).map(|i| format!("\"w{i}\": {i}")).collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {{"type": "WhitespaceSplit"}},
            "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "w0"}}}}"#,
        vocab.join(", ")
    )
}
