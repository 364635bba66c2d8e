//! An HTTP server on loopback that gives files, and on demand speaks as much of S3's protocol as reading and writing tables
//! takes: signed requests, path style, ranges, listings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The key whose requests the S3 server takes.
pub(super) const KEY: &str = "starling-test";

/// A running server. It ends with the process.
pub(super) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By their paths from the root, such as `/bucket/a.csv`.
    objects: BTreeMap<String, Object>,
    log: Vec<String>,
}

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    /// Seconds of the time that every object has, so that one that is replaced by another can have its time.
    time: u8,
    version: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    S3,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Response {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Server {
    pub(super) fn http() -> Server {
        Server::start(Kind::Http)
    }

    pub(super) fn s3() -> Server {
        Server::start(Kind::S3)
    }

    fn start(kind: Kind) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve(stream, kind, &state));
                }
            }
        });
        Server { url, state }
    }

    pub(super) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        put(&mut self.state.lock().unwrap(), path, bytes.into(), 10);
    }

    /// As [`put`](Server::put), with another time.
    pub(super) fn put_later(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        put(&mut self.state.lock().unwrap(), path, bytes.into(), 11);
    }

    pub(super) fn remove(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path).unwrap();
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// What was asked for: method, path and range.
    pub(super) fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }
}

fn put(state: &mut State, path: &str, bytes: Vec<u8>, time: u8) {
    let version = state.objects.get(path).map_or(0, |object| object.version + 1);
    state.objects.insert(path.to_owned(), Object { bytes, time, version });
}

fn serve(stream: TcpStream, kind: Kind, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader) {
        let response = answer(&request, kind, &mut state.lock().unwrap());
        let mut head = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", response.status, response.body.len());
        for (name, value) in &response.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head += "\r\n";
        let body = if request.method == "HEAD" { &[][..] } else { &response.body };
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body)).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|nread| *nread > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let url = url::Url::parse(&format!("http://server{target}")).ok()?;
    let path = object_store::path::Path::from_url_path(url.path()).ok()?;
    let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    Some(Request { method, path: format!("/{path}"), query, headers, body })
}

fn response(status: &'static str, body: impl Into<Vec<u8>>) -> Response {
    Response { status, headers: Vec::new(), body: body.into() }
}

fn answer(request: &Request, kind: Kind, state: &mut State) -> Response {
    let range = request.headers.get("range").map_or("", String::as_str);
    state.log.push(format!("{} {} {range}", request.method, request.path).trim_end().to_owned());
    if kind == Kind::S3 {
        let signed = format!("AWS4-HMAC-SHA256 Credential={KEY}/");
        if !request.headers.get("authorization").is_some_and(|header| header.starts_with(&signed)) {
            return response("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>");
        }
        if request.query.contains_key("list-type") {
            return list(request, state);
        }
    }
    match request.method.as_str() {
        "GET" | "HEAD" => get(request, state),
        "PUT" if kind == Kind::S3 => {
            put(state, &request.path, request.body.clone(), 10);
            Response { headers: vec![("etag", "\"written\"".into())], ..response("200 OK", "") }
        }
        _ => response("405 Method Not Allowed", ""),
    }
}

fn get(request: &Request, state: &State) -> Response {
    let Some(object) = state.objects.get(&request.path) else { return response("404 Not Found", "") };
    let size = object.bytes.len();
    let mut headers = vec![
        ("last-modified", format!("Wed, 21 Oct 2015 07:28:{} GMT", object.time)),
        ("etag", format!("\"{}\"", object.version)),
        ("accept-ranges", "bytes".to_owned()),
    ];
    let Some(range) = request.headers.get("range") else {
        return Response { headers, ..response("200 OK", object.bytes.clone()) };
    };
    let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (start, end) = match (start.parse::<usize>(), end.parse::<usize>()) {
        (Ok(start), Ok(end)) => (start, (end + 1).min(size)),
        (Ok(start), Err(_)) => (start, size),
        (Err(_), Ok(last)) => (size.saturating_sub(last), size),
        _ => return response("400 Bad Request", ""),
    };
    if start >= end {
        return response("416 Range Not Satisfiable", "");
    }
    headers.push(("content-range", format!("bytes {start}-{}/{size}", end - 1)));
    Response { headers, ..response("206 Partial Content", &object.bytes[start..end]) }
}

/// `ListObjectsV2`, two objects a page, so that pages are followed.
fn list(request: &Request, state: &State) -> Response {
    const PAGE: usize = 2;
    let of = |name: &str| request.query.get(name).cloned().unwrap_or_default();
    let root = format!("{}/", request.path);
    let after = of("continuation-token");
    let matching = state.objects.iter().filter_map(|(path, object)| {
        let key = path.strip_prefix(&root)?;
        (key.starts_with(&of("prefix")) && key > after.as_str()).then_some((key, object))
    });
    let matching: Vec<_> = matching.collect();
    let page = &matching[..matching.len().min(PAGE)];
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
    let _ = write!(body, "<IsTruncated>{}</IsTruncated>", matching.len() > PAGE);
    if let Some((last, _)) = page.last().filter(|_| matching.len() > PAGE) {
        let _ = write!(body, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    for (key, object) in page {
        let _ = write!(
            body,
            "<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:{}.000Z</LastModified>\
             <ETag>\"{}\"</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            object.time,
            object.version,
            object.bytes.len()
        );
    }
    body += "</ListBucketResult>";
    Response { headers: vec![("content-type", "application/xml".into())], ..response("200 OK", body) }
}
