//! The page about a quantised model.
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::Recipe;
use planish::app::{Method, OpenOptions, ReportRequest, quantize, report};

const SECTIONS: [&str; 7] = [
    "Settings",
    "Size and speed",
    "Flatness of weights",
    "Flatness of activations",
    "Quantisation error",
    "Loss curves",
    "Clipping ratios",
];

/// A tiny model that is quantised in a folder of its own.
struct Quantized(tempfile::TempDir);

impl Quantized {
    fn new(method: Method, bits: &'static str, changes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/llama-optimum");
        let mut request = Recipe::new(method, bits).request(&source, &folder.path().join("q"));
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        request.recipe = changes.iter().map(own).collect();
        quantize(&request, &mut |_| ()).unwrap();
        Self(folder)
    }

    fn request(&self) -> ReportRequest {
        ReportRequest {
            model: self.0.path().join("q"),
            output: self.page(),
            source: None,
            text: None,
            bench: false,
            open: OpenOptions::default(),
        }
    }

    fn page(&self) -> PathBuf {
        self.0.path().join("page.html")
    }

    /// Writes the page, checks its form, and returns it.
    fn report(&self, request: &ReportRequest) -> String {
        report(request, &mut |_| ()).unwrap();
        let html = fs::read_to_string(self.page()).unwrap();
        check(&html);
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 2, "more than model and page");
        html
    }
}

/// All sections are there, nothing is loaded from elsewhere, and every plot is well-formed.
fn check(html: &str) {
    for section in SECTIONS {
        assert!(html.contains(&format!("<h2>{section}</h2>")), "no section {section}");
    }
    for outside in ["http", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!html.contains(outside), "{outside} in the page");
    }
    for svg in html.split("<svg ").skip(1) {
        let (svg, _) = svg.split_once("</svg>").expect("an svg without an end");
        check_tags(svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "a number that is none: {svg}");
    }
}

/// Every tag inside of an svg is closed, in order, and attributes have both their quotes.
fn check_tags(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag without an end");
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!text.contains('&') || text.contains(';'), "{text}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}

/// The page from a heading to the next.
fn section<'a>(html: &'a str, title: &str) -> &'a str {
    let (_, rest) = html.split_once(&format!("<h2>{title}</h2>")).unwrap();
    rest.split("</section>").next().unwrap()
}

#[test]
fn a_model_that_learned_nothing_has_all_but_losses() {
    let model = Quantized::new(Method::Hadamard, "w4a4kv4", &[]);
    let html = model.report(&model.request());
    assert!(section(&html, "Settings").contains("hadamard"));
    assert!(section(&html, "Loss curves").contains("hadamard learns nothing"));
    assert!(section(&html, "Clipping ratios").contains("No activation, key or value is clipped"));
    for (title, n_plots) in
        [("Flatness of weights", 1), ("Flatness of activations", 1), ("Quantisation error", 3)]
    {
        assert_eq!(section(&html, title).matches("<svg ").count(), n_plots, "{title}");
    }
    assert!(section(&html, "Flatness of activations").contains("block 0, MLP product"));
}

#[test]
fn a_model_that_learned_has_losses_and_clips() {
    let changes = [
        ("windows", "4"),
        ("length", "16"),
        ("batch", "2"),
        ("steps", "3"),
        ("last-steps", "2"),
        ("last-batch", "2"),
    ];
    let model = Quantized::new(Method::Flatquant, "w4a4kv4", &changes);
    let html = model.report(&model.request());
    assert_eq!(section(&html, "Loss curves").matches("<svg ").count(), 3);
    let clipping = section(&html, "Clipping ratios");
    assert!(clipping.contains("attention output") && clipping.contains("keys"), "{clipping}");
}

#[test]
fn weights_alone_have_no_rounding_of_activations() {
    let model = Quantized::new(Method::Rtn, "w4a16kv16", &[]);
    let html = model.report(&ReportRequest { bench: true, ..model.request() });
    let errors = section(&html, "Quantisation error");
    assert!(!errors.contains("Rounding of activations") && errors.contains("Rounding of weights"));
    assert_eq!(section(&html, "Size and speed").matches("<svg ").count(), 3);
}

#[test]
fn without_the_original_the_page_says_so() {
    let model = Quantized::new(Method::Hadamard, "w8a8", &[]);
    let json = model.0.path().join("q/planish.json");
    let text = fs::read_to_string(&json).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["source"] = "gone/model.onnx".into();
    fs::write(&json, record.to_string()).unwrap();
    let html = model.report(&model.request());
    for title in ["Flatness of weights", "Flatness of activations", "Quantisation error"] {
        let section = section(&html, title);
        assert!(section.contains("gone/model.onnx is not there any more"), "{section}");
    }
    let source = Some("lost.onnx".into());
    let error = report(&ReportRequest { source, ..model.request() }, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("lost.onnx"), "{error}");
}

#[test]
fn another_model_is_no_original() {
    let model = Quantized::new(Method::Hadamard, "w4a4kv4", &[]);
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/gpt2-optimum");
    let html = model.report(&ReportRequest { source: Some(other), ..model.request() });
    assert!(section(&html, "Flatness of weights").contains("do not belong together"));
}
