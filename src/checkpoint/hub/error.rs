//! What can go wrong between here and the Hub, as sentences that say what to do next.

use super::names::{printable, ModelId, Revision};
use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Why a checkpoint could not be had from the Hub or its cache. `Display` is the whole sentence for the user.
#[derive(Debug)]
pub struct HubError {
    /// What a caller may want to tell apart.
    pub kind: HubErrorKind,
    sentence: String,
}

/// The kinds of [`HubError`] that call for different reactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubErrorKind {
    /// The network was not allowed, and the cache lacks something.
    Offline,
    /// No connection, no answer in time, or an answer from something that is no Hub.
    Unreachable,
    /// The repository exists, the revision does not.
    NoSuchRevision,
    /// The Hub answered, and said no.
    Refused,
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Error for HubError {}

impl HubError {
    pub(super) fn new(kind: HubErrorKind, sentence: String) -> HubError {
        HubError { kind, sentence }
    }
}

/// One request that did not bring what was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// An answer with an error status.
    Status(Refusal),
    /// No usable answer.
    Connection { reason: String, transient: bool },
}

/// An answer with an error status.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    /// The Hub's word for the reason (header `X-Error-Code`).
    pub(super) error_code: Option<String>,
    /// The Hub's sentence (header `X-Error-Message`).
    pub(super) message: Option<String>,
    /// When to come back.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// A connection that can be tried again.
    pub(super) fn broken(reason: impl Into<String>) -> Failure {
        Failure::Connection { reason: reason.into(), transient: true }
    }

    /// An answer that will not be better the next time.
    pub(super) fn senseless(reason: impl Into<String>) -> Failure {
        Failure::Connection { reason: reason.into(), transient: false }
    }

    /// Whether the same request may succeed in a moment.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Failure::Status(refusal) => matches!(refusal.code, 408 | 429 | 500 | 502 | 503 | 504),
            Failure::Connection { transient, .. } => *transient,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Status(refusal) => refusal.retry_after,
            Failure::Connection { .. } => None,
        }
    }
}

/// A few words, for a message about a download that goes on.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(refusal) => write!(f, "the server answered with status {}", refusal.code),
            Failure::Connection { reason, .. } => f.write_str(reason),
        }
    }
}

/// What was asked for when a request failed.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) endpoint: &'a str,
    pub(super) model_id: &'a ModelId,
    pub(super) revision: &'a Revision,
    pub(super) file: Option<&'a str>,
    pub(super) with_token: bool,
}

impl Asked<'_> {
    /// The sentence for a request that failed for good.
    pub(super) fn explain(&self, failure: Failure) -> HubError {
        match failure {
            Failure::Status(refusal) => self.explain_refusal(&refusal),
            Failure::Connection { reason, .. } => HubError::new(
                HubErrorKind::Unreachable,
                format!("cannot fetch {} from {}: {reason}; {}", self.what(), self.endpoint, other_ways()),
            ),
        }
    }

    fn what(&self) -> String {
        match self.file {
            Some(file) => format!("{} of {}", printable(file), self.model_id),
            None => self.model_id.to_string(),
        }
    }

    fn explain_refusal(&self, refusal: &Refusal) -> HubError {
        let Asked { endpoint, model_id, revision, .. } = self;
        let refused = |sentence| HubError::new(HubErrorKind::Refused, sentence);
        match (refusal.code, refusal.error_code.as_deref().unwrap_or_default()) {
            (_, "GatedRepo") => refused(self.explain_gate()),
            (_, "RevisionNotFound") => self.explain_missing_revision(),
            (_, "EntryNotFound") => refused(match self.file {
                Some(file) => format!("{model_id} has no file {} at revision {revision}", printable(file)),
                None => format!("{model_id} has nothing at revision {revision}: see {endpoint}/{model_id}/tree/main"),
            }),
            (401, _) if self.with_token && refusal.blames_token() => refused(format!(
                "the Hub at {endpoint} refused the token: it is invalid or has expired; \
                 make a new one at {endpoint}/settings/tokens, or unset HF_TOKEN"
            )),
            (_, "RepoNotFound") | (401, _) | (404, _) => refused(self.explain_missing_repository()),
            (403, _) => refused(format!(
                "the Hub at {endpoint} forbids access to {model_id}{}: {}",
                refusal.quoted_message(),
                if self.with_token {
                    "use a token that may read it"
                } else {
                    "set HF_TOKEN to a token that may read it"
                }
            )),
            (429, _) => refused(format!(
                "the Hub at {endpoint} asks to slow down (status 429) while {model_id} is fetched: try again {}{}",
                match refusal.retry_after {
                    Some(wait) => format!("in {} s", wait.as_secs().max(1)),
                    None => "in a few minutes".to_string(),
                },
                if self.with_token { "" } else { ", or set HF_TOKEN (who is signed in may ask more often)" }
            )),
            (code @ 500.., _) => HubError::new(
                HubErrorKind::Unreachable,
                format!(
                    "the Hub at {endpoint} fails to serve {model_id} (status {code}{}): try again later; {}",
                    refusal.quoted_message(),
                    other_ways()
                ),
            ),
            (code, _) => refused(format!(
                "the Hub at {endpoint} refused to serve {model_id} at revision {revision} (status {code}{})",
                refusal.quoted_message()
            )),
        }
    }

    fn explain_gate(&self) -> String {
        let Asked { endpoint, model_id, .. } = self;
        if self.with_token {
            format!(
                "{model_id} is gated and the token in use has no access to it: accept its terms at \
                 {endpoint}/{model_id} with the token's account, or set HF_TOKEN to a token of an account that has"
            )
        } else {
            format!(
                "{model_id} is gated: accept its terms at {endpoint}/{model_id}, then set HF_TOKEN to a token of \
                 that account ({endpoint}/settings/tokens)"
            )
        }
    }

    fn explain_missing_revision(&self) -> HubError {
        let Asked { endpoint, model_id, revision, .. } = self;
        HubError::new(
            HubErrorKind::NoSuchRevision,
            format!(
                "{model_id} has no revision {revision}: give a branch, a tag, a commit or refs/pr/N \
                 (see {endpoint}/{model_id}/tree/main)"
            ),
        )
    }

    /// Without a token the Hub does not say whether a repository is private or missing.
    fn explain_missing_repository(&self) -> String {
        let Asked { endpoint, model_id, .. } = self;
        let remedy = if self.with_token {
            "check the spelling, or use a token that may read it"
        } else {
            "check the spelling, or set HF_TOKEN to a token that may read it"
        };
        format!("there is no model {model_id} at {endpoint}, or it is private: {remedy}")
    }
}

