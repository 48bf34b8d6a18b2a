//! Rules about single lines of text. Findings are pairs of a line number and a message.

/// Leftovers of work in progress; put together here so that this file does not contain them.
const UNFINISHED: [&str; 4] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
    concat!("dbg", "!("),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE: [&str; 3] =
    [concat!("/", "home", "/"), concat!("/", "root", "/"), concat!("/", "tmp", "/")];

/// A line number, from 1, and what is wrong there.
pub type Finding = (usize, String);

/// Rust files begin with a line of module documentation.
pub fn missing_header(text: &str) -> Option<Finding> {
    (!text.starts_with("//!")).then(|| (1, "the file does not begin with `//!`".into()))
}

/// Unfinished code, skipped tests and debugging aids.
pub fn unfinished(text: &str) -> Vec<Finding> {
    each_line(text, |line| {
        let found = UNFINISHED.iter().find(|pattern| line.contains(**pattern))?;
        Some(format!("`{found}` is left"))
    })
}

/// Absolute paths of somebody's machine.
pub fn machine_paths(text: &str) -> Vec<Finding> {
    each_line(text, |line| {
        let found = MACHINE.iter().find(|prefix| has_path(line, prefix))?;
        Some(format!("a path of one machine: `{found}`"))
    })
}

/// Whether a path in `line` begins with `prefix`; in the middle of a path or URL it does not count.
fn has_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before.is_some_and(|char| char.is_alphanumeric() || "._-}~/".contains(char))
    })
}

fn each_line(text: &str, rule: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let numbered = text.lines().enumerate();
    numbered.filter_map(|(index, line)| Some((index + 1, rule(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rust_file_begins_with_its_documentation() {
        assert_eq!(missing_header("//! Sums.\nfn f() {}"), None);
        assert!(missing_header("fn f() {}\n//! Sums.").is_some());
        assert!(missing_header("").is_some());
    }

    #[test]
    fn every_leftover_is_found_on_its_line() {
        for pattern in UNFINISHED {
            let text = format!("fn f() {{\n    {pattern}\n}}");
            let found = unfinished(&text);
            assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2], "{pattern}");
        }
        assert!(unfinished("// todo list, ignored").is_empty());
    }

    #[test]
    fn machine_paths_are_found_where_a_path_begins() {
        for prefix in MACHINE {
            for line in [format!("{prefix}a"), format!("(\"{prefix}a\")"), format!("={prefix}a")] {
                assert_eq!(machine_paths(&line).len(), 1, "{line}");
            }
            for line in [format!("target{prefix}a"), format!("https://x.org{prefix}")] {
                assert!(machine_paths(&line).is_empty(), "{line}");
            }
        }
    }
}
