//! What can go wrong between this program and the Hub, in sentences that say what to do next.

use super::names::{printable, ModelId, Revision};
use super::options::Endpoint;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a checkpoint could not be loaded from the Hub or its cache. `Display` is the whole sentence for the user, except
/// for alternatives to the Hub, which depend on the program: see [`HubErrorKind`].
#[derive(Debug)]
pub struct HubError {
    /// Lets callers tell errors apart.
    pub kind: HubErrorKind,
    pub(super) sentence: String,
}

/// The kinds of [`HubError`] that need different reactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubErrorKind {
    /// The network was not allowed, and the cache lacks something: allow it once, or use another checkpoint.
    Offline,
    /// No connection, no response in time, or a response that is not from a Hub: use another checkpoint.
    Unreachable,
    /// The repository exists, but not the revision.
    NoSuchRevision,
    /// The Hub refused.
    Refused,
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Error for HubError {}

/// A failed request.
#[derive(Debug)]
pub(super) enum Failure {
    /// A response with an error status.
    Status(Box<Refusal>),
    /// No usable response.
    Connection { reason: String, transient: bool },
}

/// A response with an error status.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    /// The host that responded, if it is not the Hub but its storage or a proxy in between.
    pub(super) other_host: Option<String>,
    /// The identity used for the request.
    pub(super) user: User,
    /// The Hub's code for the reason (header `X-Error-Code`).
    pub(super) error_code: Option<String>,
    /// The Hub's message (header `X-Error-Message`).
    pub(super) message: Option<String>,
    /// How long to wait before the next try.
    pub(super) retry_after: Option<Duration>,
}

/// The identity used for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum User {
    Nobody,
    /// A token, read from a file or given directly.
    Token {
        file: Option<PathBuf>,
    },
    /// Anonymous, because the Hub refused the token from this file.
    Stale {
        file: PathBuf,
    },
}

impl Failure {
    /// A connection that may be tried again.
    pub(super) fn broken(reason: impl Into<String>) -> Failure {
        Failure::Connection { reason: reason.into(), transient: true }
    }

    /// A response that would not improve on another try.
    pub(super) fn senseless(reason: impl Into<String>) -> Failure {
        Failure::Connection { reason: reason.into(), transient: false }
    }

    /// Whether the same request may succeed soon.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Failure::Status(refusal) => matches!(refusal.code, 408 | 429 | 500 | 502 | 503 | 504),
            Failure::Connection { transient, .. } => *transient,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        let Failure::Status(refusal) = self else { return None };
        refusal.retry_after
    }
}

/// A few words, for messages about a download that continues.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(refusal) => write!(f, "the server answered with status {}", refusal.code),
            Failure::Connection { reason, .. } => f.write_str(reason),
        }
    }
}

/// What a failed request was for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) model_id: &'a ModelId,
    pub(super) revision: &'a Revision,
    pub(super) file: Option<&'a str>,
}

impl Asked<'_> {
    /// The error for a request that failed for good.
    pub(super) fn explain(&self, failure: Failure) -> HubError {
        let kind = match &failure {
            Failure::Connection { .. } => HubErrorKind::Unreachable,
            Failure::Status(refusal) if refusal.code >= 500 => HubErrorKind::Unreachable,
            Failure::Status(refusal) if refusal.hub_code() == "RevisionNotFound" => HubErrorKind::NoSuchRevision,
            Failure::Status(_) => HubErrorKind::Refused,
        };
        let what = match self.file {
            Some(file) => format!("{} of {}", printable(file), self.model_id),
            None => self.model_id.to_string(),
        };
        let endpoint = self.endpoint;
        let sentence = match &failure {
            Failure::Connection { reason, .. } => format!("cannot fetch {what} from {endpoint}: {reason}"),
            Failure::Status(refusal) => match &refusal.other_host {
                // The storage behind the Hub knows neither repositories nor tokens: its URLs are signed. If it refuses,
                // it refuses this connection.
                Some(host) => format!(
                    "cannot fetch {what}: {host}, to which the Hub at {endpoint} redirects, answered with status \
                     {}{}: a proxy or firewall may block this host (let it through), or it is out of order (try again \
                     later)",
                    refusal.code,
                    refusal.quoted_message()
                ),
                None => self.explain_refusal(refusal),
            },
        };
        HubError { kind, sentence }
    }

    /// The sentence for a refusal by the Hub itself.
    fn explain_refusal(&self, refusal: &Refusal) -> String {
        let Asked { endpoint, model_id, revision, .. } = self;
        let (user, said) = (&refusal.user, refusal.quoted_message());
        match (refusal.code, refusal.hub_code(), user) {
            (_, "GatedRepo", User::Token { .. }) => format!(
                "{model_id} is gated and the token in use has no access to it: accept its terms at \
                 {endpoint}/{model_id} with the token's account, or set HF_TOKEN to the token of an account that has \
                 access"
            ),
            (_, "GatedRepo", _) => {
                format!("{model_id} is gated: accept its terms at {endpoint}/{model_id}, then {}", user.remedy())
            }
            (_, "RevisionNotFound", _) => format!(
                "{model_id} has no revision {revision}: use a branch, a tag, a commit or refs/pr/N \
                 (see {endpoint}/{model_id}/tree/main)"
            ),
            (_, "EntryNotFound", _) => match self.file {
                Some(file) => format!("{model_id} has no file {} at revision {revision}", printable(file)),
                None => format!("{model_id} has no files at revision {revision}: see {endpoint}/{model_id}/tree/main"),
            },
            (401, _, User::Token { .. }) if refusal.blames_token() => format!(
                "the Hub at {endpoint} refused the token: it is invalid or has expired; \
                 create a new one at {endpoint}/settings/tokens, or unset HF_TOKEN"
            ),
            // Without a token the Hub does not say whether a repository is private or missing.
            (_, "RepoNotFound", _) | (401 | 404, ..) => format!(
                "there is no model {model_id} at {endpoint}, or it is private: check the spelling, or {}",
                user.remedy()
            ),
            (403, ..) => format!("the Hub at {endpoint} forbids access to {model_id}{said}: {}", user.remedy()),
            (429, ..) => {
                let wait = refusal.retry_after.map(|wait| format!("in {} s", wait.as_secs().max(1)));
                let wait = wait.unwrap_or_else(|| "in a few minutes".to_string());
                let higher = ", or set HF_TOKEN (signed-in users have a higher limit)";
                let higher = if *user == User::Nobody { higher } else { "" };
                format!("the Hub at {endpoint} limits requests (status 429) for {model_id}: try again {wait}{higher}")
            }
            (code @ 500.., ..) => {
                format!("the Hub at {endpoint} failed to serve {model_id} (status {code}{said}): try again later")
            }
            (code, ..) => format!(
                "the Hub at {endpoint} refused to serve {model_id} at revision {revision} (status {code}{said})"
            ),
        }
    }
}

