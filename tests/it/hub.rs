//! Checkpoints from the Hub: broken downloads, caches of every kind, and what must not leave this machine.

use crate::hub_proxy::HubProxy;
use crate::hub_server::{git_blob, sha256, Fault, HubServer, Request};
use agnews::checkpoint::hub::{DownloadProgress, Hub, HubError, HubErrorKind, HubOptions, Patience, Snapshot, Token};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const ID: &str = "org/small";
const DEFAULT_ID: &str = "textattack/bert-base-uncased-ag-news";

/// 300 kB that are not a model: nothing here parses them.
fn weights() -> Vec<u8> {
    (0..300_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ (i >> 8).to_le_bytes()[0]).collect()
}

fn checkpoint(weights: &[u8]) -> [(&str, &[u8]); 5] {
    [
        ("config.json", b"{\"model_type\": \"bert\"}"),
        ("README.md", b"Not needed."),
        ("tokenizer_config.json", b"{}"),
        ("vocab.txt", b"[PAD]\n[UNK]\n"),
        ("model.safetensors", weights),
    ]
}

/// A server with one repository, and an empty cache.
struct Setup {
    server: HubServer,
    home: tempfile::TempDir,
    commit: String,
    token: Option<&'static str>,
    offline: bool,
    env: BTreeMap<&'static str, String>,
}

#[derive(Default)]
struct Messages(Mutex<Vec<String>>);

impl DownloadProgress for Messages {
    fn start(&self, _file: &str, _total: Option<u64>) {}
    fn position(&self, _bytes: u64) {}
    fn finish(&self) {}
    fn message(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_string());
    }
}

fn setup() -> Setup {
    let server = HubServer::start();
    let commit = server.commit(ID, "main", &checkpoint(&weights()));
    let home = tempfile::tempdir().unwrap();
    Setup { server, home, commit, token: None, offline: false, env: BTreeMap::new() }
}

fn impatient() -> Patience {
    let ms = Duration::from_millis;
    let mut patience = Patience { connect: ms(2000), stall: ms(400), ..Patience::default() };
    patience.requests.first_wait = ms(1);
    patience.requests.longest_wait = ms(5);
    patience.downloads.first_wait = ms(1);
    patience.downloads.longest_wait = ms(5);
    patience
}

impl Setup {
    fn options(&self) -> HubOptions {
        HubOptions { patience: impatient(), ..self.patient_options() }
    }

    fn patient_options(&self) -> HubOptions {
        let mut env = self.env.clone();
        env.entry("HF_HOME").or_insert_with(|| self.home.path().to_str().unwrap().to_string());
        env.entry("HF_ENDPOINT").or_insert_with(|| self.server.endpoint());
        let mut options = HubOptions::from_env(&|name| env.get(name).map(OsString::from), self.offline);
        options.token = self.token.and_then(Token::new).or(options.token);
        options
    }

    fn get(&self, id: &str, revision: Option<&str>) -> anyhow::Result<Snapshot> {
        Hub::new(self.options(), &()).snapshot(id, revision)
    }

    fn repo_folder(&self) -> PathBuf {
        self.home.path().join("hub/models--org--small")
    }

    fn assert_whole(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.commit, self.commit);
        assert_eq!(snapshot.folder, self.repo_folder().join("snapshots").join(&self.commit));
        for (name, content) in checkpoint(&weights()).iter().filter(|(name, _)| *name != "README.md") {
            assert!(fs::read(snapshot.folder.join(name)).unwrap() == *content, "{name}");
            let file = snapshot.files.iter().find(|file| file.name == *name).unwrap();
            assert_eq!(file.size, content.len() as u64);
        }
    }

    fn error(&self) -> String {
        self.get(ID, None).unwrap_err().to_string()
    }

    /// No name in the cache refers to incomplete content.
    fn assert_nothing_half(&self) {
        let blobs = self.repo_folder().join("blobs");
        for blob in fs::read_dir(&blobs).into_iter().flatten().flatten() {
            let name = blob.file_name().into_string().unwrap();
            let content = fs::read(blob.path()).unwrap();
            let named = if name.len() == 64 { sha256(&content) } else { git_blob(&content) };
            assert!(name.ends_with(".incomplete") || named == name, "{name}");
        }
        for snapshot in fs::read_dir(self.repo_folder().join("snapshots")).into_iter().flatten().flatten() {
            for file in fs::read_dir(snapshot.path()).unwrap().flatten() {
                assert!(file.path().is_file(), "{} points nowhere", file.path().display());
            }
        }
    }
}

fn gets(requests: &[Request], storage: bool) -> usize {
    requests.iter().filter(|request| request.method == "GET" && request.storage == storage).count()
}

/// The file system below `folder`, without anything that varies between looks.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found.sort();
    found
}

/// Whether this system makes symbolic links. Windows asks for a privilege; Wine reports success without making one.
fn has_links() -> bool {
    #[cfg(windows)]
    {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::windows::fs::symlink_file("target", &link).is_ok() && link.is_symlink()
    }
    #[cfg(not(windows))]
    true
}

