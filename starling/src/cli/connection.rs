//! The way to a cluster: where it is, and its secret.

use std::path::PathBuf;

use clap::Args;
use starling_runtime::secret::{ClusterSecret, SECRET_ENV, SecretError};

use super::config::ConfigFile;
use super::{CliError, tell};

/// What every command has that joins or asks a cluster.
#[derive(Debug, Args)]
pub(super) struct ConnectionOptions {
    /// A node of the mesh to join: /ip4/10.12.0.10/tcp/8786, 10.12.0.10:8786 or a host name. May be given several
    /// times; the first that answers is taken.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) join: Vec<String>,

    /// The file that holds the cluster's secret.
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,

    /// Run without a secret: anybody who can reach the port may run code here.
    #[arg(long, conflicts_with = "secret_file")]
    pub(super) insecure: bool,

    /// A configuration file in TOML with these same options; the command line goes before it.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// The secret to use, if any is to be used: found, or for the first node of a mesh made. It is looked for in `--secret-file`, in
/// `STARLING_SECRET`, in what the configuration file says, and in the default place, in this order.
pub(super) fn secret(
    options: &ConnectionOptions,
    file: &ConfigFile,
    is_first: bool,
) -> Result<Option<ClusterSecret>, CliError> {
    let is_in_environment = std::env::var_os(SECRET_ENV).is_some_and(|value| !value.is_empty());
    let is_given = options.secret_file.is_some() || is_in_environment;
    if options.insecure || (file.insecure && !is_given) {
        return Ok(None);
    }
    let from_file = file.secret_file.as_deref().filter(|_| !is_given);
    match ClusterSecret::find(options.secret_file.as_deref().or(from_file), file.secret.as_deref()) {
        Ok((secret, from)) => {
            tracing::info!(%from, "found the cluster's secret");
            Ok(Some(secret))
        }
        Err(SecretError::Missing { .. }) if is_first => {
            let (secret, path, made) = ClusterSecret::create_default()?;
            if made {
                tell(format_args!(
                    "made a secret for this cluster in {}; copy it to every other machine:\n\n    \
                     ssh USER@MACHINE 'install -D -m 600 /dev/stdin ~/.config/starling/secret' < {}\n",
                    path.display(),
                    path.display()
                ));
            }
            Ok(Some(secret))
        }
        Err(error) => Err(error.into()),
    }
}

impl ConnectionOptions {
    /// The nodes to join, as texts.
    pub(super) fn join_or<'a>(&'a self, file: &'a ConfigFile) -> &'a [String] {
        if self.join.is_empty() { &file.join } else { &self.join }
    }
}
