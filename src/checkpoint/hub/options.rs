//! Where the cache lies, which Hub is asked and with which token, read from the environment as Python's
//! huggingface_hub (`constants.py`, `utils/_auth.py`) reads it.

use super::proxies::ProxyRules;
use super::retry::RetryPolicy;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the Hub's side of loading depends on beside a model id and a revision.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The folder that holds `models--ORGANIZATION--NAME` folders.
    pub cache_dir: PathBuf,
    /// The Hub's address, `https://huggingface.co` unless `HF_ENDPOINT` names another.
    pub endpoint: String,
    /// What is sent to the endpoint, and to no other host, as the user's identity.
    pub token: Option<Token>,
    /// Never open a socket.
    pub offline: bool,
    /// The proxies of the environment.
    pub proxies: ProxyRules,
    /// How long one try may take and how often a failed one is repeated.
    pub patience: Patience,
}

/// A user's secret; `Debug` hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Time limits of requests, and the policy for repeating them.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a connection that is open to bring the next bytes. A transfer as a whole has no limit.
    pub stall: Duration,
    /// For requests that bring no file.
    pub requests: RetryPolicy,
    /// For a download, counted anew whenever bytes have arrived.
    pub downloads: RetryPolicy,
}

impl Default for Patience {
    fn default() -> Self {
        let wait = Duration::from_millis;
        Patience {
            connect: wait(10_000),
            stall: wait(30_000),
            requests: RetryPolicy { tries: 4, first_wait: wait(250), longest_wait: wait(16_000) },
            downloads: RetryPolicy { tries: 9, first_wait: wait(250), longest_wait: wait(16_000) },
        }
    }
}

impl HubOptions {
    /// Reads the options from an environment, given as a lookup by name. `offline` is the command line's word;
    /// the environment can only add to it. A variable that is set but empty counts as not set.
    pub fn from_env(env: &dyn Fn(&str) -> Option<OsString>, offline: bool) -> HubOptions {
        let env = Environment(env);
        let home = env.huggingface_home();
        let cache_dir = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
            .iter()
            .find_map(|name| env.get(name))
            .map_or_else(|| home.join("hub"), |path| env.expand(&path));
        let endpoint = env.text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        let offline_asked = env.text("HF_HUB_OFFLINE").or_else(|| env.text("TRANSFORMERS_OFFLINE"));
        HubOptions {
            cache_dir,
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: env.token(&home),
            offline: offline || offline_asked.is_some_and(|value| is_true(&value)),
            proxies: ProxyRules::from_env(env.0),
            patience: Patience::default(),
        }
    }
}

impl Token {
    /// The token in `text`, white space around it dropped; `None` where nothing remains.
    pub fn new(text: &str) -> Option<Token> {
        let token = text.trim();
        (!token.is_empty()).then(|| Token(token.to_string()))
    }

    /// The value of an `Authorization` header, or `None` where the token has characters that no header takes.
    pub(super) fn header(&self) -> Option<String> {
        self.0.bytes().all(|b| b.is_ascii_graphic()).then(|| format!("Bearer {}", self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Python's `_is_true`.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.into_string().ok()
    }

    fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from).or_else(std::env::home_dir)
    }

    /// `HF_HOME`, else `huggingface` in the user's cache folder.
    fn huggingface_home(&self) -> PathBuf {
        let path = self.get("HF_HOME").unwrap_or_else(|| {
            let caches = self.get("XDG_CACHE_HOME").map_or_else(|| PathBuf::from("~/.cache"), PathBuf::from);
            caches.join("huggingface").into_os_string()
        });
        self.expand(&path)
    }

    /// The environment's token before the one that `hf auth login` has stored.
    fn token(&self, home: &Path) -> Option<Token> {
        if self.text("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
            return None;
        }
        if let Some(token) = self.text("HF_TOKEN").or_else(|| self.text("HUGGING_FACE_HUB_TOKEN")) {
            if let Some(token) = Token::new(&token) {
                return Some(token);
            }
        }
        let path = self.get("HF_TOKEN_PATH").map_or_else(|| home.join("token"), |path| self.expand(&path));
        Token::new(&std::fs::read_to_string(path).ok()?)
    }

    /// `os.path.expandvars(os.path.expanduser(path))`, but for the homes of other users.
    fn expand(&self, path: &OsString) -> PathBuf {
        let Some(text) = path.to_str() else { return PathBuf::from(path) };
        let below_home = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match below_home.and_then(|rest| Some(self.home()?.join(rest.trim_start_matches('/')))) {
            Some(path) => PathBuf::from(self.expand_variables(&path.to_string_lossy())),
            None => PathBuf::from(self.expand_variables(text)),
        }
    }

    /// `$NAME` and `${NAME}` replaced by their values; a name that is not set stays as it is.
    fn expand_variables(&self, text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let (name, length) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
                Some((name, _)) => (name, name.len() + 2),
                None => {
                    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                    (&after[..end], end)
                }
            };
            match Some(name).filter(|name| !name.is_empty()).and_then(|name| (self.0)(name)?.into_string().ok()) {
                Some(value) => expanded.push_str(&value),
                None => {
                    expanded.push('$');
                    expanded.push_str(&after[..length]);
                }
            }
            rest = &after[length..];
        }
        expanded + rest
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
    fn the_cache_lies_where_python_puts_it() {
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
        assert_eq!(token(&[("HF_HOME", home)]), Token::new("stored"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "mine\n")]), Token::new("mine"));
        assert_eq!(token(&[("HF_HOME", home), ("HUGGING_FACE_HUB_TOKEN", "old")]), Token::new("old"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", "$HF_HOME/other")]), Token::new("elsewhere"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "mine"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let options =
            options(&[("HF_HOME", "/hf"), ("HF_TOKEN", "hf_secret"), ("HTTPS_PROXY", "http://user:secret@proxy")]);
        assert!(!format!("{options:?}").contains("secret"));
        assert_eq!(Token::new("a b").unwrap().header(), None);
        assert_eq!(Token::new("a\nb").unwrap().header(), None);
        assert_eq!(Token::new("hf_x").unwrap().header(), Some("Bearer hf_x".into()));
    }

    #[test]
    fn the_endpoint_loses_its_last_slash() {
        assert_eq!(options(&[]).endpoint, "https://huggingface.co");
        assert_eq!(options(&[("HF_ENDPOINT", "http://mirror:1/hub/")]).endpoint, "http://mirror:1/hub");
    }
}
