//! What the shell offers when Tab is pressed, and when a line is a whole statement.

use rustyline::completion::{Completer, Pair};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};

use super::names::{Names, quoted};
use super::shell::COMMANDS;
use super::statements::split;

/// The words of SQL that are worth completing.
const KEYWORDS: [&str; 92] = [
    "ALL",
    "ANALYZE",
    "AND",
    "ANTI",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COPY",
    "CREATE",
    "CROSS",
    "CUBE",
    "CURRENT",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FORMAT",
    "FROM",
    "FULL",
    "GROUP",
    "GROUPING",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PARTITIONED",
    "PRECEDING",
    "QUALIFY",
    "RANGE",
    "RECURSIVE",
    "REPLACE",
    "RIGHT",
    "ROLLUP",
    "ROWS",
    "SELECT",
    "SEMI",
    "SET",
    "SETS",
    "SHOW",
    "STORED",
    "TABLE",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "UNNEST",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];

/// The words that a table follows.
const BEFORE_TABLES: [&str; 6] = ["FROM", "JOIN", "INTO", "TABLE", "VIEW", "DESCRIBE"];

/// What the line editor asks.
#[derive(Helper, Highlighter, Hinter)]
pub(super) struct ShellHelper {
    pub(super) names: Names,
}

impl Completer for ShellHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = candidates(&self.names, &line[..pos]);
        Ok((start, words.into_iter().map(|word| Pair { display: word.clone(), replacement: word }).collect()))
    }
}

impl Validator for ShellHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let is_whole = is_whole(context.input());
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Whether Enter ends what was typed: a command of the shell, or statements up to their semicolon.
fn is_whole(input: &str) -> bool {
    let input = input.trim();
    input.is_empty() || input.starts_with('\\') || {
        let split = split(input);
        split.rest.is_none() && !split.ended.is_empty()
    }
}

/// Where the word begins that ends at the end of `typed`, and what it may become.
fn candidates(names: &Names, typed: &str) -> (usize, Vec<String>) {
    let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '\\' | '.');
    let start = typed.char_indices().rev().take_while(|(_, c)| is_of_word(*c)).last().map_or(typed.len(), |(at, _)| at);
    let word = &typed[start..];
    let line = typed.trim_start();
    if line.starts_with('\\') && start == typed.len() - line.len() {
        return (
            start,
            COMMANDS.iter().map(|(command, ..)| *command).filter(|c| c.starts_with(word)).map(Into::into).collect(),
        );
    }
    if line.starts_with("\\d ") {
        return (start, names.tables.keys().filter(|table| begins(table, word)).cloned().collect());
    }
    if let Some(dot) = word.rfind('.') {
        let (qualifier, column) = (&word[..dot], &word[dot + 1..]);
        // What is no table may be another name for one.
        let of_table = names.tables.get(qualifier).map(|columns| vec![columns]);
        let columns = of_table.unwrap_or_else(|| names.tables.values().collect());
        let mut found: Vec<String> = columns.into_iter().flatten().map(|name| quoted(name)).collect();
        found.retain(|name| begins(name, column));
        return (start + dot + 1, in_order(found));
    }
    let before = typed[..start].split_whitespace().next_back().unwrap_or_default().to_uppercase();
    if word.is_empty() || BEFORE_TABLES.contains(&before.as_str()) {
        return (start, names.tables.keys().filter(|table| begins(table, word)).cloned().collect());
    }
    let is_lower = word.chars().any(char::is_lowercase);
    let keywords = KEYWORDS.iter().map(|&keyword| if is_lower { keyword.to_lowercase() } else { keyword.to_owned() });
    let columns = names.tables.values().flatten().map(|name| quoted(name));
    let functions = names.functions.iter().map(|function| format!("{function}("));
    let all = keywords.chain(names.tables.keys().cloned()).chain(columns).chain(functions);
    (start, in_order(all.filter(|name| begins(name, word)).collect()))
}

/// Whether `word`, as far as it was typed, is the beginning of `name`. Case does not count, nor do quotes that are not typed.
fn begins(name: &str, word: &str) -> bool {
    if word.starts_with('"') && !name.starts_with('"') {
        return false;
    }
    let (name, word) = (name.trim_start_matches('"'), word.trim_start_matches('"'));
    name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn in_order(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn names() -> Names {
        let columns = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Names {
            tables: BTreeMap::from([
                ("posts".to_owned(), columns(&["Id", "PostTypeId", "score"])),
                ("users".to_owned(), columns(&["id", "name"])),
            ]),
            functions: ["sum", "substr", "power"].map(str::to_owned).to_vec(),
        }
    }

    fn found(typed: &str) -> (usize, Vec<String>) {
        candidates(&names(), typed)
    }

    #[test]
    fn words_become_keywords_tables_columns_and_functions() {
        assert_eq!(found("SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(found("select su").1, ["substr(", "sum("]);
        assert_eq!(
            found("SELECT S").1,
            ["SELECT", "SEMI", "SET", "SETS", "SHOW", "STORED", "score", "substr(", "sum("]
        );
        assert_eq!(found("select * from po"), (14, vec!["posts".to_owned()]));
        assert_eq!(found("SELECT 1\nFROM users JOIN p").1, ["posts"]);
        assert_eq!(found("SELECT * FROM ").1, ["posts", "users"]);
        assert_eq!(found("SELECT zz").1, Vec::<String>::new());
    }

    #[test]
    fn columns_that_need_quotes_get_them_whether_or_not_one_was_typed() {
        assert_eq!(found("SELECT postt"), (7, vec!["\"PostTypeId\"".to_owned()]));
        assert_eq!(found("SELECT \"Post"), (7, vec!["\"PostTypeId\"".to_owned()]));
    }

    #[test]
    fn behind_a_table_and_a_dot_come_its_columns() {
        assert_eq!(found("SELECT users."), (13, vec!["id".to_owned(), "name".to_owned()]));
        assert_eq!(found("SELECT users.n").1, ["name"]);
        assert_eq!(found("SELECT p.sc").1, ["score"], "p may be posts under another name");
    }

    #[test]
    fn commands_of_the_shell_and_their_tables() {
        assert!(found("\\").1.len() > 4);
        assert_eq!(found("\\ti"), (0, vec!["\\timing".to_owned()]));
        assert_eq!(found("\\d us"), (3, vec!["users".to_owned()]));
    }

    #[test]
    fn enter_ends_a_statement_behind_its_semicolon_only() {
        for whole in ["", "  ", "\\d posts", "SELECT 1;", "SELECT 1; -- done", "SELECT ';';", "SELECT 1; SELECT 2;"] {
            assert!(is_whole(whole), "{whole:?}");
        }
        for open in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT 2", "SELECT 1 -- ;", "-- only this"] {
            assert!(!is_whole(open), "{open:?}");
        }
    }
}