impl User {
    /// How to get permission to read a repository.
    fn remedy(&self) -> String {
        match self {
            User::Nobody => "set HF_TOKEN to a token that may read it".to_string(),
            User::Token { file: None } => "use a token that may read it".to_string(),
            User::Token { file: Some(file) } => {
                format!("use a token that may read it: the one in use comes from {}", file.display())
            }
            User::Stale { file } => {
                format!("log in again with `hf auth login`: the token in {} is invalid or has expired", file.display())
            }
        }
    }
}

impl Refusal {
    /// The Hub's code for the reason, or an empty string.
    fn hub_code(&self) -> &str {
        self.error_code.as_deref().filter(|_| self.other_host.is_none()).unwrap_or_default()
    }

    fn blames_token(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        message.starts_with("Invalid cred") || message.contains("expired")
    }

    /// The server's message, for the middle of a sentence.
    fn quoted_message(&self) -> String {
        self.message.as_deref().map(|message| format!(", “{}”", printable(message))).unwrap_or_default()
    }
}

/// The sentence for a file system error while trying to `doing` something at `path`.
pub(super) fn disk_error(error: io::Error, doing: &str, path: &Path) -> anyhow::Error {
    let folder = path.parent().unwrap_or(path).display();
    let sentence = match error.kind() {
        io::ErrorKind::StorageFull => format!(
            "cannot {doing}: the disk that holds {folder} is full; free some space and start again \
             (what was downloaded is kept), or set HF_HOME to a folder on a larger disk"
        ),
        io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => format!(
            "cannot {doing}: the quota for {folder} is exhausted; start again with \
             more room (what was downloaded is kept), or set HF_HOME to another folder"
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("cannot {doing} in {folder}: make it writable, or set HF_HOME to a folder that is")
        }
        _ => format!("cannot {doing} at {} (HF_HOME can name another folder)", path.display()),
    };
    anyhow::Error::new(error).context(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(code: u16, error_code: &str, user: User) -> HubError {
        let asked = Asked {
            endpoint: &Endpoint::new("https://hub.example"),
            model_id: &ModelId::parse("org/name").unwrap(),
            revision: &Revision::parse("main").unwrap(),
            file: None,
        };
        let error_code = (!error_code.is_empty()).then(|| error_code.to_string());
        let refusal = Refusal { code, other_host: None, user, error_code, message: None, retry_after: None };
        asked.explain(Failure::Status(Box::new(refusal)))
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let nobody = || User::Nobody;
        let token = || User::Token { file: None };
        let stored = || User::Token { file: Some("/home/token".into()) };
        let stale = || User::Stale { file: "/home/token".into() };
        for (code, error_code, user, expected) in [
            (401, "GatedRepo", nobody(), "accept its terms at https://hub.example/org/name, then set HF_TOKEN"),
            (403, "GatedRepo", token(), "the token in use has no access"),
            (401, "GatedRepo", stale(), "log in again with `hf auth login`: the token in /home/token"),
            (401, "RepoNotFound", nobody(), "no model org/name at https://hub.example, or it is private"),
            (404, "RepoNotFound", token(), "use a token that may read it"),
            (404, "RepoNotFound", stored(), "the one in use comes from /home/token"),
            (401, "", nobody(), "or it is private"),
            (401, "RepoNotFound", stale(), "log in again"),
            (403, "", nobody(), "set HF_TOKEN to a token that may read it"),
            (404, "RevisionNotFound", nobody(), "has no revision main"),
            (429, "", nobody(), "try again in a few minutes"),
            (503, "", nobody(), "try again later"),
        ] {
            let sentence = sentence(code, error_code, user).to_string();
            assert!(sentence.contains(expected), "{code} {error_code}: {sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
        assert_eq!(sentence(404, "RevisionNotFound", nobody()).kind, HubErrorKind::NoSuchRevision);
        assert_eq!(sentence(503, "", nobody()).kind, HubErrorKind::Unreachable);
    }
}
