//! A small server that behaves like the Hugging Face Hub, and misbehaves on demand.
//!
//! It has two listeners. The endpoint serves the API and `resolve`: small files through a relative redirect (307) to
//! `/api/resolve-cache/…`, large ones through a redirect (302) to the storage, which is the other listener under
//! another host name (`localhost` rather than `127.0.0.1`). Both keep connections open, serve ranges, and record every
//! request; both support TLS, with a certificate from the tests' own authority.

use ring::digest;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Files of at least this size count as large; weights always do.
const LARGE: usize = 1 << 20;

/// A fault in one response.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection is closed after this many bytes of the body.
    Cut(usize),
    /// The connection stalls for this long after this many bytes of the body, then closes.
    Stall(usize, Duration),
    /// Nothing is sent for this long, then the connection closes.
    Silent(Duration),
    /// A body of the right size with a wrong byte.
    WrongByte,
    /// A valid response whose body is only this many bytes of the file.
    Short(usize),
    /// The whole file is sent, ignoring the requested range.
    NoRanges,
    /// The body is sent in pieces of this many bytes, with a pause after each.
    Slow(usize, Duration),
    /// An error status, with the Hub's `X-Error-Code` unless it is empty.
    Status(u16, &'static str),
    /// An error status with this header.
    Refuse(u16, &'static str, String),
    /// A redirect to the same target below this address.
    Moved(String),
    /// A redirect to exactly this address.
    Loop,
    /// An HTML page with status 200, like a captive portal's.
    Portal,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) storage: bool,
    pub(crate) method: String,
    pub(crate) target: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

#[derive(Clone, Debug)]
struct Repo {
    /// Names of branches, tags and pull requests, and their commits.
    revisions: BTreeMap<String, String>,
    commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

struct Rule {
    part_of_target: String,
    storage: Option<bool>,
    left: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    repos: BTreeMap<String, Repo>,
    rules: Vec<Rule>,
    requests: Vec<Request>,
    /// Repositories are hidden without this token.
    token: Option<String>,
    /// Repositories are visible without a token, but a wrong one is still refused, as on the Hub.
    is_public: bool,
    /// The listing only has names, as on some mirrors.
    bare_listing: bool,
    /// Etags that replace the real ones, by file name.
    etags: BTreeMap<String, String>,
    /// Sizes that replace the real ones in listings, by file name.
    sizes: BTreeMap<String, u64>,
    /// Additional names in every listing.
    extra_names: Vec<String>,
    storage: String,
}

/// A connection with or without TLS.
pub(crate) trait Stream: Read + Write + Send {
    fn set_read_timeout(&self, limit: Duration);
}

impl Stream for TcpStream {
    fn set_read_timeout(&self, limit: Duration) {
        TcpStream::set_read_timeout(self, Some(limit)).unwrap();
    }
}

impl Stream for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn set_read_timeout(&self, limit: Duration) {
        TcpStream::set_read_timeout(&self.sock, Some(limit)).unwrap();
    }
}

/// The server's side of TLS, with the certificate in `fixtures/hub`.
pub(crate) fn accept_tls(stream: TcpStream) -> Box<dyn Stream> {
    use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
    static CONFIG: OnceLock<Arc<rustls::ServerConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let certificate = CertificateDer::from_pem_slice(include_bytes!("../fixtures/hub/server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../fixtures/hub/server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
    });
    Box::new(rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), stream))
}

/// The running server. Its threads exit with the test's process.
#[derive(Clone)]
pub(crate) struct HubServer {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
}

impl HubServer {
    pub(crate) fn start() -> HubServer {
        HubServer::start_by("http")
    }

    pub(crate) fn start_tls() -> HubServer {
        HubServer::start_by("https")
    }

