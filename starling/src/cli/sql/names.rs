//! The names that a session knows: for completion, for hints, and for `\d`.

use std::collections::BTreeMap;

use starling_collections::frame::Frames;

/// Names of tables, columns and functions at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// The tables by name, with their schema's where that is not the default one, and their columns.
    pub(super) tables: BTreeMap<String, Vec<String>>,
    /// All functions, in order.
    pub(super) functions: Vec<String>,
}

impl Names {
    /// What the session knows now. A table that cannot be looked into has no columns here.
    pub(super) async fn of(frames: &Frames) -> Names {
        let context = frames.context();
        let state = context.state();
        let defaults = &state.config_options().catalog;
        let mut names = Names::default();
        for catalog_name in context.catalog_names() {
            let Some(catalog) = context.catalog(&catalog_name) else { continue };
            for schema_name in catalog.schema_names() {
                let Some(schema) = catalog.schema(&schema_name).filter(|_| schema_name != "information_schema") else {
                    continue;
                };
                for table in schema.table_names() {
                    let columns = match schema.table(&table).await {
                        Ok(Some(table)) => table.schema().fields().iter().map(|field| field.name().clone()).collect(),
                        Ok(None) | Err(_) => Vec::new(),
                    };
                    let mut name = quoted(&table);
                    if schema_name != defaults.default_schema {
                        name = format!("{}.{name}", quoted(&schema_name));
                    }
                    if catalog_name != defaults.default_catalog {
                        name = format!("{}.{name}", quoted(&catalog_name));
                    }
                    names.tables.insert(name, columns);
                }
            }
        }
        let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
        let functions = functions.chain(state.window_functions().keys()).chain(state.table_functions().keys());
        names.functions = functions.cloned().collect();
        names.functions.sort_unstable();
        names.functions.dedup();
        names
    }
}

/// A name as it is written in SQL: in quotes if it would be taken for another without.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty();
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_need_quotes_get_them() {
        assert_eq!(quoted("post_2"), "post_2");
        assert_eq!(quoted("PostTypeId"), "\"PostTypeId\"");
        assert_eq!(quoted("2nd"), "\"2nd\"");
        assert_eq!(quoted("a \"b\""), "\"a \"\"b\"\"\"");
    }
}
