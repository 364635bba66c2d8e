//! The names that a session knows: for completion, for hints, and for `\d`.

use std::collections::BTreeMap;

use datafusion::common::utils::datafusion_strsim::levenshtein;
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

/// The name that was probably meant, if one is near: the case does not count.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let distances = known.into_iter().map(|known| (levenshtein(&name, &known.to_lowercase()), known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    // More than half of the letters wrong is another name; two that changed places are two wrong ones.
    (distance * 2 <= name.chars().count().max(nearest.chars().count())).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near_enough_to_have_been_meant() {
        let known = ["posts", "users", "PostTypeId"];
        assert_eq!(nearest("post", known), Some("posts"));
        assert_eq!(nearest("posttypeid", known), Some("PostTypeId"));
        assert_eq!(nearest("usres", known), Some("users"));
        assert_eq!(nearest("comments", known), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn only_names_that_need_quotes_get_them() {
        assert_eq!(quoted("post_2"), "post_2");
        assert_eq!(quoted("PostTypeId"), "\"PostTypeId\"");
        assert_eq!(quoted("2nd"), "\"2nd\"");
        assert_eq!(quoted("a \"b\""), "\"a \"\"b\"\"\"");
    }
}
