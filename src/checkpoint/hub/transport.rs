//! Requests to the Hub: proxies, time limits, redirects, and the token, which is sent to the Hub only.
//!
//! hf-hub provides the paths of the API and of files; this module makes the requests, with the same HTTP client.
//! hf-hub's own download is not used because of three problems that no wrapper can fix: it joins the server's etag to
//! the cache's path before a caller sees it, so a server could write anywhere; it sets no limit for a connection that
//! stalls; and it accepts content without checking its hash.

use super::error::{Failure, Refusal, User};
use super::names::printable;
use super::options::{HubOptions, Patience, Token};
use super::proxies::ProxyRules;
use super::retry::RetryPolicy;
use super::DownloadProgress;
use std::cell::{OnceCell, RefCell};
use std::io::{self, Read};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

/// Maximum number of redirects per request.
const MAX_REDIRECTS: usize = 10;
/// How messages refer to a proxy, whose URL may contain a password.
const PROXY: &str = "the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY";
/// Maximum size of a response that is not a file.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Waits of at least this length are reported to the user.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// The Hub's own hosts: an endpoint may redirect to them.
const HUB_HOSTS: [&str; 2] = ["huggingface.co", "hf.co"];

/// A connection to one Hub.
pub(super) struct Transport<'a> {
    endpoint: Uri,
    token: Option<&'a Token>,
    /// As whom the next request is made.
    user: RefCell<User>,
    proxies: &'a ProxyRules,
    pub(super) patience: &'a Patience,
    /// The longest wait that the server can request.
    longest_asked: Duration,
    /// Receives messages.
    pub(super) progress: &'a dyn DownloadProgress,
    /// Receives byte counts.
    pub(super) bar: &'a dyn DownloadProgress,
    /// An agent with its open connections for `http`, and one for `https`. Created on first use: creating one reads the
    /// system's certificates, which would delay a start from the cache.
    agents: [OnceCell<Agent>; 2],
}

/// A request, independent of who responds.
#[derive(Clone, Copy)]
struct Request<'r> {
    method: &'r str,
    url: &'r str,
    /// The first byte to request.
    from: u64,
    /// How long to wait for the next bytes.
    limit: Duration,
}