    fn start_by(scheme: &'static str) -> HubServer {
        let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
        let storage = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = endpoint.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            storage: format!("{scheme}://localhost:{}", storage.local_addr().unwrap().port()),
            ..State::default()
        }));
        for (listener, is_storage) in [(endpoint, false), (storage, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || {
                        let stream: Box<dyn Stream> =
                            if scheme == "https" { accept_tls(stream) } else { Box::new(stream) };
                        serve(stream, &state, is_storage)
                    });
                }
            });
        }
        HubServer { address, scheme, state }
    }

    /// The value for `HF_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Adds a commit with these files to a repository, points `revision` to it, and returns its hash.
    pub(crate) fn commit(&self, id: &str, revision: &str, files: &[(&str, &[u8])]) -> String {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, content)| (name.to_string(), content.to_vec())).collect();
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(id.as_bytes());
        for (name, content) in &files {
            hash.update(name.as_bytes());
            hash.update(content);
        }
        let commit = hex(hash.finish().as_ref());
        let mut state = self.state.lock().unwrap();
        let repo = state
            .repos
            .entry(id.to_string())
            .or_insert_with(|| Repo { revisions: BTreeMap::new(), commits: BTreeMap::new() });
        repo.revisions.insert(revision.to_string(), commit.clone());
        repo.commits.insert(commit.clone(), files);
        commit
    }

    /// The next `times` responses to requests whose target contains `part_of_target` fail, both from the endpoint and
    /// the storage.
    pub(crate) fn fault(&self, part_of_target: &str, times: usize, fault: Fault) {
        self.rule(part_of_target, None, times, fault);
    }

    /// The storage's next `times` responses fail.
    pub(crate) fn storage_fault(&self, times: usize, fault: Fault) {
        self.rule("", Some(true), times, fault);
    }

    fn rule(&self, part_of_target: &str, storage: Option<bool>, left: usize, fault: Fault) {
        let rule = Rule { part_of_target: part_of_target.to_string(), storage, left, fault };
        self.state.lock().unwrap().rules.push(rule);
    }

    /// Hides every repository from requests without this token.
    pub(crate) fn require_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_string());
    }

    /// Refuses every other token; without a token everything is readable.
    pub(crate) fn refuse_other_tokens(&self, token: &str) {
        self.require_token(token);
        self.state.lock().unwrap().is_public = true;
    }

    /// Reduces listings to file names.
    pub(crate) fn list_names_only(&self) {
        self.state.lock().unwrap().bare_listing = true;
    }

    /// Replaces the etag of every file called `name`.
    pub(crate) fn set_etag(&self, name: &str, etag: &str) {
        self.state.lock().unwrap().etags.insert(name.to_string(), etag.to_string());
    }

    /// Replaces the listed size of every file called `name`.
    pub(crate) fn set_size(&self, name: &str, size: u64) {
        self.state.lock().unwrap().sizes.insert(name.to_string(), size);
    }

    /// Adds this file to listings.
    pub(crate) fn list_also(&self, name: &str) {
        self.state.lock().unwrap().extra_names.push(name.to_string());
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn forget_requests(&self) {
        self.state.lock().unwrap().requests.clear();
    }
}

/// Responds to the requests of one connection.
fn serve(stream: Box<dyn Stream>, state: &Mutex<State>, storage: bool) {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut reader, storage) {
        let stream = reader.get_mut();
        let (answer, fault) = {
            let mut state = state.lock().unwrap();
            state.requests.push(request.clone());
            let fault = state.fault_for(&request);
            if matches!(fault, Some(Fault::NoRanges)) {
                request.headers.remove("range");
            }
            (state.answer(&request), fault)
        };
        let answer = match fault {
            Some(fault) => match misbehave(stream, &request, answer, fault) {
                Some(answer) => answer,
                None => return,
            },
            None => answer,
        };
        if send(stream, &request, &answer).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<Box<dyn Stream>>, storage: bool) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_string()),
            None => break,
        };
    }
    if let Some(length) = headers.get("content-length").and_then(|length| length.parse().ok()) {
        reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    }
    Some(Request { storage, method, target, headers })
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_string(), value.into()));
        self
    }

    fn error(status: u16, code: &str) -> Answer {
        match code {
            "" => Answer::new(status, ""),
            code => Answer::new(status, "").with("X-Error-Code", code).with("X-Error-Message", format!("({code})")),
        }
    }
}

