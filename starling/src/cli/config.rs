//! The configuration file: the command's options in TOML.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use starling_core::spec::Resources;

use super::parse::{parse_record_limit, parse_resources, parse_size};
use super::serve::Role;

/// What a configuration file may hold. Each has the meaning of the option of the same name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct ConfigFile {
    pub(super) role: Option<Role>,
    pub(super) join: Vec<String>,
    pub(super) listen: Vec<String>,
    pub(super) no_listen: bool,
    pub(super) secret_file: Option<PathBuf>,
    /// The secret itself, for those who guard the file.
    pub(super) secret: Option<String>,
    pub(super) insecure: bool,
    pub(super) threads: Option<u32>,
    memory_limit: Option<String>,
    pub(super) memory_target: Option<f64>,
    pub(super) memory_spill: Option<f64>,
    pub(super) memory_pause: Option<f64>,
    pub(super) memory_refuse: Option<f64>,
    pub(super) spill_directory: Option<PathBuf>,
    spill_limit: Option<String>,
    resources: Option<String>,
    pub(super) allowed_failures: Option<u32>,
    pub(super) saturation_ms: Option<u64>,
    pub(super) tasks_max: Option<u64>,
    pub(super) record: Option<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) voters: Option<usize>,
    record_limit: Option<String>,
    pub(super) name: Option<String>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("the configuration file {path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// Without the parser's own text, which is several lines and shows the line that may hold the secret.
    #[error("the configuration file {path} is wrong in line {line}: {message}")]
    Parse { path: PathBuf, line: usize, message: String },
    #[error("the configuration file {path} holds the secret and can be read by others: run `chmod 600 {path}`")]
    Exposed { path: PathBuf },
    #[error("{option} in the configuration file: {problem}")]
    Value { option: &'static str, problem: String },
}

impl ConfigFile {
    /// The file that was named, else the one in the default place if there is one, else nothing.
    pub(super) fn load(named: Option<&Path>) -> Result<ConfigFile, ConfigError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => match default_path().filter(|path| path.exists()) {
                Some(path) => path,
                None => return Ok(ConfigFile::default()),
            },
        };
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let file: ConfigFile = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::Parse { path: path.clone(), line, message: error.message().replace('\n', " ") }
        })?;
        if file.secret.is_some() && is_readable_by_others(&path) {
            return Err(ConfigError::Exposed { path });
        }
        Ok(file)
    }

    pub(super) fn memory_limit_bytes(&self) -> Result<Option<u64>, ConfigError> {
        parsed("memory-limit", self.memory_limit.as_deref(), parse_size)
    }

    pub(super) fn spill_limit_bytes(&self) -> Result<Option<u64>, ConfigError> {
        parsed("spill-limit", self.spill_limit.as_deref(), parse_size)
    }

    pub(super) fn resources(&self) -> Result<Option<Resources>, ConfigError> {
        parsed("resources", self.resources.as_deref(), parse_resources)
    }

    pub(super) fn record_limit_bytes(&self) -> Result<Option<u64>, ConfigError> {
        parsed("record-limit", self.record_limit.as_deref(), parse_record_limit)
    }
}

fn parsed<T>(
    option: &'static str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    text.map(parse).transpose().map_err(|problem| ConfigError::Value { option, problem })
}

fn is_readable_by_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// `starling/node.toml` in the user's configuration folder.
fn default_path() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(folder.join("starling").join("node.toml"))
}
