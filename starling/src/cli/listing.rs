//! Lists for people: aligned columns, and nothing in them that a terminal would obey.

use clap::ValueEnum;

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Where a column's texts stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// The rows below the columns' names, in columns as wide as they need, a line each.
pub(super) fn table<const N: usize>(columns: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    let head = columns.map(|(name, _)| name.to_owned());
    let lines = || std::iter::once(&head).chain(&rows);
    let widths: [usize; N] =
        std::array::from_fn(|at| lines().map(|row| row[at].chars().count()).max().unwrap_or_default());
    let mut text = String::new();
    for row in lines() {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(columns) {
            line += &match align {
                Align::Left => format!("{cell:<width$}  "),
                Align::Right => format!("{cell:>width$}  "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// What another node or client has named, without the characters that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_and_lines_end_with_their_last_word() {
        let rows = [["a", "1000", ""], ["naïve", "7", "x, y"]].map(|row| row.map(str::to_owned));
        let text = table([("NAME", Align::Left), ("N", Align::Right), ("SETS", Align::Left)], &rows);
        assert_eq!(text, "NAME      N  SETS\na      1000\nnaïve     7  x, y\n");
        assert_eq!(table([("NAME", Align::Left)], &[]), "NAME\n");
    }

    #[test]
    fn a_name_gives_the_terminal_no_orders_and_makes_no_line_of_its_own() {
        let text = table([("NAME", Align::Left)], &[["a\u{1b}[2J\nb".to_owned()]]);
        assert_eq!(text, "NAME\na\u{fffd}[2J\u{fffd}b\n");
    }
}
