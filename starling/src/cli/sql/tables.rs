//! The tables of a command line.

use starling_collections::frame::{OnBadRow, TableFormat, TableOptions, TableSource};

/// A table that an option asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedTable {
    pub(super) name: String,
    pub(super) location: String,
}

impl NamedTable {
    pub(super) fn source(&self, format: Option<TableFormat>, on_bad_row: OnBadRow) -> TableSource {
        let source = TableSource::new(&self.location).options(TableOptions { on_bad_row, ..TableOptions::default() });
        match format {
            Some(format) => source.format(format),
            None => source,
        }
    }
}

/// Why an option asks for no table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum TableArgError {
    #[error("--table {0:?} has no name: write it as --table posts={0}")]
    NoName(String),
    #[error(
        "--table: {0:?} is no name for a table: take letters, digits and _, a letter first, as in --table posts=posts.csv"
    )]
    BadName(String),
    #[error(
        "--table {0} says no file: write it as --table {0}=PATH, where PATH is a file, a directory, a glob or a URL"
    )]
    NoLocation(String),
    #[error(
        "--table names {0} twice: give each table its own name; a glob such as 'data/*.csv' is one table of many files"
    )]
    Twice(String),
}

/// The tables that these options ask for: each `name=location`, several of them between commas. A comma that no `name=` follows
/// is part of the location.
pub(super) fn parse_tables(options: &[String]) -> Result<Vec<NamedTable>, TableArgError> {
    let mut tables: Vec<NamedTable> = Vec::new();
    for option in options {
        for text in parts(option) {
            let table = parse_table(text)?;
            // As SQL reads names that are in no quotes.
            if tables.iter().any(|other| other.name.eq_ignore_ascii_case(&table.name)) {
                return Err(TableArgError::Twice(table.name));
            }
            tables.push(table);
        }
    }
    Ok(tables)
}

fn parse_table(text: &str) -> Result<NamedTable, TableArgError> {
    let Some((name, location)) = text.split_once('=') else {
        return Err(if is_name(text) {
            TableArgError::NoLocation(text.to_owned())
        } else {
            TableArgError::NoName(text.to_owned())
        });
    };
    if !is_name(name) {
        return Err(TableArgError::BadName(name.to_owned()));
    }
    if location.is_empty() {
        return Err(TableArgError::NoLocation(name.to_owned()));
    }
    Ok(NamedTable { name: name.to_owned(), location: location.to_owned() })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The text cut at the commas that a `name=` follows.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(',') {
        let begins_table = text[at + 1..].split_once('=').is_some_and(|(name, _)| is_name(name));
        if begins_table {
            parts.push(&text[start..at]);
            start = at + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Result<Vec<(String, String)>, TableArgError> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        Ok(parse_tables(&options)?.into_iter().map(|table| (table.name, table.location)).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, location)| (name.to_owned(), location.to_owned())).collect()
    }

    #[test]
    fn tables_are_names_and_locations_between_commas_or_in_several_options() {
        let expected = pairs(&[("a", "x.csv"), ("b", "s3://bucket/y/*.parquet"), ("c", "z")]);
        assert_eq!(parsed(&["a=x.csv,b=s3://bucket/y/*.parquet", "c=z"]).unwrap(), expected);
        assert_eq!(parsed(&["a=x,1.csv,b=dir/year=2020"]).unwrap(), pairs(&[("a", "x,1.csv"), ("b", "dir/year=2020")]));
        assert_eq!(parsed(&[]).unwrap(), []);
    }

    #[test]
    fn what_is_no_table_says_what_to_write() {
        assert_eq!(parsed(&["posts.csv"]).unwrap_err(), TableArgError::NoName("posts.csv".to_owned()));
        assert_eq!(parsed(&["posts"]).unwrap_err(), TableArgError::NoLocation("posts".to_owned()));
        assert_eq!(parsed(&["posts="]).unwrap_err(), TableArgError::NoLocation("posts".to_owned()));
        assert_eq!(parsed(&["2nd=x.csv"]).unwrap_err(), TableArgError::BadName("2nd".to_owned()));
        assert_eq!(parsed(&["=x.csv"]).unwrap_err(), TableArgError::BadName(String::new()));
        assert_eq!(parsed(&["a=x,A=y"]).unwrap_err(), TableArgError::Twice("A".to_owned()));
        assert_eq!(parsed(&["a=x", "a=x"]).unwrap_err(), TableArgError::Twice("a".to_owned()));
        let error = TableArgError::NoName("posts.csv".to_owned()).to_string();
        assert_eq!(error, "--table \"posts.csv\" has no name: write it as --table posts=posts.csv");
    }
}