#[test]
fn a_checkpoint_has_pythons_layout() {
    let setup = setup();
    let snapshot = setup.get(ID, None).unwrap();
    setup.assert_whole(&snapshot);
    assert_eq!((snapshot.model_id.as_str(), snapshot.revision.as_str()), (ID, "main"));
    let repo = setup.repo_folder();
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), setup.commit);
    for (name, blob) in [("model.safetensors", sha256(&weights())), ("vocab.txt", git_blob(b"[PAD]\n[UNK]\n"))] {
        let link = fs::read_link(snapshot.folder.join(name)).ok();
        assert_eq!(link, has_links().then(|| Path::new("../../blobs").join(blob)), "{name}");
    }
    assert!(!snapshot.folder.join("README.md").exists());
    assert!(setup.home.path().join("hub/.locks/models--org--small").join(sha256(&weights()) + ".lock").is_file());
    setup.assert_nothing_half();
    let targets: Vec<String> = setup.server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets[0], "/api/models/org/small/revision/main?blobs=true");
    assert!(targets.last().unwrap().contains(&sha256(&weights())), "the weights come last: {targets:?}");
}

#[test]
fn a_complete_checkpoint_in_the_cache_needs_no_network() {
    let mut setup = setup();
    let first = setup.get(ID, None).unwrap();
    setup.server.forget_requests();
    for revision in [None, Some("main"), Some(&setup.commit.clone())] {
        assert_eq!(setup.get(ID, revision).unwrap().folder, first.folder);
    }
    setup.offline = true;
    assert_eq!(setup.get(ID, None).unwrap(), first);
    // A black hole address, where a connection would only time out.
    setup.offline = false;
    setup.env.insert("HF_ENDPOINT", "http://10.255.255.1".into());
    let started = Instant::now();
    assert_eq!(setup.get(ID, None).unwrap(), first);
    assert!(started.elapsed() < Duration::from_millis(500));
    assert!(setup.server.requests().is_empty());
}

#[test]
#[cfg(unix)]
fn a_cache_that_cannot_be_written_serves_what_it_has() {
    let mut setup = setup();
    let first = setup.get(ID, None).unwrap();
    let before = tree(setup.home.path());
    // The superuser may write anywhere, so also check that nothing was written.
    for path in before.iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
    }
    setup.offline = true;
    let again = setup.get(ID, None);
    assert_eq!(tree(setup.home.path()), before);
    for path in before.iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert_eq!(again.unwrap(), first);
}

#[test]
fn offline_opens_no_socket_and_says_what_is_missing() {
    let mut setup = setup();
    setup.offline = true;
    let error = setup.get(ID, None).unwrap_err();
    assert_eq!(error.downcast_ref::<HubError>().unwrap().kind, HubErrorKind::Offline);
    let error = error.to_string();
    assert!(error.contains("not in the cache") && error.contains("models--org--small"), "{error}");
    setup.offline = false;
    setup.get(ID, None).unwrap();
    setup.server.forget_requests();
    fs::remove_file(setup.repo_folder().join("snapshots").join(&setup.commit).join("model.safetensors")).unwrap();
    setup.env.insert("HF_HUB_OFFLINE", "1".into());
    let error = setup.error();
    assert!(error.contains("lacks weights that can be read: model.safetensors or"), "{error}");
    assert!(setup.server.requests().is_empty());
}

#[test]
fn an_incomplete_snapshot_is_completed() {
    let setup = setup();
    let snapshot = setup.get(ID, None).unwrap();
    for name in ["model.safetensors", "config.json"] {
        setup.server.forget_requests();
        let blob = snapshot.folder.join(name).canonicalize().unwrap();
        fs::remove_file(blob).unwrap();
        setup.assert_whole(&setup.get(ID, None).unwrap());
        // The listing, and the one file through its redirect.
        assert_eq!(setup.server.requests().len(), 3, "{name}");
    }
}

#[test]
fn revisions_are_branches_tags_commits_and_pull_requests() {
    let mut setup = setup();
    let other = [&weights()[..], b"tail"].concat();
    let commit = setup.server.commit(ID, "refs/pr/1", &checkpoint(&other));
    setup.server.commit(ID, "v1.0", &checkpoint(&other));
    setup.server.commit(ID, "feature/x#1", &checkpoint(&other));
    for revision in ["refs/pr/1", "v1.0", "feature/x#1", &commit, &commit[..9]] {
        assert_eq!(setup.get(ID, Some(revision)).unwrap().commit, commit, "{revision}");
    }
    for revision in ["refs/pr/1", "v1.0", "feature/x#1", &commit[..9]] {
        assert_eq!(fs::read_to_string(setup.repo_folder().join("refs").join(revision)).unwrap(), commit);
    }
    assert!(!setup.repo_folder().join("refs").join(&commit).exists());
    setup.offline = true;
    for revision in ["refs/pr/1", "v1.0", "feature/x#1", &commit, &commit[..9]] {
        assert_eq!(setup.get(ID, Some(revision)).unwrap().commit, commit, "{revision}");
    }
    setup.offline = false;
    let error = setup.get(ID, Some("v9")).unwrap_err();
    assert_eq!(error.downcast_ref::<HubError>().unwrap().kind, HubErrorKind::NoSuchRevision);
    assert!(error.to_string().contains("org/small has no revision v9"), "{error}");
    assert!(setup.get(ID, Some("../x")).is_err());
}

