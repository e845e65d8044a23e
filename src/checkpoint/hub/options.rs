//! Where the cache is, and which Hub and token to use, read from the environment like Python's huggingface_hub
//! (`constants.py`, `utils/_auth.py`).

use super::proxies::ProxyRules;
use super::retry::RetryPolicy;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The settings of the Hub, apart from the model id and the revision.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The folder with the `models--ORGANIZATION--NAME` folders.
    pub cache_dir: PathBuf,
    /// The Hub's address, by default `https://huggingface.co`; `HF_ENDPOINT` overrides it.
    pub endpoint: Endpoint,
    /// The user's token, sent only to the endpoint and, if the endpoint redirects there, to huggingface.co.
    pub token: Option<Token>,
    /// Never open a socket.
    pub offline: bool,
    /// The environment's proxies.
    pub proxies: ProxyRules,
    /// Time limit per try, and how often to retry.
    pub patience: Patience,
    /// Whether a snapshot's files are links to the blobs, or copies (`HF_HUB_DISABLE_SYMLINKS`).
    pub links: bool,
    /// Whether [`DownloadProgress`](super::DownloadProgress) receives byte counts or only messages
    /// (`HF_HUB_DISABLE_PROGRESS_BARS`).
    pub progress_bars: bool,
}

/// The Hub's address as given. `Debug` and `Display` hide any user name and password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(String);

/// A user's secret; `Debug` hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    /// The file that it was read from, or `None` if the user gave it directly.
    file: Option<PathBuf>,
}

/// Time limits of requests, and the retry policy.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For establishing a connection.
    pub connect: Duration,
    /// For the next bytes of a response that is not a file (`HF_HUB_ETAG_TIMEOUT`).
    pub answer: Duration,
    /// For the next bytes of a file (`HF_HUB_DOWNLOAD_TIMEOUT`). A whole transfer has no limit.
    pub stall: Duration,
    /// For requests that are not downloads.
    pub requests: RetryPolicy,
    /// For a download; starts over whenever bytes have arrived.
    pub downloads: RetryPolicy,
}

impl Default for Patience {
    fn default() -> Self {
        let wait = Duration::from_millis;
        Patience {
            connect: wait(10_000),
            answer: wait(30_000),
            stall: wait(30_000),
            requests: RetryPolicy { tries: 4, first_wait: wait(250), longest_wait: wait(16_000) },
            downloads: RetryPolicy { tries: 9, first_wait: wait(250), longest_wait: wait(16_000) },
        }
    }
}

impl HubOptions {
    /// Reads the options from an environment, given as a lookup by name. If `offline` is false, the environment can
    /// still turn it on. Empty variables count as unset.
    pub fn from_env(env: &dyn Fn(&str) -> Option<OsString>, offline: bool) -> HubOptions {
        let env = Environment(env);
        let home = env.huggingface_home();
        let cache_dir = env.get(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]);
        let cache_dir = cache_dir.map_or_else(|| home.join("hub"), |path| env.expand(&path));
        let endpoint = env.text(&["HF_ENDPOINT"]).unwrap_or_else(|| "https://huggingface.co".to_string());
        let patience = Patience::default();
        HubOptions {
            cache_dir,
            endpoint: Endpoint::new(&endpoint),
            token: env.token(&home),
            offline: offline || env.is_true(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]),
            proxies: ProxyRules::from_env(&env),
            patience: Patience {
                answer: env.seconds("HF_HUB_ETAG_TIMEOUT").unwrap_or(patience.answer),
                stall: env.seconds("HF_HUB_DOWNLOAD_TIMEOUT").unwrap_or(patience.stall),
                ..patience
            },
            links: !env.is_true(&["HF_HUB_DISABLE_SYMLINKS"]),
            progress_bars: !env.is_true(&["HF_HUB_DISABLE_PROGRESS_BARS"]),
        }
    }
}

impl Endpoint {
    /// The address `url`, without a trailing slash. It is checked on first use.
    pub fn new(url: &str) -> Endpoint {
        Endpoint(url.trim_end_matches('/').to_string())
    }