impl<'a> Transport<'a> {
    /// A connection to the endpoint of `options`. A server may request waits up to `longest_asked`.
    ///
    /// # Errors
    /// If the endpoint is not a URL, or the token has characters that are not allowed in headers.
    pub(super) fn new(
        options: &'a HubOptions,
        longest_asked: Duration,
        progress: &'a dyn DownloadProgress,
    ) -> anyhow::Result<Transport<'a>> {
        let endpoint = http_uri(options.endpoint.as_str())
            .ok_or_else(|| anyhow::anyhow!("HF_ENDPOINT is “{}”, which is not an http(s) URL", options.endpoint))?;
        if let Some(token) = options.token.as_ref().filter(|token| token.header().is_none()) {
            let source = token.file().map_or("HF_TOKEN".to_string(), |file| file.display().to_string());
            anyhow::bail!("the token contains invalid characters: check {source}");
        }
        let token = options.token.as_ref();
        let user = token.map_or(User::Nobody, |token| User::Token { file: token.file().map(Into::into) });
        Ok(Transport {
            endpoint,
            token,
            user: RefCell::new(user),
            proxies: &options.proxies,
            patience: &options.patience,
            longest_asked,
            progress,
            bar: if options.progress_bars { progress } else { &() },
            agents: [OnceCell::new(), OnceCell::new()],
        })
    }

    /// The body of a small response, retried if that may help.
    pub(super) fn document(&self, url: &str) -> Result<Vec<u8>, Failure> {
        self.retrying(|| {
            let response = self.follow(Request { method: "GET", url, from: 0, limit: self.patience.answer })?;
            let mut body = Vec::new();
            let mut reader = response.into_body().into_reader().take(MAX_DOCUMENT + 1);
            reader.read_to_end(&mut body).map_err(broken_body)?;
            if body.len() as u64 > MAX_DOCUMENT {
                return Err(Failure::senseless("the response is too long"));
            }
            Ok(body)
        })
    }

    /// The etag and the size of the file at `url`, without its content. A redirect to the storage is not followed: the
    /// Hub has already sent both, and signed URLs of a storage only respond to GET.
    pub(super) fn stated(&self, url: &str) -> Result<(Option<String>, Option<u64>), Failure> {
        self.retrying(|| {
            let response = self.follow(Request { method: "HEAD", url, from: 0, limit: self.patience.answer })?;
            let header = |name: &str| text(response.headers(), name);
            let own_size = || header("Content-Length").filter(|_| response.status().is_success());
            let size = header("X-Linked-Size").or_else(own_size).and_then(|size| size.trim().parse().ok());
            Ok((header("X-Linked-Etag").or_else(|| header("ETag")).map(str::to_string), size))
        })
    }

    /// Tries once to open the file at `url`, starting at byte `from`.
    pub(super) fn open(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        self.follow(Request { method: "GET", url, from, limit: self.patience.stall })
    }

    /// Repeats a request if the failure may be temporary. A connection that took long to fail is not retried: a dead
    /// network should cost seconds, not minutes.
    fn retrying<T>(&self, mut request: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let started = Instant::now();
        let mut failures = 0;
        loop {
            let failure = match request() {
                Err(failure) if failure.is_transient() => failure,
                outcome => return outcome,
            };
            failures += 1;
            let in_time = matches!(failure, Failure::Status(_)) || started.elapsed() < self.patience.connect;
            if !in_time || !self.pause(&self.patience.requests, failures, &failure) {
                return Err(failure);
            }
        }
    }

    /// Waits before the next try; returns false if there is none.
    pub(super) fn pause(&self, policy: &RetryPolicy, failures: u32, failure: &Failure) -> bool {
        let Some(wait) = policy.wait_after(failures, failure.retry_after(), self.longest_asked) else { return false };
        if wait >= LONG_WAIT {
            self.progress.message(&format!("{failure}: waiting {} s before the next try", wait.as_secs()));
        }
        std::thread::sleep(wait);
        true
    }

    /// The response after all redirects. If the Hub refuses a token from a file, asks again without it: the Hub refuses
    /// invalid tokens for public repositories too, and only Python's client refreshes what `hf auth login` has stored.
    fn follow(&self, request: Request) -> Result<Response<Body>, Failure> {
        let outcome = self.follow_as_user(request);
        let Err(Failure::Status(refusal)) = &outcome else { return outcome };
        match &**refusal {
            Refusal { code: 401, other_host: None, user: User::Token { file: Some(file) }, .. } => {
                self.progress.message(&format!(
                    "the Hub refused the token in {}: continuing without it (`hf auth login` creates a new one)",
                    file.display()
                ));
                self.user.replace(User::Stale { file: file.clone() });
                self.follow_as_user(request)
            }
            _ => outcome,
        }
    }

    fn follow_as_user(&self, request: Request) -> Result<Response<Body>, Failure> {
        let mut url = http_uri(request.url).ok_or_else(|| Failure::senseless("the file's address is malformed"))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, request)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let next = text(response.headers(), "Location").and_then(|location| joined(&url, location));
            let next = next.ok_or_else(|| Failure::senseless("the server redirects to an invalid address"))?;
            if request.method == "HEAD" && !self.is_of_hub(&next) {
                return Ok(response);
            }
            url = next;
        }
        Err(Failure::senseless("too many redirects"))
    }

    /// Whether `url` belongs to the endpoint, or to the Hub that it stands for.
    fn is_of_hub(&self, url: &Uri) -> bool {
        let origin = origin(url);
        let is_canonical = matches!(&origin, (true, host, 443) if HUB_HOSTS.contains(&host.as_str()));
        is_canonical || origin == self::origin(&self.endpoint)
    }

    fn send(&self, url: &Uri, asked: Request) -> Result<Response<Body>, Failure> {
        let agent = self.agent(is_https(url))?;
        let request = if asked.method == "HEAD" { agent.head(url) } else { agent.get(url) };
        let config = request.config().timeout_recv_response(Some(asked.limit)).timeout_per_read(Some(asked.limit));
        let mut request = config.build().header("Accept-Encoding", "identity");
        let (is_of_hub, user) = (self.is_of_hub(url), self.user.borrow());
        let authorization = self.token.and_then(Token::header);
        if let Some(header) = authorization.filter(|_| is_of_hub && matches!(*user, User::Token { .. })) {
            request = request.header("Authorization", header);
        }
        if asked.from > 0 {
            request = request.header("Range", format!("bytes={}-", asked.from));
        }
        let response = request.call().map_err(|error| self.failure(error, url))?;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        let header = |name: &str| text(response.headers(), name).map(str::to_string);
        Err(Failure::Status(Box::new(Refusal {
            code: response.status().as_u16(),
            other_host: (!is_of_hub).then(|| printable(url.host().unwrap_or_default())),
            user: user.clone(),
            error_code: header("X-Error-Code"),
            message: header("X-Error-Message"),
            retry_after: retry_after(header("RateLimit").as_deref(), header("Retry-After").as_deref()),
        })))
    }

    fn agent(&self, is_https: bool) -> Result<&Agent, Failure> {
        let proxy = self.proxies.proxy(is_https);
        let proxy = proxy.map_err(|()| Failure::senseless(format!("the URL of {PROXY} is malformed")))?;
        Ok(self.agents[usize::from(is_https)].get_or_init(|| agent(proxy, self.patience)))
    }

    /// The failure for an error of the HTTP client, with a message.
    fn failure(&self, error: ureq::Error, url: &Uri) -> Failure {
        use ureq::Error::*;
        let host = url.host().unwrap_or_default();
        let proxy = self.proxies.proxy(is_https(url)).ok().flatten().filter(|proxy| !proxy.is_no_proxy(url));
        let peer = if proxy.is_some() { PROXY } else { host };
        let detail = printable(error.to_string().trim_start_matches("io: "));
        // Errors of the system's resolver are worded by the standard library, except on Windows, where they have numbers:
        // WSAHOST_NOT_FOUND to WSANO_DATA.
        let is_of_resolver = match &error {
            Io(error) if cfg!(windows) => matches!(error.raw_os_error(), Some(11001..=11004)),
            _ => detail.starts_with("failed to lookup"),
        };
        let (reason, transient) = match error {
            _ if is_of_resolver => (format!("{peer} was not found ({detail})"), true),
            HostNotFound => (format!("{peer} was not found"), true),
            Timeout(_) => (format!("{peer} did not answer in time"), true),
            _ if detail.contains("certificate") => (
                format!(
                    "the certificate of {host} is not trusted ({detail}); if a proxy is in between, add its \
                     certificate to the system's store or name it in SSL_CERT_FILE"
                ),
                false,
            ),
            ConnectProxyFailed(_) if detail.contains("407") => (format!("{PROXY} rejected the credentials"), false),
            ConnectProxyFailed(_) => (format!("{PROXY} did not connect to {host} ({detail})"), !detail.contains(" 4")),
            ConnectionFailed | Io(_) => (format!("the connection to {peer} failed ({detail})"), true),
            Protocol(_) => (format!("{peer} does not respond like a web server ({detail})"), true),
            _ => (format!("the request to {peer} failed ({detail})"), false),
        };
        Failure::Connection { reason, transient }
    }
}

