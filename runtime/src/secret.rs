//! The cluster's secret: how it is made, where it is found, and what to do when it is not.
//!
//! Whoever knows the secret can join the cluster and run code on it, so it lies in a file that only its owner can read,
//! is never logged and never sent. How two nodes prove to each other that they know it is `mesh::admission`'s matter.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What the texts of made secrets begin with, so that a person sees what the file is.
const PREFIX: &str = "starling1-";

/// The fewest characters of a secret. A made one has 64 hexadecimal digits after its prefix.
pub const SECRET_CHARS_MIN: usize = 32;

/// The largest secret file that is read.
const FILE_BYTES_MAX: u64 = 4096;

/// The environment variable that may hold the secret itself.
pub const SECRET_ENV: &str = "STARLING_SECRET";

/// A secret that the nodes of one cluster share. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret {
    text: String,
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// Why there is no secret to use. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read or written.
    #[error(
        "the secret file {path} cannot be used: {source}; on the scheduler's machine it is made by `node --role \
         scheduler`, on others copy it: `scp user@scheduler:~/.config/starling/secret {path}`"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read the file.
    #[error("the secret file {path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is too short to be safe.
    #[error(
        "the secret in {from} has {chars} characters, at least {SECRET_CHARS_MIN} are needed: copy the whole line from \
         the scheduler's ~/.config/starling/secret"
    )]
    TooShort {
        /// Where it was found.
        from: SecretSource,
        /// Its length.
        chars: usize,
    },
    /// The text begins like a made secret and is not a whole one.
    #[error(
        "the secret in {from} is cut short or mistyped: copy the whole line from the scheduler's ~/.config/starling/secret"
    )]
    Damaged {
        /// Where it was found.
        from: SecretSource,
    },
    /// The text has more than one line or is not text.
    #[error(
        "the secret in {from} is not one line of text: copy the file from the scheduler's ~/.config/starling/secret"
    )]
    NotText {
        /// Where it was found.
        from: SecretSource,
    },
    /// There is none in any of the places.
    #[error(
        "no cluster secret was found (looked at --secret-file, {SECRET_ENV}, the configuration and {}): copy it from the \
         scheduler's machine with `mkdir -p ~/.config/starling && scp user@scheduler:~/.config/starling/secret \
         ~/.config/starling/secret`, or run every node with --insecure",
        .path.as_ref().map_or("no default place, as HOME is not set".to_owned(), |path| path.display().to_string())
    )]
    Missing {
        /// The default place.
        path: Option<PathBuf>,
    },
    /// Neither `XDG_CONFIG_HOME` nor `HOME` is set, so there is no default place.
    #[error("there is no default place for the secret as HOME is not set: give --secret-file PATH")]
    NoHome,
}

/// Where a secret was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The file that `--secret-file` names.
    File(PathBuf),
    /// The environment variable [`SECRET_ENV`].
    Environment,
    /// The configuration.
    Configuration,
    /// The file in the default place.
    Default(PathBuf),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) | SecretSource::Default(path) => write!(f, "{}", path.display()),
            SecretSource::Environment => f.write_str(SECRET_ENV),
            SecretSource::Configuration => f.write_str("the configuration"),
        }
    }
}

impl ClusterSecret {
    /// A new one, of 256 random bits.
    pub fn generate() -> ClusterSecret {
        let bits: [u8; 32] = rand::random();
        let digits = bits.iter().map(|byte| format!("{byte:02x}"));
        ClusterSecret { text: digits.fold(PREFIX.to_owned(), |text, digits| text + &digits) }
    }