#[test]
fn the_default_checkpoint_prefers_its_converted_weights() {
    let mut setup = setup();
    let pickled = [
        ("config.json", &b"{}"[..]),
        ("vocab.txt", b"x"),
        ("tokenizer_config.json", b"{}"),
        ("pytorch_model.bin", b"p"),
    ];
    let main = setup.server.commit(DEFAULT_ID, "main", &pickled);
    // Without the pull request there is only main.
    assert_eq!(setup.get(DEFAULT_ID, None).unwrap().commit, main);
    let converted = setup.server.commit(DEFAULT_ID, "refs/pr/1", &checkpoint(b"converted"));
    // The cached revision is used.
    setup.offline = true;
    assert_eq!(setup.get(DEFAULT_ID, None).unwrap().revision, "main");
    setup.offline = false;
    assert_eq!(setup.get(DEFAULT_ID, None).unwrap().revision, "main");
    setup.home = tempfile::tempdir().unwrap();
    let snapshot = setup.get(DEFAULT_ID, None).unwrap();
    assert_eq!((snapshot.revision.as_str(), &snapshot.commit), ("refs/pr/1", &converted));
    assert_eq!(setup.get(DEFAULT_ID, Some("main")).unwrap().commit, main);
    // If both are cached, the converted one is preferred.
    assert_eq!(setup.get(DEFAULT_ID, None).unwrap().commit, converted);
}

#[test]
#[cfg_attr(windows, ignore = "Windows has no files with such names")]
fn sharded_weights_come_with_all_their_shards() {
    let setup = setup();
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "parts/model #2?.safetensors", "c": "model-1.safetensors"}}"#;
    let files: [(&str, &[u8]); 6] = [
        ("config.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("tokenizer_config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", b"one"),
        ("parts/model #2?.safetensors", b"two"),
    ];
    setup.server.commit("org/sharded", "main", &files);
    let snapshot = setup.get("org/sharded", None).unwrap();
    assert_eq!(fs::read(snapshot.folder.join("parts/model #2?.safetensors")).unwrap(), b"two");
    assert_eq!(snapshot.files.len(), files.len());
    setup.server.forget_requests();
    assert_eq!(setup.get("org/sharded", None).unwrap(), snapshot);
    assert!(setup.server.requests().is_empty());
    fs::remove_file(snapshot.folder.join("parts/model #2?.safetensors")).unwrap();
    let offline = Setup { offline: true, ..setup };
    let error = offline.get("org/sharded", None).unwrap_err().to_string();
    assert!(error.contains("lacks parts/model #2?.safetensors"), "{error}");
}

#[test]
fn hostile_names_do_not_leave_the_cache() {
    let setup = setup();
    setup.server.list_also("../../../escaped");
    let index = br#"{"weight_map": {"a": "../../../../escaped"}}"#;
    let files: [(&str, &[u8]); 3] =
        [("config.json", b"{}"), ("vocab.txt", b"x"), ("model.safetensors.index.json", index)];
    setup.server.commit("org/hostile", "main", &files);
    let error = format!("{:#}", setup.get("org/hostile", None).unwrap_err());
    assert!(error.contains("not the name of a file in its folder"), "{error}");
    setup.get(ID, None).unwrap();

    let mirror = Setup { home: tempfile::tempdir().unwrap(), ..setup };
    mirror.server.list_names_only();
    for etag in ["\"../../../escaped\"", "/tmp/escaped", "", "\"..\""] {
        mirror.server.set_etag("config.json", etag);
        let error = mirror.error();
        assert!(error.contains("cannot be a blob") || error.contains("sent no etag"), "{error}");
    }
    let escaped = |path: &PathBuf| path.to_string_lossy().contains("escaped");
    assert!(!tree(mirror.home.path()).iter().any(escaped));
    assert!(!mirror.home.path().parent().unwrap().join("escaped").exists());
}

#[test]
fn a_listing_with_names_only_is_enough() {
    let setup = setup();
    setup.server.list_names_only();
    let snapshot = setup.get(ID, None).unwrap();
    setup.assert_whole(&snapshot);
    setup.assert_nothing_half();
    // Wrong content is detected by the etag.
    let again = Setup { home: tempfile::tempdir().unwrap(), ..setup };
    again.server.storage_fault(1, Fault::WrongByte);
    again.assert_whole(&again.get(ID, None).unwrap());
    again.assert_nothing_half();
}

#[test]
fn a_repository_without_usable_weights_says_what_it_has() {
    let setup = setup();
    let files: [(&str, &[u8]); 4] =
        [("config.json", b"{}"), ("vocab.txt", b"x"), ("flax_model.msgpack", b"f"), ("tf_model.h5", b"t")];
    setup.server.commit("org/flax", "main", &files);
    let error = setup.get("org/flax", None).unwrap_err().to_string();
    assert!(error.contains("org/flax at revision main has no weights"), "{error}");
    assert!(error.contains("it has config.json, flax_model.msgpack, tf_model.h5, vocab.txt"), "{error}");
}

#[test]
fn a_cut_connection_is_resumed() {
    for fault in [Fault::Cut(100_000), Fault::Stall(100_000, Duration::from_secs(2))] {
        let setup = setup();
        setup.server.storage_fault(2, fault);
        setup.assert_whole(&setup.get(ID, None).unwrap());
        let requests = setup.server.requests();
        let ranges: Vec<_> = requests.iter().filter(|r| r.storage).map(|r| r.header("Range")).collect();
        assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=200000-")]);
        setup.assert_nothing_half();
    }
}

#[test]
fn a_connection_that_breaks_again_and_again_gets_there() {
    let setup = setup();
    setup.server.storage_fault(usize::MAX, Fault::Cut(20_000));
    setup.assert_whole(&setup.get(ID, None).unwrap());
    assert_eq!(gets(&setup.server.requests(), true), 15);
}