/// A client that returns every response as is: redirects and errors are handled here.
fn agent(proxy: Option<Proxy>, patience: &Patience) -> Agent {
    let system: Vec<_> = rustls_native_certs::load_native_certs().certs;
    let system = system.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(proxy)
        .user_agent(concat!("agnews/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots(system.collect())).build())
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_per_write(Some(patience.stall))
        .build()
        .into()
}

/// Whom to trust: bare containers have no certificate store, so the list of Mozilla's browsers is compiled in.
fn roots(system: Vec<Certificate<'static>>) -> RootCerts {
    if system.is_empty() {
        RootCerts::WebPki
    } else {
        system.into_iter().into()
    }
}

fn is_https(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Scheme (whether it is `https`), host and port.
fn origin(url: &Uri) -> (bool, String, u16) {
    let port = url.port_u16().unwrap_or(if is_https(url) { 443 } else { 80 });
    (is_https(url), url.host().unwrap_or_default().to_ascii_lowercase(), port)
}

fn http_uri(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    (matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty()))
        .then_some(url)
}

/// The target of a `Location` header at `url`. The Hub's relative addresses all start at the root.
fn joined(url: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with("//") {
        return http_uri(&format!("{}:{location}", url.scheme_str()?));
    }
    if location.starts_with('/') {
        return http_uri(&format!("{}://{}{location}", url.scheme_str()?, url.authority()?));
    }
    http_uri(location)
}

pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// The failure for an error while reading a body.
pub(super) fn broken_body(error: io::Error) -> Failure {
    let is_timeout = error.get_ref().is_some_and(|inner| matches!(inner.downcast_ref(), Some(ureq::Error::Timeout(_))));
    let is_stall = is_timeout || matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
    Failure::broken(if is_stall { "the connection stalled".into() } else { format!("the connection broke ({error})") })
}

/// Seconds from the Hub's `RateLimit: "api";r=0;t=SECONDS`, otherwise from `Retry-After`.
fn retry_after(rate_limit: Option<&str>, retry_after: Option<&str>) -> Option<Duration> {
    let window = rate_limit.and_then(|header| {
        // The header comes with every response; it only explains the failure if nothing remains.
        let mut parts = header.split(';').map(str::trim);
        parts.clone().find(|part| *part == "r=0")?;
        let seconds: u64 = parts.find_map(|part| part.strip_prefix("t="))?.trim().parse().ok()?;
        // The server rounds down.
        Some(seconds.saturating_add(1))
    });
    window.or_else(|| retry_after?.trim().parse().ok()).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_when_to_come_back() {
        let seconds = |rate_limit, after| retry_after(rate_limit, after).map(|wait| wait.as_secs());
        assert_eq!(seconds(None, Some("7")), Some(7));
        assert_eq!(seconds(Some("\"api\";r=0;t=55"), Some("7")), Some(56));
        assert_eq!(seconds(Some("\"api\";r=12;t=55"), Some("7")), Some(7));
        assert_eq!(seconds(Some("\"api\";r=12;t=55"), None), None);
        assert_eq!(seconds(None, Some("Wed, 21 Oct 2015 07:28:00 GMT")), None);
    }

    #[test]
    fn without_a_systems_certificates_mozillas_list_is_trusted() {
        assert!(matches!(roots(Vec::new()), RootCerts::WebPki));
        assert!(matches!(roots(vec![Certificate::from_der(b"x")]), RootCerts::Specific(all) if all.len() == 1));
    }

    #[test]
    fn redirects_lead_to_web_addresses() {
        let from = http_uri("https://user@hub.example:8/a/b?c").unwrap();
        for (location, expected) in [
            ("/x?y=%2F#z", Some("https://user@hub.example:8/x?y=%2F")),
            ("//other.example/x", Some("https://other.example/x")),
            ("http://other.example", Some("http://other.example/")),
            ("ftp://other.example/x", None),
            ("file:///etc/passwd", None),
            ("", None),
            ("https:///x", None),
        ] {
            let joined = joined(&from, location).map(|url| url.to_string());
            assert_eq!(joined.as_deref(), expected, "{location}");
        }
    }
}
