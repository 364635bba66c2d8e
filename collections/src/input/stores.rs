//! The stores behind URLs, each made when one first names it, from the node's own environment: no secret is in a plan.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::SpawnedReqwestConnector;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::{Builder, Handle, Runtime};

use super::error::ReadError;
use super::file::shown_url;

/// The threads that all stores of a process share for their connections.
static REMOTE: Mutex<Option<Runtime>> = Mutex::new(None);
const REMOTE_THREADS: usize = 2;

/// A server that does not answer is asked so often, the last time after about ten seconds.
const RETRIES_MAX: usize = 7;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Stores by scheme, host and port.
static STORES: Mutex<Option<HashMap<String, Store>>> = Mutex::new(None);

/// A store, and what to look at when it fails.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) store: Arc<dyn ObjectStore>,
    remedy: Arc<str>,
}

/// A place in a store.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) store: Store,
    pub(super) path: Path,
    /// Its URL, without what may be secret.
    pub(super) url: String,
}

impl Located {
    /// A failure of the store, with what to look at.
    pub(super) fn failed(&self, error: &object_store::Error) -> ReadError {
        let mut message = error.to_string();
        if message.len() > 500 {
            message.truncate(message.floor_char_boundary(500));
            message += "...";
        }
        ReadError::Store { url: self.url.clone(), message, remedy: self.store.remedy.to_string() }
    }
}

fn bad(url: &str, problem: impl Into<String>) -> ReadError {
    ReadError::BadUrl { url: shown_url(url), problem: problem.into() }
}

/// A URL's scheme, host and the path behind the host's slash, as they are written.
pub(super) fn parts(url: &str) -> Result<(&str, &str, &str), ReadError> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad(url, "it has no scheme"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(bad(url, "it names a user, who would be shown in errors; name the file without"));
    }
    if host.is_empty() || path.is_empty() {
        return Err(bad(url, format!("write it as {scheme}://HOST/PATH, or s3://BUCKET/PATH")));
    }
    Ok((scheme, host, path))
}

/// The store of a URL, and the place there.
pub(super) fn locate(url: &str) -> Result<Located, ReadError> {
    let (scheme, host, path) = parts(url)?;
    let location = match scheme {
        "s3" | "s3a" => Path::parse(path),
        "http" | "https" if path.contains(['?', '#']) => {
            return Err(bad(
                url,
                "what follows its ? or # would not be sent, so that signed URLs cannot be read; download the file",
            ));
        }
        "http" | "https" => Path::from_url_path(path),
        _ => return Err(bad(url, "only paths and URLs with http://, https://, s3:// and s3a:// are known")),
    };
    let location = location.map_err(|error| bad(url, error.to_string()))?;
    let key = format!("{scheme}://{host}");
    let known = |stores: &mut Option<HashMap<String, Store>>| stores.get_or_insert_default().get(&key).cloned();
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = match known(&mut stores) {
        Some(store) => store,
        None => {
            let made = if scheme.starts_with("http") { http(&key)? } else { s3(host, &environment())? };
            stores.get_or_insert_default().insert(key, made.clone());
            made
        }
    };
    Ok(Located { store, path: location, url: shown_url(url) })
}

/// What of the environment stores are made from.
fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("AWS_")).collect()
}

/// Gives a bucket the store that this environment makes.
#[cfg(test)]
pub(crate) fn set_environment(bucket: &str, environment: &[(&str, &str)]) {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let made = s3(bucket, &environment).unwrap();
    STORES.lock().unwrap().get_or_insert_default().insert(format!("s3://{bucket}"), made);
}

fn remote() -> Result<Handle, ReadError> {
    let mut remote = REMOTE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = remote.as_ref() {
        return Ok(runtime.handle().clone());
    }
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(REMOTE_THREADS).thread_name("bag-files").enable_all().build();
    let runtime = runtime.map_err(|source| ReadError::Write { path: "the threads for remote files".into(), source })?;
    Ok(remote.insert(runtime).handle().clone())
}

/// Waits for what a store does. The calling thread may be one of a runtime or not: the work is not done on it.
pub(super) fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, ReadError> {
    let (give, take) = std::sync::mpsc::sync_channel(1);
    remote()?.spawn(async move {
        // Nobody waits if the task was cancelled.
        let _ = give.send(work.await);
    });
    take.recv().map_err(|_| ReadError::Write {
        path: "the answer of a store".into(),
        source: std::io::Error::other("its thread has ended"),
    })
}

fn retries(max_retries: usize) -> RetryConfig {
    RetryConfig { max_retries, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn http(base: &str) -> Result<Store, ReadError> {
    let options = ClientOptions::new().with_allow_http(base.starts_with("http://"));
    let store = HttpBuilder::new()
        .with_url(base)
        .with_client_options(options)
        .with_http_connector(SpawnedReqwestConnector::new(remote()?))
        .with_retry(retries(RETRIES_MAX))
        .build()
        .map_err(|error| bad(base, error.to_string()))?;
    Ok(Store { store: Arc::new(store), remedy: format!("{base} must answer on every node").into() })
}

fn s3(bucket: &str, environment: &[(String, String)]) -> Result<Store, ReadError> {
    let value = |name: &str| environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let is_true = |name: &str| value(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    let problem = |text: String| bad(&format!("s3://{bucket}/"), text);
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .into_iter()
        .find_map(|name| Some((name, value(name)?)));
    if let Some((name, endpoint)) = endpoint
        && endpoint.starts_with("http://")
        && !is_true("AWS_ALLOW_HTTP")
    {
        return Err(problem(format!("{name} has no TLS: set AWS_ALLOW_HTTP=true if that is meant")));
    }
    let has = |name: &str| value(name).is_some();
    for (one, other) in [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    {
        if has(one) && !has(other) {
            return Err(problem(format!("{one} is set on this node, and {other} is not")));
        }
    }
    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment {
        // Others are for other tools.
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    // Without keys the machine's role is asked for, which on most machines nobody answers: that is to be found out soon.
    let is_signed = has("AWS_ACCESS_KEY_ID")
        || is_true("AWS_SKIP_SIGNATURE")
        || environment
            .iter()
            .any(|(name, _)| name.starts_with("AWS_CONTAINER_") || name.starts_with("AWS_WEB_IDENTITY_"));
    let store = builder
        .with_bucket_name(bucket)
        .with_http_connector(SpawnedReqwestConnector::new(remote()?))
        .with_retry(retries(if is_signed { RETRIES_MAX } else { 2 }))
        .build()
        .map_err(|error| problem(error.to_string()))?;
    let said = |name: &str| if has(name) { format!("{name} is set") } else { format!("{name} is not set") };
    let endpoint =
        endpoint.map_or("AWS_ENDPOINT_URL is not set, so that it is Amazon's".to_owned(), |(name, _)| said(name));
    let remedy = format!(
        "s3://{bucket} is reached by each node's own environment; here {endpoint}, {}, {}{}",
        said("AWS_REGION"),
        said("AWS_ACCESS_KEY_ID"),
        if is_signed {
            ""
        } else {
            ": set it and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        }
    );
    Ok(Store { store: Arc::new(store), remedy: remedy.into() })
}