    /// The address including any credentials.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_at(self.0.find("://").map_or(0, |end| end + 3));
        // The last `@` ends the credentials, even if it is in the wrong place: better to show too little than a secret.
        let shown = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        f.write_str(&super::names::printable(&format!("{scheme}{shown}")))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl Token {
    /// The token in `text` without surrounding white space; `None` if nothing remains.
    pub fn new(text: &str) -> Option<Token> {
        Token::from_source(text, None)
    }

    fn from_source(text: &str, file: Option<PathBuf>) -> Option<Token> {
        let secret = text.trim().to_string();
        (!secret.is_empty()).then_some(Token { secret, file })
    }

    /// The file that the token was read from. `hf auth login` writes it, and its token may have expired.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The value of an `Authorization` header, or `None` if the token has characters that are not allowed in headers.
    pub(super) fn header(&self) -> Option<String> {
        self.secret.bytes().all(|b| b.is_ascii_graphic()).then(|| format!("Bearer {}", self.secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// An environment, given as a lookup by name. Of several names, the first one that is set counts.
pub(super) struct Environment<'a>(pub(super) &'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    fn get(&self, names: &[&str]) -> Option<OsString> {
        names.iter().find_map(|name| (self.0)(name).filter(|value| !value.is_empty()))
    }

    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        self.get(names)?.into_string().ok()
    }

    /// Python's `_is_true`.
    fn is_true(&self, names: &[&str]) -> bool {
        let value = self.text(names).unwrap_or_default().to_uppercase();
        ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
    }

    /// A whole number of seconds. Zero counts as unset, as in Python.
    fn seconds(&self, name: &str) -> Option<Duration> {
        self.text(&[name])?.trim().parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }

    fn home(&self) -> Option<PathBuf> {
        self.get(&["HOME"]).map(PathBuf::from).or_else(std::env::home_dir)
    }

    /// `HF_HOME`, otherwise `huggingface` in the user's cache folder.
    fn huggingface_home(&self) -> PathBuf {
        let path = self.get(&["HF_HOME"]).unwrap_or_else(|| {
            let caches = self.get(&["XDG_CACHE_HOME"]).map_or_else(|| PathBuf::from("~/.cache"), PathBuf::from);
            caches.join("huggingface").into_os_string()
        });
        self.expand(&path)
    }

    /// The token from the environment, otherwise the one stored by `hf auth login`.
    fn token(&self, home: &Path) -> Option<Token> {
        if self.is_true(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) {
            return None;
        }
        let given = self.text(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
        if let Some(token) = given.and_then(|token| Token::new(&token)) {
            return Some(token);
        }
        let path = self.get(&["HF_TOKEN_PATH"]).map_or_else(|| home.join("token"), |path| self.expand(&path));
        Token::from_source(&std::fs::read_to_string(&path).ok()?, Some(path))
    }

    /// `os.path.expandvars(os.path.expanduser(path))`, except for the homes of other users.
    fn expand(&self, path: &OsString) -> PathBuf {
        let Some(text) = path.to_str() else { return PathBuf::from(path) };
        let below_home = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let text = below_home
            .and_then(|rest| Some(format!("{}{rest}", self.home()?.to_str()?)))
            .unwrap_or_else(|| text.to_string());
        let value = |name: &str| (self.0)(name)?.into_string().ok();
        PathBuf::from(shellexpand::env_with_context_no_errors(&text, value).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_env(
            &|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)),
            false,
        )
    }

    fn cache_dir(variables: &[(&str, &str)]) -> PathBuf {
        options(variables).cache_dir
    }

    #[test]
    fn the_cache_is_where_python_puts_it() {
        for (variables, expected) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")], "/h/hf/hub"),
            (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")], "/new"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")], "/hf/hub"),
            (&[("D", "/data"), ("HF_HOME", "$D/a/${D}/$NONE-b")], "/data/a//data/$NONE-b/hub"),
        ] {
            assert_eq!(cache_dir(variables), Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn the_environment_says_offline_as_python_reads_it() {
        assert!(!options(&[]).offline);
        for value in ["1", "on", "Yes", "TRUE"] {
            assert!(options(&[("HF_HUB_OFFLINE", value)]).offline, "{value}");
            assert!(options(&[("TRANSFORMERS_OFFLINE", value)]).offline, "{value}");
        }
        assert!(!options(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    }

    #[test]
    fn a_token_comes_from_the_environment_or_the_login() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), " stored\n").unwrap();
        std::fs::write(folder.path().join("other"), "elsewhere").unwrap();
        let token = |variables: &[(&str, &str)]| options(variables).token;
        let stored = |text, name| Token::from_source(text, Some(folder.path().join(name)));
        assert_eq!(token(&[("HF_HOME", home)]), stored("stored", "token"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "mine\n")]), Token::new("mine"));
        assert_eq!(token(&[("HF_HOME", home), ("HUGGING_FACE_HUB_TOKEN", "old")]), Token::new("old"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", "$HF_HOME/other")]), stored("elsewhere", "other"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "mine"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let with_secrets = [("HF_HOME", "/hf"), ("HF_TOKEN", "hf_secret"), ("HTTPS_PROXY", "http://user:secret@proxy")];
        let shown = format!("{:?}", options(&with_secrets));
        assert!(!shown.contains("secret"), "{shown}");
        for endpoint in ["https://user:secret@hub.example/x", "ftp://secret@hub.example/x", "user:secret@hub.example/x"]
        {
            let options = options(&[("HF_ENDPOINT", endpoint)]);
            assert!(!format!("{options:?} {}", options.endpoint).contains("secret"), "{options:?}");
            assert!(options.endpoint.to_string().ends_with("hub.example/x"), "{}", options.endpoint);
            assert_eq!(options.endpoint.as_str(), endpoint);
        }
        assert_eq!(Token::new("a b").unwrap().header(), None);
        assert_eq!(Token::new("a\nb").unwrap().header(), None);
        assert_eq!(Token::new("hf_x").unwrap().header(), Some("Bearer hf_x".into()));
    }

    #[test]
    fn the_endpoint_loses_its_last_slash() {
        assert_eq!(options(&[]).endpoint.as_str(), "https://huggingface.co");
        assert_eq!(options(&[("HF_ENDPOINT", "http://mirror:1/hub/")]).endpoint.as_str(), "http://mirror:1/hub");
    }

    #[test]
    fn pythons_other_variables_are_obeyed() {
        let defaults = options(&[]);
        assert!(defaults.links && defaults.progress_bars);
        let set = options(&[
            ("HF_HUB_ETAG_TIMEOUT", "3"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "70"),
            ("HF_HUB_DISABLE_SYMLINKS", "1"),
            ("HF_HUB_DISABLE_PROGRESS_BARS", "True"),
        ]);
        assert_eq!((set.patience.answer.as_secs(), set.patience.stall.as_secs()), (3, 70));
        assert!(!set.links && !set.progress_bars);
        for value in ["0", "soon", "-1", ""] {
            assert_eq!(options(&[("HF_HUB_DOWNLOAD_TIMEOUT", value)]).patience.stall, defaults.patience.stall);
        }
    }
}
