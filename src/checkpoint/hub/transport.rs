//! Requests to the Hub: proxies, time limits, redirects, and the token, which goes to the endpoint and nowhere else.
//!
//! hf-hub says what to ask for (the URLs of the API and of files); the requests are made here, with the HTTP
//! client that hf-hub uses. Its own download (0.4.3) is not called, because nothing around it could mend these:
//! where a file is stored on another host, its look at that host carries the token along; it joins the
//! server's etag to the cache's path before a caller sees it, so a server could write anywhere; it sets no
//! limit for a connection that stalls; it follows relative redirects without end; and it knows no `NO_PROXY`.

use super::error::{Failure, Refusal};
use super::options::{HubOptions, Patience, Token};
use super::proxies::ProxyRules;
use std::error::Error;
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use ureq::{Agent, ErrorKind, Response};
use url::Url;

/// Redirects that one request may go through.
const MAX_REDIRECTS: usize = 10;
/// What stands in a message for a proxy, whose URL may carry a password.
const PROXY: &str = "the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names";
/// The most that an answer which is no file may hold.
const MAX_DOCUMENT: u64 = 64 << 20;

/// The way to one Hub.
pub(super) struct Transport {
    endpoint: Url,
    authorization: Option<String>,
    proxies: ProxyRules,
    pub(super) patience: Patience,
    /// One agent (with its open connections) for each proxy, made when first needed: making one reads the
    /// system's certificates, which a start from the cache shall not wait for.
    agents: Mutex<Vec<(Option<String>, Agent)>>,
}

/// What the Hub says of a file before its bytes.
#[derive(Debug, Default)]
pub(super) struct Stated {
    pub(super) etag: Option<String>,
    pub(super) size: Option<u64>,
}

impl Transport {
    /// `endpoint` has been parsed from the options.
    pub(super) fn new(endpoint: Url, options: &HubOptions) -> Result<Transport, Failure> {
        let authorization = match options.token.as_ref().map(Token::header) {
            Some(None) => {
                return Err(Failure::senseless("the token holds characters that no token has (check HF_TOKEN)"))
            }
            Some(header) => header,
            None => None,
        };
        Ok(Transport {
            endpoint,
            authorization,
            proxies: options.proxies.clone(),
            patience: options.patience.clone(),
            agents: Mutex::new(Vec::new()),
        })
    }

    /// The body of a small answer, tried again where that may help.
    pub(super) fn document(&self, url: &Url) -> Result<Vec<u8>, Failure> {
        self.retrying(|| {
            let response = self.follow("GET", url, None)?;
            let mut body = Vec::new();
            response.into_reader().take(MAX_DOCUMENT + 1).read_to_end(&mut body).map_err(broken_body)?;
            match body.len() as u64 > MAX_DOCUMENT {
                true => Err(Failure::senseless("the answer is longer than any sensible one")),
                false => Ok(body),
            }
        })
    }

    /// What the Hub states of the file at `url`, without fetching it. A redirect to another host is not followed:
    /// the Hub has said all by then, and signed URLs of a storage answer to GET alone.
    pub(super) fn stated(&self, url: &Url) -> Result<Stated, Failure> {
        self.retrying(|| {
            let response = self.follow("HEAD", url, None)?;
            let header = |name: &str| response.header(name).map(str::to_string);
            let is_final = (200..300).contains(&response.status());
            Ok(Stated {
                etag: header("X-Linked-Etag").or_else(|| header("ETag")),
                size: header("X-Linked-Size")
                    .or_else(|| header("Content-Length").filter(|_| is_final))
                    .and_then(|size| size.trim().parse().ok()),
            })
        })
    }

    /// One try to open the file at `url` from byte `from` on.
    pub(super) fn open(&self, url: &Url, from: u64) -> Result<Response, Failure> {
        self.follow("GET", url, Some(from).filter(|from| *from > 0))
    }

