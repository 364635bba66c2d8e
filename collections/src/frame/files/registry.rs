//! The stores of files that a node can read, each made when a URL first names it.
//!
//! What a store needs besides its URL comes from the node's own environment, under the names that the tools of each service
//! use. So no secret is in a plan, and none crosses the mesh.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use hdfs_native_object_store::HdfsObjectStoreBuilder;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::SpawnedReqwestConnector;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::{Builder, Handle, Runtime};
use url::{Position, Url};

use super::error::StoreError;
use super::explained::Explained;
use super::local::LocalStore;

/// The threads that all remote stores of a process share for their connections. A query's own runtime ends with the query,
/// and connections that it had opened would break for the next.
static REMOTE: Mutex<Option<Runtime>> = Mutex::new(None);
const REMOTE_THREADS: usize = 2;

/// A server that does not answer is asked so often, the last time after about ten seconds.
const RETRIES_MAX: usize = 7;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// The stores of a worker node, or of a session that reads its own disk: for one `RuntimeEnv`, which all of its queries
/// share.
///
/// - `file://` and paths: the node's disk.
/// - `http://`, `https://`: servers that can give ranges. Directories can be listed only where the server speaks WebDAV.
///   What follows a `?` in a URL is not sent, so that signed URLs cannot be read.
/// - `s3://BUCKET`, `s3a://BUCKET`: Amazon's S3, or with `AWS_ENDPOINT_URL` any service with its protocol; `AWS_REGION`,
///   `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_ALLOW_HTTP=true` for one without TLS,
///   `AWS_SKIP_SIGNATURE=true` for a public bucket. Without keys the machine's own role is asked for. Profiles in files are
///   not read.
/// - `hdfs://NAMENODE:PORT`; a name service needs `HADOOP_CONF_DIR`.
///
/// A store that was registered under a URL goes before these.
pub fn registry() -> Arc<dyn ObjectStoreRegistry> {
    Arc::new(Stores::new(Arc::new(LocalStore::new()), environment()))
}

/// What `RuntimeEnv`s with these stores are built from. Lists of files are not kept beyond a query: a file that comes or
/// changes is seen by the next one.
pub fn runtime_env(registry: Arc<dyn ObjectStoreRegistry>) -> RuntimeEnvBuilder {
    RuntimeEnvBuilder::new().with_object_store_registry(registry).with_object_list_cache_limit(0)
}

/// What of the environment stores are made from.
pub(super) fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("AWS_")).collect()
}

/// Stores by scheme, host and port.
pub(super) struct Stores {
    local: Arc<dyn ObjectStore>,
    environment: Vec<(String, String)>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the environment, which holds secrets.
        f.debug_list().entries(self.lock().keys()).finish()
    }
}

impl Stores {
    pub(super) fn new(local: Arc<dyn ObjectStore>, environment: Vec<(String, String)>) -> Stores {
        Stores { local, environment, stores: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<dyn ObjectStore>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        match url.scheme() {
            "file" => Ok(Arc::clone(&self.local)),
            "http" | "https" => http(url),
            "s3" | "s3a" => s3(url, &self.environment),
            "hdfs" => hdfs(url),
            _ => Err(StoreError::UnknownScheme { url: without_secrets(url) }.into()),
        }
    }
}

/// What makes two URLs those of one store: all before the path, but not who asks.
fn key_of(url: &Url) -> String {
    format!("{}://{}", url.scheme(), &url[Position::BeforeHost..Position::AfterPort])
}

fn without_secrets(url: &Url) -> String {
    format!("{}{}", key_of(url), url.path())
}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.lock().insert(key_of(url), store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let key = key_of(url);
        let none = || DataFusionError::Execution(format!("no store is registered for {key}"));
        self.lock().remove(&key).ok_or_else(none)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let key = key_of(url);
        if let Some(store) = self.lock().get(&key) {
            return Ok(Arc::clone(store));
        }
        // Two threads may make one at a time; the first that is put here is the one that stays.
        let made = self.make(url)?;
        Ok(Arc::clone(self.lock().entry(key).or_insert(made)))
    }
}

/// The threads for remote stores, started when the first one is made.
fn remote() -> Result<Handle> {
    let mut remote = REMOTE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = remote.as_ref() {
        return Ok(runtime.handle().clone());
    }
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(REMOTE_THREADS).thread_name("remote-files").enable_all().build();
    let runtime = runtime.map_err(StoreError::Threads)?;
    Ok(remote.insert(runtime).handle().clone())
}

