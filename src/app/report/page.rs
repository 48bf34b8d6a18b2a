//! The page as HTML.
use std::fmt::Write;

use super::sections::Section;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2em auto;padding:0 1em}
h1{font-size:1.7em}h2{font-size:1.25em;margin:2em 0 .4em;border-bottom:1px solid #ddd}
table{border-collapse:collapse}td{padding:.15em 1.5em .15em 0;vertical-align:top}
td:first-child{color:#666;white-space:nowrap}td{overflow-wrap:anywhere}
figure{margin:1em 0;display:inline-block;vertical-align:top}figcaption{font-weight:600;margin-bottom:.2em}
svg{max-width:100%;height:auto}p{max-width:60em}";

/// A whole page that needs nothing from elsewhere.
pub(super) fn page(title: &str, sections: &[Section]) -> String {
    let mut html = String::new();
    let title = escape(title);
    html += "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
    html += "<meta name=\"viewport\" content=\"width=device-width\">\n";
    html += &format!("<title>{title} – planish report</title>\n<style>\n{STYLE}\n</style>\n");
    html += &format!("</head>\n<body>\n<h1>{title}</h1>\n");
    for section in sections {
        html += &format!("<section>\n<h2>{}</h2>\n", escape(section.title));
        for text in &section.text {
            html += &format!("<p>{}</p>\n", escape(text));
        }
        if !section.rows.is_empty() {
            html += "<table>\n";
            for (name, value) in &section.rows {
                html += &format!("<tr><td>{}</td><td>{}</td></tr>\n", escape(name), escape(value));
            }
            html += "</table>\n";
        }
        for (caption, svg) in &section.plots {
            let caption = escape(caption);
            // Writing to a string does not fail.
            let _ = writeln!(html, "<figure><figcaption>{caption}</figcaption>\n{svg}</figure>");
        }
        html += "</section>\n";
    }
    html + "</body>\n</html>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_not_break_the_page() {
        let rows = vec![("a & b", "<script>".to_owned())];
        let section = Section { title: "Settings", rows, ..Section::default() };
        let html = page("x<y", &[section]);
        assert!(html.contains("<td>a &amp; b</td><td>&lt;script&gt;</td>"), "{html}");
        assert!(html.contains("<h1>x&lt;y</h1>"), "{html}");
    }
}