    /// Repeats a request that failed in a way that may pass. A connection that took long to fail is not tried
    /// again: a dead network shall cost seconds, not minutes.
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
            match self.patience.requests.wait_after(failures, failure.retry_after()).filter(|_| in_time) {
                Some(wait) => std::thread::sleep(wait),
                None => return Err(failure),
            }
        }
    }

    fn follow(&self, method: &str, url: &Url, from: Option<u64>) -> Result<Response, Failure> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(method, &url, from)?;
            if !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let next = response
                .header("Location")
                .and_then(|location| url.join(location).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https") && next.host().is_some())
                .ok_or_else(|| Failure::senseless("the server redirects to no address"))?;
            if method == "HEAD" && next.origin() != url.origin() {
                return Ok(response);
            }
            url = next;
        }
        Err(Failure::senseless("the server redirects without end"))
    }

    fn send(&self, method: &str, url: &Url, from: Option<u64>) -> Result<Response, Failure> {
        let mut request = self.agent(url)?.request_url(method, url).set("Accept-Encoding", "identity");
        if let Some(authorization) = self.authorization.as_ref().filter(|_| url.origin() == self.endpoint.origin()) {
            request = request.set("Authorization", authorization);
        }
        if let Some(from) = from {
            request = request.set("Range", &format!("bytes={from}-"));
        }
        request.call().map_err(|error| failure(error, url, self.proxies.proxy_for(url).is_some()))
    }

    fn agent(&self, url: &Url) -> Result<Agent, Failure> {
        let proxy = self.proxies.proxy_for(url);
        let mut agents = self.agents.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, agent)) = agents.iter().find(|(known, _)| known.as_deref() == proxy) {
            return Ok(agent.clone());
        }
        let mut builder = ureq::builder()
            .redirects(0)
            .timeout_connect(self.patience.connect)
            .timeout_read(self.patience.stall)
            .timeout_write(self.patience.stall)
            .user_agent(concat!("agnews/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = proxy {
            builder = builder.proxy(
                ureq::Proxy::new(proxy).map_err(|_| Failure::senseless(format!("the URL of {PROXY} is malformed")))?,
            );
        }
        let agent = builder.build();
        agents.push((proxy.map(str::to_string), agent.clone()));
        Ok(agent)
    }
}

/// The failure behind an error of the HTTP client, in words.
fn failure(error: ureq::Error, url: &Url, through_proxy: bool) -> Failure {
    match error {
        ureq::Error::Status(code, response) => {
            let header = |name: &str| response.header(name).map(str::to_string);
            Failure::Status(Refusal {
                code,
                error_code: header("X-Error-Code"),
                message: header("X-Error-Message"),
                retry_after: retry_after(header("Retry-After").as_deref(), header("RateLimit").as_deref()),
            })
        }
        ureq::Error::Transport(transport) => {
            let host = url.host_str().unwrap_or_default();
            let peer = if through_proxy { PROXY } else { host };
            let detail = root_cause(&transport);
            let (reason, transient) = match transport.kind() {
                ErrorKind::Dns => (format!("{peer} was not found ({detail})"), true),
                _ if detail.contains("certificate") => (
                    format!(
                        "the certificate of {host} is not trusted ({detail}); if a proxy stands between, add its \
                         certificate to the system's store or name it in SSL_CERT_FILE"
                    ),
                    false,
                ),
                ErrorKind::ConnectionFailed => (format!("no connection to {peer} ({detail})"), true),
                ErrorKind::ProxyConnect => (format!("{PROXY} did not connect"), true),
                ErrorKind::ProxyUnauthorized => (format!("{PROXY} wants other credentials"), false),
                ErrorKind::Io => (format!("the connection to {peer} broke ({detail})"), true),
                ErrorKind::BadStatus | ErrorKind::BadHeader => {
                    (format!("{peer} does not answer as a web server does"), true)
                }
                _ => (format!("the request to {peer} failed ({detail})"), false),
            };
            Failure::Connection { reason, transient }
        }
    }
}

/// The failure behind an error while a body was read.
pub(super) fn broken_body(error: io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "the connection stalled".to_string(),
        _ => format!("the connection broke ({error})"),
    };
    Failure::broken(reason)
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    super::names::printable(&cause.to_string())
}

/// Seconds from `Retry-After`, else from the Hub's `RateLimit: "api";r=0;t=SECONDS`.
fn retry_after(retry_after: Option<&str>, rate_limit: Option<&str>) -> Option<Duration> {
    let seconds = retry_after.and_then(|value| value.trim().parse().ok()).or_else(|| {
        // The header comes with every answer; it is the reason for none unless nothing remains.
        let mut parts = rate_limit?.split(';').map(str::trim);
        parts.clone().any(|part| part == "r=0").then(|| parts.find_map(|part| part.strip_prefix("t=")?.parse().ok()))?
    })?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_when_to_come_back() {
        assert_eq!(retry_after(Some("7"), None), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(None, Some("\"api\";r=0;t=55")), Some(Duration::from_secs(55)));
        assert_eq!(retry_after(None, Some("\"api\";r=12;t=55")), None);
        assert_eq!(retry_after(Some("Wed, 21 Oct 2015 07:28:00 GMT"), None), None);
    }
}