impl State {
    fn fault_for(&mut self, request: &Request) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| {
            rule.left > 0
                && request.target.contains(&rule.part_of_target)
                && rule.storage.is_none_or(|storage| storage == request.storage)
        })?;
        rule.left = rule.left.saturating_sub(usize::from(rule.left != usize::MAX));
        Some(rule.fault.clone())
    }

    fn answer(&self, request: &Request) -> Answer {
        if request.storage {
            return self.answer_from_storage(request);
        }
        if let Some(token) = &self.token {
            match request.header("Authorization") {
                Some(header) if header == format!("Bearer {token}") => {}
                None if self.is_public => {}
                Some(_) => {
                    return Answer::new(401, "").with("X-Error-Message", "Invalid credentials in Authorization header");
                }
                None => return Answer::error(401, "RepoNotFound"),
            }
        }
        let path = unescape(request.path());
        let path = path.trim_start_matches('/');
        if let Some(rest) = path.strip_prefix("api/resolve-cache/models/") {
            return self.answer_small_file(request, rest);
        }
        if let Some(rest) = path.strip_prefix("api/models/") {
            if let Some((id, revision)) = rest.split_once("/revision/") {
                return self.listing(id, revision);
            }
            if let Some((id, revision)) = rest.split_once("/tree/") {
                return self.tree(id, revision);
            }
            return self.listing(rest, "main");
        }
        match path.split_once("/resolve/") {
            Some((id, rest)) => self.resolve(id, rest),
            None => Answer::error(404, ""),
        }
    }

    /// The repository's commit for a revision.
    fn find(&self, id: &str, revision: &str) -> Result<(&str, &BTreeMap<String, Vec<u8>>), Answer> {
        // The real Hub responds with 401 without a token, whether the repository is hidden or missing.
        let repo = self.repos.get(id).ok_or_else(|| match self.token {
            Some(_) => Answer::error(404, "RepoNotFound"),
            None => Answer::error(401, "RepoNotFound"),
        })?;
        let short = |commit: &&String| revision.len() >= 7 && commit.starts_with(revision);
        let commit = repo.revisions.get(revision).or_else(|| repo.commits.keys().find(short));
        let commit = commit.ok_or_else(|| Answer::error(404, "RevisionNotFound"))?;
        Ok((commit, &repo.commits[commit]))
    }

    fn listing(&self, id: &str, revision: &str) -> Answer {
        let (commit, files) = match self.find(id, revision) {
            Ok(found) => found,
            Err(answer) => return answer,
        };
        let mut siblings: Vec<serde_json::Value> = files
            .iter()
            .map(|(name, content)| {
                let mut sibling = serde_json::json!({ "rfilename": name });
                if !self.bare_listing {
                    let size = self.sizes.get(name).copied().unwrap_or(content.len() as u64);
                    sibling["size"] = size.into();
                    sibling["blobId"] = git_blob(content).into();
                    if is_large(name, content) {
                        sibling["lfs"] = serde_json::json!(
                            {"sha256": sha256(content), "size": content.len(), "pointerSize": 134});
                    }
                }
                sibling
            })
            .collect();
        siblings.extend(self.extra_names.iter().map(|name| serde_json::json!({ "rfilename": name })));
        let body = serde_json::json!({
            "_id": "0", "id": id, "modelId": id, "sha": commit, "private": false, "gated": false, "disabled": false,
            "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
        });
        Answer::new(200, body.to_string()).with("Content-Type", "application/json")
    }

    fn tree(&self, id: &str, revision: &str) -> Answer {
        let (commit, files) = match self.find(id, revision.trim_end_matches('/')) {
            Ok(found) => found,
            Err(answer) => return answer,
        };
        let entries: Vec<serde_json::Value> = files
            .iter()
            .map(|(name, content)| {
                let mut entry = serde_json::json!(
                    {"type": "file", "path": name, "size": content.len(), "oid": git_blob(content)});
                if is_large(name, content) {
                    entry["lfs"] = serde_json::json!(
                        {"oid": sha256(content), "size": content.len(), "pointerSize": 134});
                }
                entry
            })
            .collect();
        Answer::new(200, serde_json::Value::from(entries).to_string())
            .with("Content-Type", "application/json")
            .with("X-Repo-Commit", commit)
    }

    fn resolve(&self, id: &str, rest: &str) -> Answer {
        let Some((commit, name, content)) = self.find_file(id, rest) else {
            return match self.find(id, rest.split('/').next().unwrap_or_default()) {
                Ok((commit, _)) => Answer::error(404, "EntryNotFound").with("X-Repo-Commit", commit),
                Err(answer) => answer,
            };
        };
        let etag = self.etag(name, content);
        if is_large(name, content) {
            Answer::new(302, "Found. Redirecting to the storage")
                .with("Location", format!("{}/{}?signature=abc", self.storage, sha256(content)))
                .with("X-Repo-Commit", commit)
                .with("X-Linked-Size", content.len().to_string())
                .with("X-Linked-ETag", etag)
        } else {
            Answer::new(307, "Temporary Redirect. Redirecting to the cache")
                .with("Location", format!("/api/resolve-cache/models/{id}/{commit}/{name}?etag=x"))
                .with("X-Repo-Commit", commit)
                .with("X-Linked-Size", content.len().to_string())
                .with("X-Linked-ETag", etag)
        }
    }

    fn answer_small_file(&self, request: &Request, rest: &str) -> Answer {
        let mut parts = rest.splitn(3, '/');
        let id = [parts.next().unwrap_or_default(), parts.next().unwrap_or_default()].join("/");
        match self.find_file(&id, parts.next().unwrap_or_default()) {
            Some((commit, name, content)) => {
                ranged(request, content).with("X-Repo-Commit", commit).with("ETag", self.etag(name, content))
            }
            None => Answer::error(404, "EntryNotFound"),
        }
    }

    fn answer_from_storage(&self, request: &Request) -> Answer {
        if request.header("Authorization").is_some() {
            // Like S3 for a signed URL.
            return Answer::new(400, "Only one auth mechanism allowed");
        }
        let wanted = request.path().trim_start_matches('/');
        let mut contents = self.repos.values().flat_map(|repo| repo.commits.values()).flat_map(BTreeMap::values);
        match contents.find(|content| sha256(content) == wanted) {
            Some(content) => ranged(request, content).with("ETag", "\"of-the-storage\""),
            None => Answer::new(404, ""),
        }
    }

    fn find_file(&self, id: &str, rest: &str) -> Option<(&str, &str, &[u8])> {
        let repo = self.repos.get(id)?;
        // Revisions may contain slashes, which are escaped, so both interpretations are tried.
        let revisions = repo.revisions.keys().chain(repo.commits.keys());
        let (revision, name) = revisions
            .filter_map(|revision| Some((revision, rest.strip_prefix(revision)?.strip_prefix('/')?)))
            .next()?;
        let (commit, files) = self.find(id, revision).ok()?;
        let (name, content) = files.get_key_value(name)?;
        Some((commit, name, content))
    }

    fn etag(&self, name: &str, content: &[u8]) -> String {
        match self.etags.get(name) {
            Some(etag) => etag.clone(),
            None if is_large(name, content) => format!("\"{}\"", sha256(content)),
            None => format!("\"{}\"", git_blob(content)),
        }
    }
}

