//! Relative links in Markdown.

use super::text_rules::Finding;

/// Links whose target, relative to the document's folder, does not `exist`.
///
/// Code blocks and code spans are passed over, as are links to other sites and within the page.
pub fn broken(text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code_block = !in_code_block;
        } else if !in_code_block {
            let targets = targets(line);
            let missing = targets.iter().filter(|target| !exists(target));
            findings.extend(missing.map(|target| (index + 1, format!("broken link: {target}"))));
        }
    }
    findings
}

/// Files that a line links to.
fn targets(line: &str) -> Vec<String> {
    let line = without_code_spans(line);
    let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let files = links.map(|link| link.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !is_elsewhere(file)).map(str::to_owned).collect()
}

fn is_elsewhere(link: &str) -> bool {
    link.contains("://") || link.starts_with("mailto:")
}

/// Every other stretch between backticks is code.
fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("code")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(text: &str) -> Vec<usize> {
        broken(text, |target| target == "there.md").into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn only_missing_files_are_reported() {
        assert_eq!(missing("[a](there.md), [b](there.md#part \"title\")\n![c](gone.png)"), [2]);
        assert_eq!(missing("[a](gone.md) [b](gone.md)"), [1, 1]);
    }

    #[test]
    fn code_other_sites_and_anchors_are_passed_over() {
        assert_eq!(missing("[a](https://x.org/y.md) [b](#part) [c](mailto:a@x.org)"), [0; 0]);
        assert_eq!(missing("`x[i](j)`\n```\n[a](gone.md)\n```\n[`there`](gone.md)"), [5]);
    }
}