impl Refusal {
    fn blames_token(&self) -> bool {
        self.message.as_deref().is_some_and(|message| message.starts_with("Invalid credentials"))
    }

    fn quoted_message(&self) -> String {
        self.message.as_deref().map(|message| format!(", “{}”", printable(message))).unwrap_or_default()
    }
}

/// The two ways on where the Hub cannot be reached.
pub(super) fn other_ways() -> &'static str {
    "without the Hub there is the embedded model, `-m builtin`, or a checkpoint in a local folder, `-m ./FOLDER`"
}

/// The sentence for an error of the file system while `doing` something at `path`.
pub(super) fn disk_error(error: io::Error, doing: &str, path: &Path) -> anyhow::Error {
    let folder = path.parent().unwrap_or(path).display();
    let sentence = match error.kind() {
        io::ErrorKind::StorageFull => format!(
            "cannot {doing}: the disk that holds {folder} is full; free some space there and start again \
             (what has arrived is kept), or set HF_HOME to a folder on a larger disk"
        ),
        io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => format!(
            "cannot {doing}: the limit on what may be stored in {folder} is reached; start again with \
             more room (what has arrived is kept), or set HF_HOME to another folder"
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

    fn sentence(code: u16, error_code: &str, with_token: bool) -> HubError {
        let asked = Asked {
            endpoint: "https://hub.example",
            model_id: &ModelId::parse("org/name").unwrap(),
            revision: &Revision::parse("main").unwrap(),
            file: None,
            with_token,
        };
        let error_code = (!error_code.is_empty()).then(|| error_code.to_string());
        asked.explain(Failure::Status(Refusal { code, error_code, message: None, retry_after: None }))
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (code, error_code, with_token, expected) in [
            (401, "GatedRepo", false, "accept its terms at https://hub.example/org/name, then set HF_TOKEN"),
            (403, "GatedRepo", true, "the token in use has no access"),
            (401, "RepoNotFound", false, "no model org/name at https://hub.example, or it is private"),
            (404, "RepoNotFound", true, "use a token that may read it"),
            (401, "", false, "or it is private"),
            (403, "", false, "set HF_TOKEN to a token that may read it"),
            (404, "RevisionNotFound", false, "has no revision main"),
            (429, "", false, "try again in a few minutes"),
            (503, "", false, "-m builtin"),
        ] {
            let sentence = sentence(code, error_code, with_token).to_string();
            assert!(sentence.contains(expected), "{code} {error_code}: {sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
        assert_eq!(sentence(404, "RevisionNotFound", false).kind, HubErrorKind::NoSuchRevision);
    }
}