/// The file, or the requested part of it.
fn ranged(request: &Request, content: &[u8]) -> Answer {
    let total = content.len();
    let Some(range) = request.header("Range").and_then(|range| range.strip_prefix("bytes=")) else {
        return Answer::new(200, content).with("Accept-Ranges", "bytes");
    };
    let (first, last) = range.split_once('-').unwrap_or((range, ""));
    let first: usize = first.parse().unwrap_or(0);
    let last = last.parse().unwrap_or(usize::MAX).min(total.saturating_sub(1));
    if first >= total || first > last {
        return Answer::new(416, "").with("Content-Range", format!("bytes */{total}"));
    }
    Answer::new(206, &content[first..=last]).with("Content-Range", format!("bytes {first}-{last}/{total}"))
}

/// Applies a fault. `None` if the connection should be closed, otherwise what to send.
fn misbehave(stream: &mut Box<dyn Stream>, request: &Request, mut answer: Answer, fault: Fault) -> Option<Answer> {
    match fault {
        Fault::Cut(bytes) | Fault::Stall(bytes, _) => {
            let head = head(&answer);
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&answer.body[..bytes.min(answer.body.len())]);
            let _ = stream.flush();
            if let Fault::Stall(_, pause) = fault {
                std::thread::sleep(pause);
            }
            None
        }
        Fault::Silent(pause) => {
            std::thread::sleep(pause);
            None
        }
        Fault::WrongByte => {
            if let Some(byte) = answer.body.last_mut() {
                *byte ^= 1;
            }
            Some(answer)
        }
        Fault::Short(bytes) => {
            answer.body.truncate(bytes);
            Some(answer)
        }
        Fault::NoRanges => Some(answer),
        Fault::Slow(piece, pause) => {
            let _ = stream.write_all(head(&answer).as_bytes());
            for piece in answer.body.chunks(piece) {
                stream.write_all(piece).and_then(|()| stream.flush()).ok()?;
                std::thread::sleep(pause);
            }
            None
        }
        Fault::Status(status, code) => Some(Answer::error(status, code)),
        Fault::Refuse(status, name, value) => Some(Answer::error(status, "").with(name, value)),
        Fault::Moved(address) => Some(Answer::new(308, "").with("Location", format!("{address}{}", request.target))),
        Fault::Loop => Some(Answer::new(307, "").with("Location", request.target.clone())),
        Fault::Portal => Some(
            Answer::new(200, "<html>Please accept the terms of this Wi-Fi</html>").with("Content-Type", "text/html"),
        ),
    }
}