fn retries(max_retries: usize) -> RetryConfig {
    RetryConfig { max_retries, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn http(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    if !url.has_host() {
        return Err(StoreError::BadUrl { url: url.to_string(), problem: "write it as http://HOST/PATH" }.into());
    }
    let options = ClientOptions::new().with_allow_http(url.scheme() == "http");
    let store = HttpBuilder::new()
        .with_url(&url[..Position::BeforePath])
        .with_client_options(options)
        .with_http_connector(SpawnedReqwestConnector::new(remote()?))
        .with_retry(retries(RETRIES_MAX))
        .build()?;
    let host = key_of(url);
    Ok(Arc::new(Explained {
        store: Arc::new(store),
        name: "HTTP",
        remedy: format!("{host} must answer on every node, and give ranges of files").into(),
        list_remedy: format!(
            "{host} does not list files, as only servers with WebDAV do: name each file by its whole URL, and check that it is \
             there"
        )
        .into(),
    }))
}

fn s3(url: &Url, environment: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
    let Some(bucket) = url.host_str() else {
        return Err(StoreError::BadUrl { url: url.to_string(), problem: "write it as s3://BUCKET/PATH" }.into());
    };
    let value = |name: &str| environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let is_true = |name: &str| value(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    let problem = |problem: String| StoreError::Environment { store: format!("s3://{bucket}"), problem };
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .into_iter()
        .find_map(|name| Some((name, value(name)?)));
    if let Some((name, endpoint)) = endpoint {
        if endpoint.starts_with("http://") && !is_true("AWS_ALLOW_HTTP") {
            let text = format!("{name} is {endpoint}, which has no TLS: set AWS_ALLOW_HTTP=true if that is meant");
            return Err(problem(text).into());
        }
        if Url::parse(endpoint).ok().is_none_or(|url| !url.has_host()) {
            let text = format!("{name} is {endpoint:?}, which is no URL: set it to one such as https://HOST:PORT");
            return Err(problem(text).into());
        }
    }
    let (id, secret) = (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"));
    match (id, secret) {
        (Some(_), None) => {
            return Err(problem("AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not".into()).into());
        }
        (None, Some(_)) => {
            return Err(problem("AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not".into()).into());
        }
        _ => {}
    }
    const ROLES: [&str; 3] =
        ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let has_role = ROLES.into_iter().any(|name| value(name).is_some());
    let is_signed = id.is_some() || has_role || is_true("AWS_SKIP_SIGNATURE");

    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment {
        // Others are for other tools.
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    // Without keys the machine's role is asked for, which on most machines nobody answers: that is to be found out soon.
    let retries = retries(if is_signed { RETRIES_MAX } else { 2 });
    let store = builder
        .with_bucket_name(bucket)
        .with_http_connector(SpawnedReqwestConnector::new(remote()?))
        .with_retry(retries)
        .build()?;
    let said = |name: &str| if value(name).is_some() { format!("{name} is set") } else { format!("{name} is not set") };
    let endpoint = match endpoint {
        Some((name, endpoint)) => format!("{name} is {endpoint}"),
        None => "AWS_ENDPOINT_URL is not set, so that it is Amazon's".to_owned(),
    };
    let remedy: Arc<str> = format!(
        "s3://{bucket} is reached by each node's own environment; here {endpoint}, {}, {}{}",
        said("AWS_REGION"),
        said("AWS_ACCESS_KEY_ID"),
        if is_signed {
            ""
        } else {
            ": set it and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        }
    )
    .into();
    Ok(Arc::new(Explained { store: Arc::new(store), name: "S3", list_remedy: Arc::clone(&remedy), remedy }))
}

fn hdfs(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    if !url.has_host() {
        return Err(
            StoreError::BadUrl { url: url.to_string(), problem: "write it as hdfs://NAMENODE:PORT/PATH" }.into()
        );
    }
    let namenode = key_of(url);
    let remedy: Arc<str> = format!(
        "{namenode} and its data nodes must be reachable from every node; the name of a name service needs HADOOP_CONF_DIR, the \
         directory with its core-site.xml and hdfs-site.xml"
    )
    .into();
    let store = HdfsObjectStoreBuilder::new().with_url(&namenode).with_io_runtime(remote()?).build();
    let store = store.map_err(|source| StoreError::Store { source: Box::new(source), remedy: remedy.to_string() })?;
    Ok(Arc::new(Explained { store: Arc::new(store), name: "HDFS", list_remedy: Arc::clone(&remedy), remedy }))
}