    /// The secret that a line of text is; surrounding white space does not count. `from` is for the error.
    pub fn from_text(text: &str, from: SecretSource) -> Result<ClusterSecret, SecretError> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err(SecretError::NotText { from });
        }
        if let Some(digits) = text.strip_prefix(PREFIX)
            && (digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(SecretError::Damaged { from });
        }
        let chars = text.chars().count();
        if chars < SECRET_CHARS_MIN {
            return Err(SecretError::TooShort { from, chars });
        }
        Ok(ClusterSecret { text: text.to_owned() })
    }

    /// The one line that another machine needs. Show it only to whoever may join.
    pub fn to_text(&self) -> &str {
        &self.text
    }

    /// What keys are derived from.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The secret in a file, which nobody but its owner may be able to read.
    pub fn read(path: &Path) -> Result<ClusterSecret, SecretError> {
        ClusterSecret::read_as(path, SecretSource::File(path.to_owned()))
    }

    fn read_as(path: &Path, from: SecretSource) -> Result<ClusterSecret, SecretError> {
        let failed = |source| SecretError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        check_mode(path, &file.metadata().map_err(failed)?)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        match String::from_utf8(bytes) {
            Ok(text) if text.len() as u64 <= FILE_BYTES_MAX => ClusterSecret::from_text(&text, from),
            _ => Err(SecretError::NotText { from }),
        }
    }

    /// The first secret of: the file that was named, `STARLING_SECRET`, the configuration's value, the default place.
    ///
    /// One that is there and cannot be used is an error, never passed over for the next.
    pub fn find(
        explicit_file: Option<&Path>,
        config_value: Option<&str>,
    ) -> Result<(ClusterSecret, SecretSource), SecretError> {
        let environment = env::var(SECRET_ENV).ok().filter(|text| !text.is_empty());
        find_in(explicit_file, environment.as_deref(), config_value, default_path().as_deref())
    }

    /// Makes a secret in the default place, or returns the one that is there, and whether it was made now.
    pub fn create_default() -> Result<(ClusterSecret, PathBuf, bool), SecretError> {
        let path = default_path().ok_or(SecretError::NoHome)?;
        let (secret, made) = ClusterSecret::create(&path)?;
        Ok((secret, path, made))
    }

    /// Makes a secret file with mode 0600, or returns the secret that is there already; the flag says whether it was made
    /// now. Of several processes that do this at once, all get the same secret; none ever sees half of one.
    pub fn create(path: &Path) -> Result<(ClusterSecret, bool), SecretError> {
        let failed = |source| SecretError::Io { path: path.to_owned(), source };
        let existing = || ClusterSecret::read_as(path, SecretSource::Default(path.to_owned()));
        if path.try_exists().map_err(failed)? {
            return Ok((existing()?, false));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_folder(folder).map_err(failed)?;
        let secret = ClusterSecret::generate();
        // Written whole under a name of its own, then linked: linking fails where there is a file, and replaces none.
        let draft = folder.join(format!(".secret-{:016x}", rand::random::<u64>()));
        let linked = write_private(&draft, secret.to_text()).and_then(|()| fs::hard_link(&draft, path));
        drop(fs::remove_file(&draft));
        match linked {
            Ok(()) => Ok((secret, true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((existing()?, false)),
            Err(error) => Err(failed(error)),
        }
    }
}

/// `$XDG_CONFIG_HOME/starling/secret`, or `~/.config/starling/secret`; none without a home.
pub fn default_path() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(config.join("starling").join("secret"))
}

fn find_in(
    explicit_file: Option<&Path>,
    environment: Option<&str>,
    config_value: Option<&str>,
    default: Option<&Path>,
) -> Result<(ClusterSecret, SecretSource), SecretError> {
    let (secret, from) = if let Some(path) = explicit_file {
        let from = SecretSource::File(path.to_owned());
        (ClusterSecret::read_as(path, from.clone()), from)
    } else if let Some(text) = environment {
        (ClusterSecret::from_text(text, SecretSource::Environment), SecretSource::Environment)
    } else if let Some(text) = config_value {
        (ClusterSecret::from_text(text, SecretSource::Configuration), SecretSource::Configuration)
    } else {
        let missing = || SecretError::Missing { path: default.map(Path::to_owned) };
        let path = default.ok_or_else(missing)?;
        let from = SecretSource::Default(path.to_owned());
        match ClusterSecret::read_as(path, from.clone()) {
            Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(missing()),
            found => (found, from),
        }
    };
    Ok((secret?, from))
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata) -> Result<(), SecretError> {
    Ok(())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