fn send(stream: &mut Box<dyn Stream>, request: &Request, answer: &Answer) -> std::io::Result<()> {
    stream.write_all(head(answer).as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&answer.body)?;
    }
    stream.flush()
}

fn head(answer: &Answer) -> String {
    let mut head = format!("HTTP/1.1 {} Status\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

fn is_large(name: &str, content: &[u8]) -> bool {
    content.len() >= LARGE || name.ends_with(".safetensors") || name.ends_with(".bin")
}

pub(crate) fn sha256(content: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, content).as_ref())
}

/// git's name for a content.
pub(crate) fn git_blob(content: &[u8]) -> String {
    let framed = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &framed).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unescape(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// For `tests/hub_python_client.py`: prints its address and serves the embedded model until standard input closes.
#[test]
#[ignore = "a server for other programs, not a test"]
fn serves_until_standard_input_ends() {
    let server = HubServer::start();
    for revision in ["main", "refs/pr/1"] {
        server.commit("org/small", revision, &crate::hub_program::embedded_model());
    }
    // More files than a checkpoint needs, and more than Python requests.
    let wide = [&crate::hub_program::embedded_model()[..], &[("vocab.txt", b"[PAD]\n")]].concat();
    server.commit("org/small", "wide", &wide);
    writeln!(std::io::stdout(), "\nendpoint {}", server.endpoint()).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
