//! What commands print on stdout: text that a closed pipe ends quietly, and plain tables.

use std::io::Write as _;

/// Prints `text` and a line end. A reader that has gone away is no error: there is nobody to tell.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
}

/// Prints `text` and a line end on stderr.
pub fn error_line(text: &str) {
    let mut out = std::io::stderr().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
}

/// Lays out `rows` under `header` in columns as wide as their widest cell, two spaces apart.
///
/// Control characters in cells become spaces: a daemon's text must not move the cursor.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let clean = |cell: &str| -> String {
        cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![render(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| render(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// Returns `seconds` as people say it: `850 ms`, `12 s`, `5 min`, `3.2 h`, `4.1 d`.
pub fn age(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_are_harmless() {
        let text = table(
            &["name", "state"],
            &[vec!["a".into(), "up".into()], vec!["long\u{1b}[2J".into(), "down".into()]],
        );
        assert_eq!(text, "name      state\na         up\nlong [2J  down");
    }

    #[test]
    fn ages_are_short() {
        let ages: Vec<String> = [0.25, 12.0, 600.0, 9_000.0, 400_000.0].map(age).into();
        assert_eq!(ages, ["250 ms", "12 s", "10 min", "2.5 h", "4.6 d"]);
    }
}
