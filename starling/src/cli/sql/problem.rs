//! What is wrong with a statement, shown in the statement.

use std::fmt;

use datafusion::common::{Diagnostic, SchemaError, Span};
use datafusion::error::DataFusionError;
use starling_collections::frame::FrameError;
use starling_runtime::near::nearest;

use super::names::{Names, quoted};
use super::statements::Statement;

/// A statement that failed, with the place in it and what may help, as far as that is known.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) struct Problem {
    message: String,
    place: Option<Place>,
    hints: Vec<String>,
    source: FrameError,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    /// The line's text.
    text: String,
    /// How many of its characters come before what is meant.
    before: usize,
    /// How many characters are meant: at least one.
    len: usize,
}

impl Problem {
    /// What `error` says of `statement`.
    pub(super) fn of(source: FrameError, statement: &Statement, names: &Names) -> Problem {
        let FrameError::Query(error) = &source else {
            return Problem { message: source.to_string(), place: None, hints: Vec::new(), source };
        };
        let diagnostic = error.diagnostic().cloned();
        let root = error.find_root();
        let (message, at) = match (root, &diagnostic) {
            (DataFusionError::SQL(parser, _), _) => {
                let text = parser.to_string();
                let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
                let (text, at) = without_position(text);
                let at = at.or_else(|| text.ends_with("found: EOF").then(|| end_of(statement)));
                (text.to_owned(), at.map(|(line, column)| (line, column, token_len(statement, line, column))))
            }
            (_, Some(diagnostic)) => (diagnostic.message.clone(), diagnostic.span.map(of_span)),
            // The other lines only list what the hint chooses from.
            (DataFusionError::SchemaError(error, _), None) => {
                (error.to_string().lines().next().unwrap_or_default().to_owned(), None)
            }
            // With what stands around the root: the file that was read, the task that failed.
            (_, None) => (without_blame(&error.strip_backtrace()).to_owned(), None),
        };
        let hints = hints(root, diagnostic.as_ref(), &message, names);
        let place = at.and_then(|(line, column, len)| Place::of(statement, line, column, len));
        Problem { message, place, hints, source }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        let mut margin = 0;
        if let Some(Place { line, column, text, before, len }) = &self.place {
            let number = line.to_string();
            margin = number.len();
            // Tabs stay, so that the mark is below its place however wide they are.
            let pad: String = text.chars().take(*before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n{:margin$}--> line {line}, column {column}", "")?;
            write!(f, "\n{:margin$} |\n{number} | {text}\n{:margin$} | {pad}{}", "", "", "^".repeat(*len))?;
        }
        for hint in &self.hints {
            write!(f, "\n{:margin$} = {hint}", "")?;
        }
        Ok(())
    }
}

impl Place {
    /// Line and column from 1 in the statement; nothing if it has no such line.
    fn of(statement: &Statement, line: usize, column: usize, len: usize) -> Option<Place> {
        let text = statement.text.lines().nth(line.checked_sub(1)?)?.to_owned();
        let before = column.checked_sub(1)?.min(text.chars().count());
        let len = len.min(text.chars().count() - before).max(1);
        let (line, column) = statement.place(line, column);
        Some(Place { line, column, text, before, len })
    }
}

fn of_span(span: Span) -> (usize, usize, usize) {
    let (start, end) = (span.start, span.end);
    let len = if start.line == end.line { end.column.saturating_sub(start.column) } else { u64::MAX };
    (start.line as usize, start.column as usize, usize::try_from(len).unwrap_or(usize::MAX))
}

/// A parser's message without ` at Line: 1, Column: 8` at its end, and that position.
fn without_position(text: &str) -> (&str, Option<(usize, usize)>) {
    let position = || {
        let (message, position) = text.rsplit_once(" at Line: ")?;
        let (line, column) = position.split_once(", Column: ")?;
        let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
        Some((message, (line.parse().ok()?, column[..digits].parse().ok()?)))
    };
    match position() {
        Some((message, at)) => (message, Some(at)),
        None => (text, None),
    }
}

/// Behind the last character.
fn end_of(statement: &Statement) -> (usize, usize) {
    let last = statement.text.lines().last().unwrap_or_default();
    (statement.text.lines().count().max(1), last.chars().count() + 1)
}

/// A message without the asking for a bug report, which DataFusion adds also to what is only a wrong query.
fn without_blame(text: &str) -> &str {
    // This says the same as all attempts at a signature before it.
    let start = text.find("No function matches the given name").unwrap_or(0);
    let text = &text[start..];
    let end = text.find("\nThis issue was likely caused by a bug in DataFusion").unwrap_or(text.len());
    text[..end].trim_end()
}

/// How long the word is that begins there.
fn token_len(statement: &Statement, line: usize, column: usize) -> usize {
    let line = statement.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let rest = line.chars().skip(column.saturating_sub(1));
    rest.take_while(|c| c.is_alphanumeric() || *c == '_').count().max(1)
}

/// What may help, best first.
fn hints(root: &DataFusionError, diagnostic: Option<&Diagnostic>, message: &str, names: &Names) -> Vec<String> {
    if let DataFusionError::SchemaError(error, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = error.as_ref()
    {
        let near = nearest(field.name(), valid_fields.iter().map(|field| field.name()));
        let valid: Vec<String> = valid_fields.iter().map(|field| field.quoted_flat_name()).collect();
        return match near {
            Some(near) if near.to_lowercase() == field.name().to_lowercase() => vec![format!(
                "hint: write {}: names with upper case letters are found only in double quotes",
                quoted(near)
            )],
            Some(near) => vec![format!("hint: did you mean {}?", quoted(near))],
            None if valid.is_empty() => Vec::new(),
            None => vec![format!("note: the columns here are {}", valid.join(", "))],
        };
    }
    let mut hints = Vec::new();
    if let Some(diagnostic) = diagnostic {
        hints.extend(diagnostic.helps.iter().map(|help| format!("hint: {}", help.message)));
        hints.extend(diagnostic.notes.iter().map(|note| format!("note: {}", note.message)));
    }
    if hints.is_empty() {
        hints.extend(missing_table(message).map(|table| table_hint(table, names)));
    }
    hints
}

/// The table that a message says is not there: `table 'datafusion.public.name' not found`.
fn missing_table(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("table '").or_else(|| message.split_once("Table '"))?;
    let (name, rest) = rest.split_once('\'')?;
    rest.starts_with(" not found").then(|| name.rsplit('.').next().unwrap_or(name))
}

fn table_hint(table: &str, names: &Names) -> String {
    let tables = names.tables.keys().map(String::as_str);
    match (nearest(table, tables.clone()), names.tables.is_empty()) {
        (Some(near), _) => format!("hint: did you mean {near}?"),
        (None, true) => "hint: there are no tables: give --table NAME=PATH, or CREATE EXTERNAL TABLE".to_owned(),
        (None, false) => format!("note: the tables are {}", tables.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::prelude::SessionContext;

    use super::super::statements::split;
    use super::*;

    fn names() -> Names {
        Names {
            tables: BTreeMap::from([("posts".to_owned(), vec!["Id".to_owned(), "score".to_owned()])]),
            functions: vec!["floor".to_owned()],
        }
    }

    /// What is said of the last statement of a text, with a table `posts`.
    async fn problem(text: &str) -> String {
        let context = SessionContext::new();
        context.state_ref().write().config_mut().options_mut().sql_parser.collect_spans = true;
        context.sql("CREATE TABLE posts AS SELECT 1 AS \"Id\", 2 AS score").await.unwrap();
        let statement = split(text).all().pop().unwrap();
        let error = context.sql(&statement.text).await.unwrap_err();
        Problem::of(error.into(), &statement, &names()).to_string()
    }

    #[tokio::test]
    async fn a_syntax_error_is_marked_in_its_line() {
        assert_eq!(
            problem("SELECT 1;\nSELECT score\n  FORM posts WHERE").await,
            "Expected: end of statement, found: posts\n \
             --> line 3, column 8\n  |\n3 |   FORM posts WHERE\n  |        ^^^^^"
        );
        let open = problem("SELECT 'abc").await;
        assert!(open.contains("Unterminated string literal\n --> line 1, column 8"), "{open}");
        assert!(open.ends_with("1 | SELECT 'abc\n  |        ^"), "{open}");
    }

    #[tokio::test]
    async fn a_statement_that_ends_too_early_is_marked_at_its_end() {
        let wrong = problem("SELECT score\nFROM posts WHERE ;").await;
        assert!(wrong.ends_with("--> line 2, column 17\n  |\n2 | FROM posts WHERE\n  |                 ^"), "{wrong}");
    }

    #[tokio::test]
    async fn a_function_of_other_types_is_told_once_and_blames_nobody() {
        let wrong = problem("SELECT sum('a') FROM posts").await;
        assert!(wrong.starts_with("No function matches the given name and argument types 'sum("), "{wrong}");
        assert!(!wrong.contains("bug"), "{wrong}");
    }

    #[tokio::test]
    async fn a_column_that_is_not_there_is_marked_and_another_suggested() {
        let wrong = problem("SELECT scroe FROM posts").await;
        assert!(wrong.contains("line 1, column 8"), "{wrong}");
        assert!(wrong.contains("| SELECT scroe FROM posts\n  |        ^^^^^\n"), "{wrong}");
        assert!(wrong.ends_with("= hint: did you mean score?"), "{wrong}");
        let case = problem("SELECT id FROM posts").await;
        assert!(
            case.ends_with("hint: write \"Id\": names with upper case letters are found only in double quotes"),
            "{case}"
        );
        let other = problem("SELECT something FROM posts").await;
        assert!(other.ends_with("note: the columns here are posts.\"Id\", posts.score"), "{other}");
    }

    #[tokio::test]
    async fn a_table_that_is_not_there_is_marked_and_another_suggested() {
        let wrong = problem("SELECT score\nFROM post").await;
        assert!(wrong.contains("line 2, column 6"), "{wrong}");
        assert!(wrong.contains("2 | FROM post\n  |      ^^^^\n"), "{wrong}");
        assert!(wrong.ends_with("hint: did you mean posts?"), "{wrong}");
        let other = problem("SELECT * FROM comments").await;
        assert!(other.ends_with("note: the tables are posts"), "{other}");
    }

    #[tokio::test]
    async fn a_function_that_is_not_there_is_marked_and_another_suggested() {
        let wrong = problem("SELECT flor(score) FROM posts").await;
        assert!(wrong.contains("line 1, column 8"), "{wrong}");
        assert!(wrong.contains("floor"), "{wrong}");
    }

    #[tokio::test]
    async fn what_has_no_place_is_told_without() {
        let wrong = problem("SELECT CAST('x' AS INT) + 'y' FROM posts WHERE score = ANY(1)").await;
        assert!(!wrong.is_empty() && !wrong.contains("Backtrace"), "{wrong}");
    }

    #[test]
    fn the_mark_stands_below_its_place_after_tabs_and_wide_letters() {
        let statement = Statement { text: "\tSELECT ü, x".to_owned(), line: 10, column: 4 };
        let place = Place::of(&statement, 1, 12, 1).unwrap();
        assert_eq!((place.line, place.column, place.before, place.len), (10, 15, 11, 1));
        let problem = Problem {
            message: "no".to_owned(),
            place: Some(place),
            hints: vec!["hint: yes".to_owned()],
            source: FrameError::Query(DataFusionError::Plan(String::new())),
        };
        let expected = "no\n  --> line 10, column 15\n   |\n10 | \tSELECT ü, x\n   | \t          ^\n   = hint: yes";
        assert_eq!(problem.to_string(), expected);
        assert_eq!(Place::of(&statement, 2, 1, 1), None);
    }
}
