//! Files of cases.
//!
//! ```text
//! Lines before the first case are for the reader.
//!
//! === what happens
//! --- before
//! g (float[B,S,8] x) => (float[B,S,8] y)
//! <float[8] weight = {random}>
//! { … }
//! --- notes
//! a part of a note that the passes must leave
//! --- after
//! …
//! ```
//!
//! A graph without header is of opset 18. `{random}` stands for numbers made from the name of
//! the initializer. `notes` may be absent.

/// One pair of graphs.
pub struct Case {
    /// What happens.
    pub title: String,
    /// The graph as an exporter writes it.
    pub before: String,
    /// Texts, one a line, that must occur in the notes of the passes.
    pub notes: String,
    /// What canonicalisation makes of it.
    pub after: String,
}

const TITLE: &str = "=== ";
const SECTION: &str = "--- ";

/// The cases in the text of a file.
pub fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix(TITLE) {
            let title = title.to_owned();
            let (before, notes, after) = Default::default();
            cases.push(Case { title, before, notes, after });
            section.clear();
        } else if let Some(name) = line.strip_prefix(SECTION) {
            section = name.to_owned();
        } else if let Some(case) = cases.last_mut() {
            let target = match section.as_str() {
                "before" => &mut case.before,
                "notes" => &mut case.notes,
                "after" => &mut case.after,
                other => panic!("the case \"{}\" has a section \"{other}\"", case.title),
            };
            target.push_str(line);
            target.push('\n');
        }
    }
    cases.iter_mut().flat_map(|c| [&mut c.before, &mut c.notes, &mut c.after]).for_each(trim);
    cases
}

/// Cuts empty lines off the end.
fn trim(text: &mut String) {
    let kept = text.trim_end().len();
    text.truncate(kept);
    text.push('\n');
}

/// The text of a file with these cases, under the lines that precede the first in `old`.
pub fn write(old: &str, cases: &[Case]) -> String {
    let mut text = String::new();
    for line in old.lines().take_while(|line| !line.starts_with(TITLE)) {
        text.push_str(line);
        text.push('\n');
    }
    for (i, case) in cases.iter().enumerate() {
        let gap = if i == 0 { "" } else { "\n" };
        text.push_str(&format!("{gap}{TITLE}{}\n", case.title));
        for (name, body) in
            [("before", &case.before), ("notes", &case.notes), ("after", &case.after)]
        {
            if !body.trim().is_empty() {
                text.push_str(&format!("{SECTION}{name}\n{body}"));
            }
        }
    }
    text
}
