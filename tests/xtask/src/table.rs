//! Tables in Markdown.

/// A table of which all columns but the first are figures; rows may be shorter than the header.
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let all = [&header].into_iter().chain(rows);
            all.map(|row| cell(row, column).chars().count()).max().unwrap_or(0).max(3)
        })
        .collect();
    let line = |row: &[String]| {
        let padded = widths.iter().enumerate().map(|(column, width)| match column {
            0 => format!(" {:width$} ", cell(row, column)),
            _ => format!(" {:>width$} ", cell(row, column)),
        });
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let ruler = widths.iter().enumerate().map(|(column, width)| match column {
        0 => format!(" {} ", "-".repeat(*width)),
        _ => format!(" {}: ", "-".repeat(width - 1)),
    });
    let ruler = format!("|{}|\n", ruler.collect::<Vec<_>>().join("|"));
    line(&header) + &ruler + &rows.iter().map(|row| line(row)).collect::<String>()
}

/// A number of bytes in MB (10⁶ bytes).
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["one".to_owned(), "1".to_owned()], vec!["three".to_owned()]];
        let expected = "\
| name  | figure |
| ----- | -----: |
| one   |      1 |
| three |        |
";
        assert_eq!(markdown(&["name", "figure"], &rows), expected);
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(megabytes(538_169_344), "538.2 MB");
    }
}