#[test]
fn a_small_file_is_fetched_over_cuts_too() {
    let setup = setup();
    setup.server.fault("vocab.txt", 3, Fault::Cut(2));
    setup.server.fault("/api/models", 2, Fault::Cut(10));
    setup.assert_whole(&setup.get(ID, None).unwrap());
}

#[test]
fn a_stalled_connection_ends_with_a_message() {
    let setup = setup();
    setup.server.storage_fault(usize::MAX, Fault::Cut(0));
    let error = setup.error();
    assert!(error.contains("cannot fetch model.safetensors of org/small from"), "{error}");
    setup.assert_nothing_half();
    assert!(!setup.repo_folder().join("refs/main").exists());
}

#[test]
fn a_silent_server_is_given_up_after_the_variables_time() {
    let long = Duration::from_secs(15);
    for (variable, part, fault, expected) in [
        ("HF_HUB_ETAG_TIMEOUT", "/api/models", Fault::Silent(long), "cannot fetch org/small from"),
        ("HF_HUB_ETAG_TIMEOUT", "/api/models", Fault::Stall(10, long), "the connection stalled"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "vocab.txt", Fault::Silent(long), "did not answer in time"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "signature", Fault::Stall(1000, long), "the connection stalled"),
    ] {
        let mut setup = setup();
        setup.env.insert(variable, "1".into());
        setup.server.fault(part, usize::MAX, fault.clone());
        let mut options = setup.patient_options();
        options.patience.requests.tries = 1;
        options.patience.downloads.tries = 1;
        let started = Instant::now();
        let error = Hub::new(options, &()).snapshot(ID, None).unwrap_err();
        let waited = started.elapsed();
        assert!(Duration::from_millis(900) < waited && waited < long, "{variable} {fault:?}: {waited:?}");
        assert_eq!(error.downcast_ref::<HubError>().unwrap().kind, HubErrorKind::Unreachable);
        assert!(error.to_string().contains(expected), "{variable} {fault:?}: {error}");
        setup.assert_nothing_half();
    }
}

#[test]
fn a_server_without_ranges_is_asked_from_the_beginning() {
    let setup = setup();
    setup.server.storage_fault(1, Fault::Cut(100_000));
    setup.server.storage_fault(1, Fault::NoRanges);
    setup.assert_whole(&setup.get(ID, None).unwrap());
    setup.assert_nothing_half();
}

#[test]
fn a_short_response_is_not_the_file() {
    let setup = setup();
    setup.server.storage_fault(1, Fault::Short(1000));
    setup.assert_whole(&setup.get(ID, None).unwrap());
    let always = Setup { home: tempfile::tempdir().unwrap(), ..setup };
    always.server.storage_fault(usize::MAX, Fault::Short(0));
    let error = always.error();
    assert!(error.contains("the connection ended before the end of the file"), "{error}");
    always.assert_nothing_half();
}

#[test]
fn wrong_bytes_are_never_published() {
    let setup = setup();
    setup.server.storage_fault(1, Fault::WrongByte);
    setup.server.fault("resolve-cache", 1, Fault::WrongByte);
    let messages = Messages::default();
    setup.assert_whole(&Hub::new(setup.options(), &messages).snapshot(ID, None).unwrap());
    let messages = messages.0.into_inner().unwrap();
    assert_eq!(messages.iter().filter(|message| message.contains("arrived damaged")).count(), 2, "{messages:?}");

    let always = Setup { home: tempfile::tempdir().unwrap(), ..setup };
    always.server.storage_fault(usize::MAX, Fault::WrongByte);
    let error = always.error();
    assert!(
        error.contains("model.safetensors of org/small") && error.contains("differed from the Hub's hash 3 times"),
        "{error}"
    );
    always.assert_nothing_half();
    assert!(always.options().cache_dir.join("models--org--small/snapshots").join(&always.commit).exists());
    assert!(Setup { offline: true, ..always }.error().contains("not in the cache"));
}

#[test]
fn the_download_of_a_killed_process_is_resumed() {
    for (left, first_range) in [
        (weights()[..120_000].to_vec(), Some("bytes=120000-")),
        (weights(), None),
        // Longer than the file and with other content: starts over.
        ([weights(), weights()].concat(), None),
    ] {
        let setup = setup();
        let blobs = setup.repo_folder().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        let is_whole = left == weights();
        fs::write(blobs.join(sha256(&weights()) + ".0123456789abcdef.incomplete"), left).unwrap();
        setup.assert_whole(&setup.get(ID, None).unwrap());
        let requests: Vec<Request> = setup.server.requests().into_iter().filter(|request| request.storage).collect();
        match is_whole {
            true => assert!(requests.is_empty()),
            false => assert_eq!(requests[0].header("Range"), first_range),
        }
        setup.assert_nothing_half();
    }
    // The start of other content is detected by the hash.
    let setup = setup();
    let blobs = setup.repo_folder().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(&weights()) + ".0123456789abcdef.incomplete"), vec![7; 1000]).unwrap();
    setup.assert_whole(&setup.get(ID, None).unwrap());
}

#[test]
fn eight_at_once_download_once() {
    let setup = setup();
    setup.server.storage_fault(1, Fault::Slow(30_000, Duration::from_millis(20)));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| setup.get(ID, None).unwrap())).collect();
        for thread in threads {
            setup.assert_whole(&thread.join().unwrap());
        }
    });
    let requests = setup.server.requests();
    assert_eq!(gets(&requests, true), 1);
    for name in ["/config.json", "/vocab.txt"] {
        let fetched = |r: &&Request| r.target.contains("resolve-cache") && r.target.contains(name);
        assert_eq!(requests.iter().filter(fetched).count(), 1, "{name}");
    }
}

