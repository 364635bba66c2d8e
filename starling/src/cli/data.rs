//! `node put`, `node get` and `node data`: files on the nodes of a running cluster.

use std::path::PathBuf;

use clap::Args;
use starling_collections::files::{self, Listing, MeshFile, Targets};

use super::ask::connect;
use super::connection::ConnectionOptions;
use super::parse::parse_targets;
use super::{CliError, block_on, print};

/// Which file to copy where.
#[derive(Debug, Args)]
pub(super) struct PutOptions {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The nodes that get it: `all`, a number of them, or names or beginnings of ids with commas between.
    #[arg(long, value_name = "all|N|NODE,..", value_parser = parse_targets)]
    to: Targets,

    /// The absolute path on the nodes. By default that of FILE here.
    #[arg(long = "as", value_name = "PATH")]
    path: Option<String>,

    /// Overwrite another file of that name.
    #[arg(long)]
    force: bool,

    /// Make the directories that do not exist on a node.
    #[arg(long)]
    make_directories: bool,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Which file to copy from where.
#[derive(Debug, Args)]
pub(super) struct GetOptions {
    /// The path on the nodes, after a node's name or the beginning of its id and a colon if it is to be from that one:
    /// /data/posts.csv, worker-1:/data/posts.csv.
    #[arg(value_name = "[NODE:]PATH")]
    from: String,

    /// The file or directory to write it to. By default a file of the same name in the working directory.
    #[arg(value_name = "LOCAL")]
    to: Option<PathBuf>,

    /// Overwrite another file of that name.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Which files to list.
#[derive(Debug, Args)]
pub(super) struct DataOptions {
    /// A file, a directory with all below it, or a pattern such as '/data/*.csv'. By default the files in the directory
    /// that has the path of the working directory.
    #[arg(value_name = "PATTERN", default_value = "*")]
    pattern: String,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Copies a file to nodes, and prints which have it now.
pub(super) fn put(options: &PutOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let put = files::PutOptions {
            path: options.path.clone(),
            force: options.force,
            make_directories: options.make_directories,
        };
        let put = files::put(&cluster, &options.file, &options.to, &put).await;
        cluster.shutdown().await;
        let put = put?;
        let mut parts = Vec::new();
        if !put.copied.is_empty() {
            parts.push(format!("copied to {}", put.copied.join(", ")));
        }
        if !put.had.is_empty() {
            parts.push(format!("there already on {}", put.had.join(", ")));
        }
        print(format_args!("{} ({} bytes): {}", put.path, put.size, parts.join("; ")))
    })
}

/// Copies a file from a node.
pub(super) fn get(options: &GetOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let (node, path) = split_node(&options.from);
        let get = files::GetOptions { node: node.map(str::to_owned), to: options.to.clone(), force: options.force };
        let got = files::get(&cluster, path, &get).await;
        cluster.shutdown().await;
        let got = got?;
        print(format_args!("{} ({} bytes): copied from {}", got.path.display(), got.size, got.from))
    })
}

/// The node before the colon, unless what is there is the beginning of a path.
fn split_node(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((node, path)) if !node.is_empty() && !node.contains('/') => (Some(node), path),
        _ => (None, text),
    }
}

/// Prints which node has which file.
pub(super) fn data(options: &DataOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let listing = files::list(&cluster, &options.pattern).await;
        cluster.shutdown().await;
        let listing = listing?;
        if listing.is_nothing() {
            listing.check(false)?;
        }
        let paths = listing.files.iter().map(|file| file.path.chars().count()).max().unwrap_or(0);
        for file in &listing.files {
            let size = if file.differs() { "?".to_owned() } else { file.size().to_string() };
            print(format_args!("{:paths$}  {size:>14}  {}", file.path, holders(&listing, file)))?;
        }
        print(format_args!("{} files on {} nodes", listing.files.len(), listing.asked.len()))
    })
}

/// Who has a file, in the fewest words.
fn holders(listing: &Listing, file: &MeshFile) -> String {
    if file.differs() {
        return format!("differs: {}", listing.sizes_of(file));
    }
    match listing.lacking(file).count() {
        0 => "on all".to_owned(),
        lacking if lacking < file.copies.len() => format!("on all but {}", listing.name_of(listing.lacking(file))),
        _ => format!("on {}", listing.name_of(file.nodes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_what_stands_before_the_colon_of_a_path() {
        assert_eq!(split_node("worker-1:/data/a.csv"), (Some("worker-1"), "/data/a.csv"));
        assert_eq!(split_node("/data/a.csv"), (None, "/data/a.csv"));
        assert_eq!(split_node("/data/12:30.csv"), (None, "/data/12:30.csv"));
        assert_eq!(split_node(":/data"), (None, ":/data"));
    }
}
