//! Tables for people: aligned columns, no borders, colours only where they are seen.

use std::fmt::Write as _;

/// How a text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// As it is.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Well.
    Good,
    /// Not well.
    Bad,
    /// To be looked at.
    Warn,
    /// Less important.
    Dim,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    look: Look,
}

/// A table that grows by rows.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
    colours: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Look::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Look::Plain)
    }
}

impl Cell {
    /// A text with a look. What it says to a terminal instead of a reader is shown, not done: most texts are
    /// somebody's manifests'.
    pub fn new(text: impl Into<String>, look: Look) -> Self {
        let text = visible(text.into());
        Self { text, look }
    }
}

/// The text with its control characters as escapes.
pub fn visible(text: String) -> String {
    match text.contains(char::is_control) {
        true => text.chars().fold(String::new(), |mut shown, c| {
            match c.is_control() {
                true => shown.extend(c.escape_default()),
                false => shown.push(c),
            }
            shown
        }),
        false => text,
    }
}

impl Table {
    /// A table with these column headings.
    pub fn new<const N: usize>(headings: [&str; N], colours: bool) -> Self {
        let head = headings
            .iter()
            .map(|text| Cell::new(*text, Look::Bold))
            .collect();
        Self {
            rows: vec![head],
            colours,
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Whether there is nothing but headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table as text. A column whose cells are all empty is left out.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let is_used = |column: usize| {
            self.rows
                .iter()
                .skip(1)
                .any(|row| row.get(column).is_some_and(|cell| !cell.text.is_empty()))
        };
        let shown: Vec<_> = (0..columns)
            .filter(|column| is_used(*column))
            .map(|c| (c, width(c)))
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut pending = 0;
            for (column, width) in &shown {
                let Some(cell) = row.get(*column) else {
                    continue;
                };
                if !cell.text.is_empty() {
                    let _ = write!(
                        out,
                        "{:pending$}{}",
                        "",
                        paint(&cell.text, cell.look, self.colours)
                    );
                    pending = 0;
                }
                pending += width - cell.text.chars().count() + 2;
            }
            out.push('\n');
        }
        out
    }
}

/// A text in its look.
pub fn paint(text: &str, look: Look, colours: bool) -> String {
    let code = match look {
        Look::Plain => return text.to_owned(),
        _ if !colours => return text.to_owned(),
        Look::Bold => "1",
        Look::Good => "32",
        Look::Bad => "31;1",
        Look::Warn => "33",
        Look::Dim => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut table = Table::new(["NAME", "NOTE", "STATE"], false);
        table.row(["a".into(), "".into(), "ok".into()]);
        table.row(["größer".into(), "".into(), Cell::new("bad", Look::Bad)]);
        assert_eq!(table.render(), "NAME    STATE\na       ok\ngrößer  bad\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(["A", "B"], true);
        table.row([Cell::new("x", Look::Good), "y".into()]);
        assert_eq!(
            table.render(),
            "\x1b[1mA\x1b[0m  \x1b[1mB\x1b[0m\n\x1b[32mx\x1b[0m  y\n"
        );
    }

    #[test]
    fn control_characters_are_shown_and_forge_no_row() {
        let mut table = Table::new(["A", "B"], false);
        table.row(["a\x1b[31mx\nFAKE".into(), "é".into()]);
        assert_eq!(
            table.render(),
            "A                   B\na\\u{1b}[31mx\\nFAKE  é\n"
        );
    }
}