#[test]
fn a_busy_hub_is_asked_again() {
    let setup = setup();
    for (part, status) in [("/api/models", 503), ("/api/models", 429), ("/resolve/", 500), ("/resolve/", 502)] {
        setup.server.fault(part, 1, Fault::Status(status, ""));
    }
    setup.server.storage_fault(1, Fault::Status(503, ""));
    setup.assert_whole(&setup.get(ID, None).unwrap());
}

#[test]
fn refusals_become_sentences() {
    for (part, status, code, expected) in [
        ("/api/models", 401, "RepoNotFound", "there is no model org/small at"),
        ("/api/models", 401, "GatedRepo", "org/small is gated: accept its terms at"),
        ("/api/models", 403, "GatedRepo", "set HF_TOKEN"),
        ("/resolve/", 403, "GatedRepo", "org/small is gated: accept its terms at"),
        ("/api/models", 404, "RevisionNotFound", "org/small has no revision main"),
        ("/resolve/", 404, "EntryNotFound", "org/small has no file config.json at revision main"),
        ("/api/models", 429, "", "limits requests"),
        ("/api/models", 500, "", "(status 500): try again later"),
        ("/api/models", 503, "", "(status 503): try again later"),
        ("/api/models", 418, "", "status 418"),
        ("/resolve/", 503, "", "(status 503): try again later"),
    ] {
        let setup = setup();
        setup.server.fault(part, usize::MAX, Fault::Status(status, code));
        let error = setup.error();
        assert!(error.contains(expected), "{status} {code}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let setup = setup();
    assert!(setup.get("org/missing", None).unwrap_err().to_string().contains("or it is private"));
}

#[test]
fn servers_that_are_not_a_hub_are_detected() {
    let setup = setup();
    setup.server.fault("/api/models", 1, Fault::Portal);
    let error = setup.error();
    assert!(error.contains("its response is not a Hub listing"), "{error}");
    setup.server.fault("", usize::MAX, Fault::Loop);
    assert!(setup.error().contains("too many redirects"));
}

#[test]
fn an_unreachable_hub_is_named() {
    let mut setup = setup();
    for endpoint in ["http://127.0.0.1:9", "http://no-such-host.invalid"] {
        setup.env.insert("HF_ENDPOINT", endpoint.into());
        let started = Instant::now();
        let error = setup.get(ID, None).unwrap_err();
        assert_eq!(error.downcast_ref::<HubError>().unwrap().kind, HubErrorKind::Unreachable);
        let error = error.to_string();
        assert!(error.contains(endpoint), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    setup.env.insert("HF_ENDPOINT", "not a URL".into());
    assert!(setup.error().contains("HF_ENDPOINT"));
}

#[test]
fn the_token_goes_to_the_endpoint_only() {
    let mut setup = setup();
    setup.server.require_token("hf_secret");
    assert!(setup.error().contains("set HF_TOKEN"));
    setup.token = Some("hf_wrong");
    let error = setup.error();
    assert!(error.contains("refused the token") && !error.contains("hf_wrong"), "{error}");
    setup.token = Some("hf_secret");
    setup.server.forget_requests();
    setup.assert_whole(&setup.get(ID, None).unwrap());
    for request in setup.server.requests() {
        let expected = (!request.storage).then_some("Bearer hf_secret");
        assert_eq!(request.header("Authorization"), expected, "{request:?}");
    }
    let error = setup.get("org/other", None).unwrap_err();
    assert!(error.to_string().contains("use a token that may read it"), "{error}");
    assert!(!format!("{error:?} {:?}", setup.options()).contains("hf_secret"));
    setup.token = Some("hf_se\ncret");
    let error = setup.get("org/other", None).unwrap_err();
    assert!(error.to_string().contains("check HF_TOKEN") && !format!("{error:?}").contains("cret"), "{error}");
}

/// A Hub behind a proxy: only the proxy can resolve its name, and the storage is reached directly.
fn behind(proxy: &HubProxy) -> Setup {
    let mut setup = setup();
    proxy.route("hub.invalid:80", setup.server.address);
    setup.env.insert("HF_ENDPOINT", "http://hub.invalid".into());
    setup.env.insert("NO_PROXY", "localhost,.example".into());
    setup
}

#[test]
fn proxies_and_their_exceptions_are_obeyed() {
    let proxy = HubProxy::start(false);
    let mut setup = behind(&proxy);
    setup.env.insert("http_proxy", format!("http://{}", proxy.authority()));
    setup.assert_whole(&setup.get(ID, None).unwrap());
    assert!(proxy.asked().iter().all(|target| target == "hub.invalid:80"), "{:?}", proxy.asked());
    assert_eq!(setup.server.requests()[0].header("Host"), Some("hub.invalid"));
    setup.home = tempfile::tempdir().unwrap();
    setup.env.insert("NO_PROXY", "invalid".into());
    let error = setup.error();
    assert!(error.contains("hub.invalid was not found"), "{error}");
    setup.env.insert("http_proxy", "http://user:secret@:x:y".into());
    setup.env.insert("NO_PROXY", String::new());
    let error = setup.error();
    assert!(error.contains("proxy") && !error.contains("secret"), "{error}");
}

#[test]
fn a_proxys_password_is_decoded() {
    for scheme in ["http", "socks5h"] {
        let proxy = HubProxy::start(false);
        proxy.rules.lock().unwrap().credentials = Some("us:er:p@ss%w/rd+");
        let mut setup = behind(&proxy);
        setup.env.insert("ALL_PROXY", format!("{scheme}://us%3Aer:p%40ss%25w%2Frd+@{}", proxy.authority()));
        setup.assert_whole(&setup.get(ID, None).unwrap());
        assert_eq!(proxy.asked()[0], "hub.invalid:80", "{scheme}");
        let mut wrong = Setup { home: tempfile::tempdir().unwrap(), ..setup };
        wrong.env.insert("ALL_PROXY", format!("{scheme}://user:hunter2@{}", proxy.authority()));
        let error = wrong.error();
        assert!(error.contains("proxy") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_proxy_that_blocks_a_host_is_not_confused_with_the_hub() {
    let proxy = HubProxy::start(false);
    let mut setup = behind(&proxy);
    setup.env.insert("http_proxy", format!("http://{}", proxy.authority()));
    proxy.rules.lock().unwrap().refused = Some("hub.invalid:80".into());
    let error = setup.error();
    assert!(error.contains("did not connect to hub.invalid") && error.contains("403"), "{error}");
    assert!(!error.contains("token"), "{error}");
}

#[test]
fn a_refusal_by_the_storage_is_not_confused_with_the_hub() {
    for status in [403, 404] {
        let setup = setup();
        setup.server.storage_fault(usize::MAX, Fault::Status(status, ""));
        let error = setup.get(ID, None).unwrap_err();
        assert_eq!(error.downcast_ref::<HubError>().unwrap().kind, HubErrorKind::Refused);
        let error = error.to_string();
        assert!(error.contains("localhost, to which the Hub at"), "{error}");
        assert!(error.contains(&format!("status {status}")) && error.contains("block this host"), "{error}");
        assert!(!error.contains("token") && !error.contains("no model"), "{error}");
    }
}

#[test]
fn a_stale_login_does_not_block_public_models() {
    let mut setup = setup();
    let login = setup.home.path().join("token");
    fs::write(&login, "hf_stale").unwrap();
    setup.server.refuse_other_tokens("hf_fresh");
    let messages = Messages::default();
    setup.assert_whole(&Hub::new(setup.options(), &messages).snapshot(ID, None).unwrap());
    let messages = messages.0.into_inner().unwrap();
    let told = messages.iter().filter(|m| m.contains(login.to_str().unwrap()) && m.contains("hf auth login")).count();
    assert_eq!(told, 1, "{messages:?}");
    let requests = setup.server.requests();
    assert_eq!(requests.iter().filter(|r| r.header("Authorization").is_some()).count(), 1);
    // Private content stays hidden, and the error says why.
    let missing = setup.get("org/missing", None).unwrap_err().to_string();
    assert!(
        missing.contains("log in again with `hf auth login`") && missing.contains(login.to_str().unwrap()),
        "{missing}"
    );
    assert!(!missing.contains("hf_stale") && !missing.contains("HF_TOKEN"), "{missing}");
    // A token that the user gave directly is not ignored.
    setup.token = Some("hf_given");
    setup.home = tempfile::tempdir().unwrap();
    assert!(setup.error().contains("unset HF_TOKEN"));
}

#[test]
fn the_hubs_own_header_says_how_long_to_wait() {
    let setup = setup();
    let rate = |window: u32| Fault::Refuse(429, "RateLimit", format!("\"api\";r=0;t={window}"));
    setup.server.fault("/api/models", 1, rate(1));
    let started = Instant::now();
    setup.assert_whole(&setup.get(ID, None).unwrap());
    assert!(started.elapsed() >= Duration::from_secs(2));
    // Classifying fails at once; downloading waits.
    let busy = Setup { home: tempfile::tempdir().unwrap(), ..setup };
    busy.server.fault("/api/models", usize::MAX, rate(200));
    let started = Instant::now();
    let error = busy.error();
    assert!(error.contains("try again in 201 s") && started.elapsed() < Duration::from_secs(5), "{error}");
    let messages: &'static Messages = Box::leak(Box::default());
    let options = busy.options();
    std::thread::spawn(move || Hub::new(options, messages).download(ID, None));
    while messages.0.lock().unwrap().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    let told = messages.0.lock().unwrap()[0].clone();
    assert!(told.contains("429") && told.contains("waiting 201 s"), "{told}");
}

#[test]
fn no_message_shows_the_endpoints_password() {
    let mut setup = setup();
    for endpoint in ["ftp://user:secret@127.0.0.1", "http://user:secret@127.0.0.1:9", "user:secret@hub"] {
        setup.env.insert("HF_ENDPOINT", endpoint.into());
        let error = format!("{:?} {:?}", setup.get(ID, None).unwrap_err(), setup.options());
        assert!(error.contains("127.0.0.1") || error.contains("hub"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn without_links_a_snapshot_has_the_files_themselves() {
    let mut setup = setup();
    setup.env.insert("HF_HUB_DISABLE_SYMLINKS", "1".into());
    setup.assert_whole(&setup.get(ID, None).unwrap());
    let weights_in = |commit: &str| setup.repo_folder().join("snapshots").join(commit).join("model.safetensors");
    assert!(weights_in(&setup.commit).symlink_metadata().unwrap().is_file());
    if !has_links() {
        return;
    }
    // A blob that other snapshots link to is copied, not moved.
    setup.home = tempfile::tempdir().unwrap();
    setup.env.remove("HF_HUB_DISABLE_SYMLINKS");
    setup.get(ID, None).unwrap();
    let other = setup.server.commit(ID, "v2", &[&checkpoint(&weights())[..], &[("more.txt", b"m")]].concat());
    setup.env.insert("HF_HUB_DISABLE_SYMLINKS", "1".into());
    setup.server.forget_requests();
    assert_eq!(setup.get(ID, Some("v2")).unwrap().commit, other);
    assert_eq!(gets(&setup.server.requests(), true), 0);
    let weights_in = |commit: &str| setup.repo_folder().join("snapshots").join(commit).join("model.safetensors");
    assert!(weights_in(&other).symlink_metadata().unwrap().is_file());
    assert!(weights_in(&setup.commit).symlink_metadata().unwrap().is_symlink());
    setup.offline = true;
    setup.assert_whole(&setup.get(ID, None).unwrap());
}

#[test]
fn progress_bars_can_be_turned_off() {
    struct Bytes(Mutex<u32>);
    impl DownloadProgress for Bytes {
        fn start(&self, _file: &str, _total: Option<u64>) {
            *self.0.lock().unwrap() += 1;
        }
        fn position(&self, _bytes: u64) {
            *self.0.lock().unwrap() += 1;
        }
        fn finish(&self) {
            *self.0.lock().unwrap() += 1;
        }
        fn message(&self, _text: &str) {}
    }
    let mut setup = setup();
    let told = Bytes(Mutex::new(0));
    Hub::new(setup.options(), &told).snapshot(ID, None).unwrap();
    assert!(*told.0.lock().unwrap() > 0);
    setup.home = tempfile::tempdir().unwrap();
    setup.env.insert("HF_HUB_DISABLE_PROGRESS_BARS", "1".into());
    let told = Bytes(Mutex::new(0));
    Hub::new(setup.options(), &told).snapshot(ID, None).unwrap();
    assert_eq!(*told.0.lock().unwrap(), 0);
}

#[test]
#[cfg(unix)]
fn a_planted_link_leads_nowhere() {
    use std::os::unix::fs::symlink;
    let setup = setup();
    let victim = setup.home.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let blobs = setup.repo_folder().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let blob = sha256(&weights());
    symlink(&victim, blobs.join(format!("{blob}.incomplete"))).unwrap();
    symlink(&victim, blobs.join(format!("{blob}.0123456789abcdef.incomplete"))).unwrap();
    fs::hard_link(&victim, blobs.join(format!("{blob}.fedcba9876543210.incomplete"))).unwrap();
    setup.assert_whole(&setup.get(ID, None).unwrap());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(fs::symlink_metadata(blobs.join(&blob)).unwrap().is_file());
}

#[test]
#[cfg(unix)]
fn a_lock_that_was_deleted_keeps_nobody_waiting_and_harms_nobody() {
    let setup = setup();
    let locks = setup.home.path().join("hub/.locks");
    // Another process holds the lock on a file that is then deleted.
    fs::create_dir_all(locks.join("models--org--small")).unwrap();
    let path = locks.join("models--org--small").join(sha256(&weights()) + ".lock");
    let held = fs::File::create(&path).unwrap();
    held.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| setup.get(ID, None).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        fs::remove_file(&path).unwrap();
        setup.assert_whole(&waiting.join().unwrap());
    });
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);

    // Both sides download at once, because the folder of locks was cleared in between.
    let again = Setup { home: tempfile::tempdir().unwrap(), ..setup };
    again.server.forget_requests();
    again.server.storage_fault(1, Fault::Slow(30_000, Duration::from_millis(200)));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| again.get(ID, None).unwrap());
        while gets(&again.server.requests(), true) == 0 {
            assert!(!first.is_finished());
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::remove_dir_all(again.home.path().join("hub/.locks")).unwrap();
        again.assert_whole(&again.get(ID, None).unwrap());
        assert!(!first.is_finished());
        again.assert_whole(&first.join().unwrap());
    });
    again.assert_nothing_half();
    again.assert_whole(&again.get(ID, None).unwrap());
}

#[test]
fn a_listing_of_more_than_was_fetched_does_not_refuse_the_cache() {
    let mut setup = setup();
    let snapshot = setup.get(ID, None).unwrap();
    let trees = setup.repo_folder().join("trees");
    fs::create_dir(&trees).unwrap();
    // As left by snapshot_download(allow_patterns=[…]): lists all files of the repository.
    let mut files: serde_json::Map<String, serde_json::Value> =
        ["README.md", "tokenizer.json", "pytorch_model.bin", "onnx/model.onnx", "merges.txt"]
            .map(|name| (name.to_string(), serde_json::json!({"size": 7, "blob_id": "x"})))
            .into_iter()
            .collect();
    for (name, content) in checkpoint(&weights()).iter().filter(|(name, _)| *name != "README.md") {
        files.insert(name.to_string(), serde_json::json!({"size": content.len(), "blob_id": "x"}));
    }
    // A file outside the checkpoint that differs from the listing does not matter.
    fs::write(snapshot.folder.join("README.md"), "half").unwrap();
    let write = |files: &serde_json::Map<String, serde_json::Value>| {
        let tree = serde_json::json!({"format_version": 1, "files": files}).to_string();
        fs::write(trees.join(format!("{}.json", setup.commit)), tree).unwrap();
    };
    write(&files);
    setup.offline = true;
    setup.assert_whole(&setup.get(ID, None).unwrap());
    // Files that would be read do matter: tokenizer settings that were not fetched, and weights that are cut off.
    files.insert("special_tokens_map.json".into(), serde_json::json!({"size": 7, "blob_id": "x"}));
    files.insert("model.safetensors".into(), serde_json::json!({"size": 7, "blob_id": "x"}));
    write(&files);
    let error = setup.error();
    assert!(error.contains("lacks model.safetensors, special_tokens_map.json"), "{error}");
}

#[test]
fn a_file_too_large_for_its_role_is_not_fetched() {
    let setup = setup();
    setup.server.set_size("config.json", 20 << 20);
    let error = setup.error();
    assert!(error.contains("config.json of org/small has 20 MB on the Hub, too many"), "{error}");
    assert!(!setup.server.requests().iter().any(|request| request.target.contains("config.json")));
}

#[test]
fn a_branch_that_moves_is_reported() {
    let setup = setup();
    let before = setup.get(ID, None).unwrap().commit;
    let now = setup.server.commit(ID, "main", &checkpoint(b"newer"));
    let messages = Messages::default();
    Hub::new(setup.options(), &messages).download(ID, None).unwrap();
    let messages = messages.0.into_inner().unwrap();
    assert_eq!(messages, [format!("main of org/small has moved from commit {before} to {now}")]);
}

#[test]
fn download_asks_for_the_newest_and_mends_the_cache() {
    let mut setup = setup();
    let first = setup.get(ID, None).unwrap();
    let blob = first.folder.join("model.safetensors").canonicalize().unwrap();
    let mut damaged = weights();
    damaged[5] ^= 1;
    fs::write(&blob, damaged).unwrap();
    // Offline, only the name of the blob that a link leads to says what the content should be.
    setup.offline = true;
    let outcome = Hub::new(setup.options(), &()).download(ID, None);
    if has_links() {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("model.safetensors is damaged"), "{error}");
    } else {
        outcome.unwrap();
    }
    setup.offline = false;
    setup.assert_whole(&Hub::new(setup.options(), &()).download(ID, None).unwrap());
    setup.assert_nothing_half();
    let newer = setup.server.commit(ID, "main", &checkpoint(b"newer"));
    assert_eq!(setup.get(ID, None).unwrap().commit, setup.commit);
    assert_eq!(Hub::new(setup.options(), &()).download(ID, None).unwrap().commit, newer);
    assert_eq!(setup.get(ID, None).unwrap().commit, newer);
}

#[test]
#[cfg(unix)]
fn a_blob_in_pythons_shared_store_is_used() {
    let mut setup = setup();
    let first = setup.get(ID, None).unwrap();
    let blob = setup.repo_folder().join("blobs").join(sha256(&weights()));
    let shared = setup.home.path().join("hub/blobs/ab");
    fs::create_dir_all(&shared).unwrap();
    let name = "ab".repeat(32);
    fs::rename(&blob, shared.join(&name)).unwrap();
    std::os::unix::fs::symlink(Path::new("../../blobs/ab").join(&name), &blob).unwrap();
    setup.server.forget_requests();
    assert_eq!(setup.get(ID, None).unwrap(), first);
    setup.offline = true;
    assert_eq!(Hub::new(setup.options(), &()).download(ID, None).unwrap(), first);
    assert!(setup.server.requests().is_empty());
    setup.offline = false;
    assert_eq!(Hub::new(setup.options(), &()).download(ID, None).unwrap(), first);
    assert_eq!(gets(&setup.server.requests(), true), 0);
}

#[test]
fn a_snapshot_that_python_left_half_done_is_not_taken_for_whole() {
    let mut setup = setup();
    let snapshot = setup.get(ID, None).unwrap();
    fs::remove_file(snapshot.folder.join("tokenizer_config.json")).unwrap();
    // Whether the repository has the file is unknown: the Hub is asked, and if it cannot be reached, the file counts as
    // absent.
    setup.env.insert("HF_ENDPOINT", "http://127.0.0.1:9".into());
    setup.get(ID, None).unwrap();
    setup.env.remove("HF_ENDPOINT");
    setup.assert_whole(&setup.get(ID, None).unwrap());
    // Python's own listing says that it has the file.
    fs::remove_file(snapshot.folder.join("tokenizer_config.json")).unwrap();
    let trees = setup.repo_folder().join("trees");
    fs::create_dir(&trees).unwrap();
    let tree = r#"{"format_version": 1, "files": {"tokenizer_config.json": {"size": 2, "blob_id": "x"}}}"#;
    fs::write(trees.join(format!("{}.json", setup.commit)), tree).unwrap();
    setup.offline = true;
    assert!(setup.error().contains("lacks tokenizer_config.json"));
}

#[test]
fn missing_files_are_remembered() {
    let setup = setup();
    let files: [(&str, &[u8]); 3] = [("config.json", b"{}"), ("vocab.txt", b"x"), ("model.safetensors", b"w")];
    setup.server.commit("org/bare", "main", &files);
    let first = setup.get("org/bare", None).unwrap();
    setup.server.forget_requests();
    assert_eq!(setup.get("org/bare", None).unwrap(), first);
    assert!(setup.server.requests().is_empty());
}
