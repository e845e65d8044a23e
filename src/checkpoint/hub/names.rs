//! Names from the user or the network, each checked once before it becomes a path or a URL.
//!
//! A model id, a revision, a commit and a blob's name all become parts of a path in the cache, like a file's path
//! inside a repository ([`RepoPath`]). None can leave the cache, because values of these types have been parsed.

use super::digest;
use crate::checkpoint::files::{checked_text, RepoPath};
use anyhow::{bail, Result};
use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use std::fs::File;

/// The id of a model repository on the Hub: `NAME` or `ORGANIZATION/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId(String);

checked_text!(ModelId, Revision, Commit);

impl ModelId {
    /// Parses an id by the rules of `validate_repo_id` in Python's huggingface_hub.
    ///
    /// # Errors
    /// If the id breaks a rule; the message says which.
    pub fn parse(id: &str) -> Result<ModelId> {
        let faults = [
            (id.is_empty(), "it is empty"),
            (id.split('/').any(|part| part.len() > 96), "a part of it is longer than 96 characters"),
            (id.matches('/').count() > 1, "it has more than one `/`"),
            (
                !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b)),
                "only letters, digits, `-`, `_` and `.` are allowed",
            ),
            (id.split('/').any(str::is_empty), "a part of it is empty"),
            (id.starts_with(['-', '.']) || id.ends_with(['-', '.']), "it starts or ends with `-` or `.`"),
            (id.contains("--") || id.contains(".."), "it contains `--` or `..`"),
            (id.ends_with(".git"), "it ends with `.git`"),
        ];
        match faults.iter().find(|(is_broken, _)| *is_broken) {
            None => Ok(ModelId(id.to_string())),
            Some((_, fault)) => bail!(
                "`{}` is not a model id, {fault}: use ORGANIZATION/NAME as on the Hub, `builtin`, \
                 or the path of an existing folder",
                printable(id)
            ),
        }
    }
}

/// A revision of a repository: a branch, a tag, a commit (full or abbreviated) or `refs/pr/N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// Parses a revision by git's rules for reference names (git-check-ref-format), which also make it a relative path
    /// below the cache's `refs` folder.
    ///
    /// # Errors
    /// If git would reject the name.
    pub fn parse(revision: &str) -> Result<Revision> {
        let allowed = |c: char| !c.is_control() && !c.is_whitespace() && !"\\~^:?*[\"<>|".contains(c);
        let part_is_sound =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.ends_with(".lock");
        let sound = revision.len() <= 255
            && revision.chars().all(allowed)
            && revision.split('/').all(part_is_sound)
            && !revision.contains("..")
            && !revision.starts_with('-');
        if !sound {
            bail!("`{}` is not a revision: use a branch, a tag, a commit or refs/pr/N", printable(revision));
        }
        Ok(Revision(revision.to_string()))
    }
}

/// A full commit hash: 40 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit(String);

impl Commit {
    pub(super) fn parse(commit: &str) -> Option<Commit> {
        is_hex(commit, 40).then(|| Commit(commit.to_string()))
    }
}

/// The name of a blob in the cache: the file's etag, which on the Hub is its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlobId {
    /// SHA-256 of the content, for files in large-file storage.
    Sha256(String),
    /// SHA-1 of `blob SIZE\0` and the content, as in git, for files in the git repository itself.
    Git(String),
    /// Another kind of etag, for example from a mirror: only the size can be verified.
    Opaque(String),
}

impl BlobId {
    /// Parses an etag: like Python's `_normalize_etag`, drops quotes and the weak marker `W/`. `None` if the rest is
    /// not a plain file name.
    pub(super) fn from_etag(etag: &str) -> Option<BlobId> {
        let name = etag.trim().trim_start_matches("W/").trim_matches('"');
        if is_hex(name, 64) {
            return Some(BlobId::Sha256(name.to_string()));
        }
        if is_hex(name, 40) {
            return Some(BlobId::Git(name.to_string()));
        }
        let plain = (1..=128).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !name.starts_with('.')
            && !name.ends_with('.')
            && !name.ends_with(".incomplete");
        plain.then(|| BlobId::Opaque(name.to_string()))
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            BlobId::Sha256(name) | BlobId::Git(name) | BlobId::Opaque(name) => name,
        }
    }

    /// Whether the content of `file` matches this name.
    pub(super) fn matches(&self, file: &File) -> std::io::Result<bool> {
        match self {
            BlobId::Sha256(name) => Ok(digest::sha256_hex(file)? == *name),
            BlobId::Git(name) => Ok(digest::git_blob_hex(file)? == *name),
            BlobId::Opaque(_) => Ok(true),
        }
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Escapes a file's path for a URL.
pub(super) fn escaped_path(path: &RepoPath) -> String {
    path.as_str().split('/').map(escaped).collect::<Vec<_>>().join("/")
}

/// Escapes `text` as one part of a URL's path: everything except RFC 3986's unreserved characters.
pub(super) fn escaped(text: &str) -> String {
    const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &ESCAPED).to_string()
}

/// Prepares `text` for a message: escapes control characters and cuts long texts.
pub(super) fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(200).flat_map(char::escape_debug).collect();
    if text.chars().nth(200).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_ids_follow_pythons_rules() {
        let longest = format!("org/{}", "a".repeat(96));
        for id in ["foo", "foo/bar", "123", "Foo-BAR_foo.bar123", "textattack/bert-base-uncased-ag-news", &longest] {
            assert!(ModelId::parse(id).is_ok(), "{id}");
        }
        let long = "a".repeat(97);
        for id in [
            "",
            "/",
            "a/",
            "/a",
            "datasets/foo/bar",
            ".repo_id",
            "foo--bar",
            "foo.git",
            "foo..bar",
            "../x",
            "a b",
            "a\\b",
            "-a",
            "a.",
            "ä",
            "a/..",
            "a\nb",
            "./a",
            &long,
        ] {
            assert!(ModelId::parse(id).is_err(), "{id}");
        }
    }

    #[test]
    fn revisions_stay_below_refs() {
        for revision in ["main", "refs/pr/1", "v1.0", "feature/x-y", "0123abc", "a#b", "ünïcode"] {
            assert!(Revision::parse(revision).is_ok(), "{revision}");
        }
        for revision in
            ["", "/etc", "../x", "a/../b", "a//b", "a/", ".hidden", "a\\b", "C:x", "a b", "x.lock", "-x", "a\0"]
        {
            assert!(Revision::parse(revision).is_err(), "{revision:?}");
        }
    }

    #[test]
    fn etags_become_names_of_blobs_or_nothing() {
        let sha256 = "0".repeat(64);
        let git = "a".repeat(40);
        assert_eq!(BlobId::from_etag(&format!("\"{sha256}\"")), Some(BlobId::Sha256(sha256)));
        assert_eq!(BlobId::from_etag(&format!("W/\"{git}\"")), Some(BlobId::Git(git)));
        assert_eq!(BlobId::from_etag("\"abc-12\""), Some(BlobId::Opaque("abc-12".into())));
        for etag in ["", "\"\"", "\"../../x\"", "/etc/passwd", "..", ".", "a/b", "a\\b", "a b", "x.incomplete", "C:x"] {
            assert_eq!(BlobId::from_etag(etag), None, "{etag}");
        }
    }

    #[test]
    fn urls_carry_names_as_they_are() {
        assert_eq!(escaped("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(escaped_path(&RepoPath::parse("a b/100%#?.bin").unwrap()), "a%20b/100%25%23%3F.bin");
    }

    #[test]
    fn messages_carry_no_control_characters() {
        assert_eq!(printable("a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
    }
}
