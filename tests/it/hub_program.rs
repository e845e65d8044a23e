//! The real program and a Hub: the embedded model's files as a repository, fetched by many processes, by killed
//! processes, or by processes without a Hub.

use crate::harness::{agnews, builtin, fixture, Agnews};
use crate::hub_proxy::HubProxy;
use crate::hub_server::{Fault, HubServer};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const ID: &str = "org/small";
const TEXT: &str = "The striker scored twice in the second half and the crowd went home happy";

/// The files of the embedded model, and one that no checkpoint needs.
pub(crate) fn embedded_model() -> [(&'static str, &'static [u8]); 5] {
    [
        ("config.json", include_bytes!("../../src/checkpoint/builtin/config.json")),
        ("tokenizer.json", include_bytes!("../../src/checkpoint/builtin/tokenizer.json")),
        ("tokenizer_config.json", include_bytes!("../../src/checkpoint/builtin/tokenizer_config.json")),
        ("model.safetensors", include_bytes!("../../src/checkpoint/builtin/model.safetensors")),
        ("README.md", include_bytes!("../../src/checkpoint/builtin/README.md")),
    ]
}

fn server_of_the_embedded_model() -> HubServer {
    let server = HubServer::start();
    server.commit(ID, "main", &embedded_model());
    server
}

fn call(server: &HubServer, home: &Path) -> Agnews {
    agnews().env("HF_ENDPOINT", server.endpoint()).env("HF_HOME", home).args(["-m", ID, "--scores", TEXT])
}

fn expected() -> String {
    builtin().args(["--scores", TEXT]).quiet_success()
}

#[test]
fn a_model_from_the_hub_answers_like_the_embedded_one() {
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    assert_eq!(call(&server, home.path()).quiet_success(), expected());
    server.forget_requests();
    assert_eq!(call(&server, home.path()).quiet_success(), expected());
    assert_eq!(call(&server, home.path()).arg("--offline").quiet_success(), expected());
    assert_eq!(call(&server, home.path()).env("HF_HUB_OFFLINE", "1").quiet_success(), expected());
    assert!(server.requests().is_empty());
}

/// What config.json says is enough to refuse a checkpoint, or to describe it.
#[test]
fn no_byte_of_the_weights_is_fetched_for_a_refusal_or_a_description() {
    let fetched =
        |server: &HubServer| server.requests().iter().any(|request| format!("{request:?}").contains("safetensors"));
    let (server, home) = (HubServer::start(), tempfile::tempdir().unwrap());
    let mut files = embedded_model();
    files[0].1 = br#"{"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]}"#;
    server.commit(ID, "main", &files);
    let outcome = call(&server, home.path()).run().code_is(1);
    outcome.tells(&["model_type is \"gpt2\"", "supported are", "bert", "modernbert", ID]);
    assert!(!fetched(&server));
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    let info = agnews().env("HF_ENDPOINT", server.endpoint()).env("HF_HOME", home.path()).args(["-m", ID, "--info"]);
    let info = info.quiet_success();
    assert!(info.contains("family         bert") && info.contains("4: World, Sports"), "{info}");
    assert!(!fetched(&server));
    assert_eq!(call(&server, home.path()).quiet_success(), expected(), "a description is no half-done download");
}

#[test]
fn eight_processes_at_once_give_eight_answers_and_download_once() {
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    server.storage_fault(1, Fault::Slow(1 << 20, Duration::from_millis(30)));
    let children: Vec<_> = (0..8)
        .map(|_| {
            let (mut command, kept) = call(&server, home.path()).into_command();
            (command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), kept)
        })
        .collect();
    let expected = expected();
    for (child, _kept) in children {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{stderr}");
    }
    let downloads = server.requests().iter().filter(|request| request.storage).count();
    assert_eq!(downloads, 1);
}

#[test]
fn killed_repeatedly_it_resumes() {
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    server.storage_fault(usize::MAX, Fault::Slow(1 << 18, Duration::from_millis(10)));
    let mut kills = 0;
    let output = loop {
        let (mut command, _kept) = call(&server, home.path()).into_command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Longer and longer runs, so every phase is hit and a slow machine finishes too.
        std::thread::sleep(Duration::from_millis(20 + 15 * kills));
        match child.try_wait().unwrap() {
            Some(_) => break child.wait_with_output().unwrap(),
            None => child.kill().unwrap(),
        }
        child.wait().unwrap();
        kills += 1;
        // At any time the cache is either complete or known to be incomplete.
        let offline = call(&server, home.path()).arg("--offline").run();
        match offline.code {
            Some(0) => assert_eq!(offline.stdout, expected()),
            _ => drop(offline.code_is(1).tells(&["offline"])),
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected());
    assert!(kills >= 3, "killed {kills} times only");
    let resumed = |request: &crate::hub_server::Request| request.storage && request.header("Range").is_some();
    assert!(server.requests().iter().any(resumed));
    let incomplete = home.path().join("hub/models--org--small/blobs");
    assert!(!fs::read_dir(incomplete).unwrap().flatten().any(|e| e.path().extension().is_some()));
}

#[test]
fn download_prints_where_the_checkpoint_is() {
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    let stdout = agnews()
        .env("HF_ENDPOINT", server.endpoint())
        .env("HF_HOME", home.path())
        .args(["-m", ID, "--download"])
        .run()
        .success()
        .stdout;
    let folder = stdout.lines().next().unwrap();
    assert!(Path::new(folder).join("model.safetensors").is_file(), "{stdout}");
}

#[test]
fn without_a_hub_the_error_names_both_alternatives_and_no_secret() {
    agnews()
        .args(["-v", TEXT])
        .env("HF_TOKEN", "hf_secret")
        .run()
        .code_is(1)
        .tells(&["textattack/bert-base-uncased-ag-news", "http://127.0.0.1:9", "-m builtin", "-m ./FOLDER"])
        .hides("hf_secret");
    let offline = ["not in the cache", "without --offline", "-m builtin", "-m ./FOLDER"];
    agnews().args(["--offline", TEXT]).run().code_is(1).tells(&offline);
    agnews().args(["--offline", "-v", TEXT]).run().code_is(1).tells(&offline);
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    server.require_token("hf_right");
    call(&server, home.path())
        .env("HF_TOKEN", "hf_secret")
        .arg("-v")
        .run()
        .code_is(1)
        .tells(&["refused the token"])
        .hides("hf_secret");
    call(&server, home.path()).env("HF_TOKEN", "hf_right").run().success().hides("hf_right").prints(&expected());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named() {
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    // A limit on file sizes simulates a full disk: writes fail in the same way.
    let (command, _kept) = call(&server, home.path()).into_command();
    let limit = |bytes: u32| {
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512)]);
        limited.arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            limited.env(name, value.unwrap_or_default());
        }
        limited.output().unwrap()
    };
    let output = limit(4 << 20);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot store model.safetensors") && stderr.contains("models--org--small"), "{stderr}");
    // With enough space it resumes.
    server.forget_requests();
    assert_eq!(call(&server, home.path()).quiet_success(), expected());
    let requests = server.requests();
    let range = requests.iter().find(|request| request.storage).unwrap().header("Range");
    assert_eq!(range, Some("bytes=4194304-"));
}

fn tls_server() -> HubServer {
    let server = HubServer::start_tls();
    server.commit(ID, "main", &embedded_model());
    server
}

/// The authority that signed the test server's certificate.
fn authority() -> PathBuf {
    fixture("hub/authority.pem")
}

#[test]
fn a_hub_with_its_own_authority_is_trusted_on_request() {
    let (server, home) = (tls_server(), tempfile::tempdir().unwrap());
    call(&server, home.path())
        .run()
        .code_is(1)
        .tells(&["the certificate of 127.0.0.1 is not trusted", "SSL_CERT_FILE"]);
    // Without any certificate of the system's, those of Mozilla's list are trusted, which does not have this one.
    let nothing = home.path().join("empty.pem");
    fs::write(&nothing, "").unwrap();
    for file in [nothing, home.path().join("missing.pem")] {
        let refused = call(&server, home.path()).env("SSL_CERT_FILE", file).run().code_is(1);
        refused.tells(&["the certificate of 127.0.0.1 is not trusted (", "Issuer"]);
    }
    assert_eq!(call(&server, home.path()).env("SSL_CERT_FILE", authority()).quiet_success(), expected());
    assert!(server.requests().iter().any(|request| request.storage));
}

#[test]
fn a_tls_proxy_leads_to_a_tls_hub() {
    let (server, home, proxy) = (tls_server(), tempfile::tempdir().unwrap(), HubProxy::start(true));
    proxy.rules.lock().unwrap().credentials = Some("user:p@ss");
    let through = |password: &str| {
        let url = format!("https://user:{password}@{}", proxy.authority());
        call(&server, home.path()).env("SSL_CERT_FILE", authority()).env("HTTPS_PROXY", url)
    };
    through("wrong").run().code_is(1).tells(&["rejected the credentials", "-m builtin"]).hides("wrong");
    assert_eq!(through("p%40ss").quiet_success(), expected());
    let asked = proxy.asked();
    assert!(asked.iter().any(|target| target.starts_with("localhost:")), "the storage, too: {asked:?}");
}

#[test]
fn an_endpoint_that_redirects_to_the_hub_keeps_private_models_readable() {
    let (server, proxy) = (tls_server(), HubProxy::start(false));
    server.require_token("hf_secret");
    for host in ["huggingface.co", "storage.test"] {
        proxy.route(&format!("{host}:443"), server.address);
    }
    let through = |moved_to: &str, home: &Path| {
        let endpoint = HubServer::start();
        endpoint.fault("", usize::MAX, Fault::Moved(moved_to.to_string()));
        call(&endpoint, home)
            .env("HF_TOKEN", "hf_secret")
            .env("SSL_CERT_FILE", authority())
            .env("HTTPS_PROXY", format!("http://{}", proxy.authority()))
    };
    let home = tempfile::tempdir().unwrap();
    assert_eq!(through("https://huggingface.co", home.path()).quiet_success(), expected());
    let with_token = |request: &crate::hub_server::Request| request.header("Authorization").is_some();
    assert!(server.requests().iter().all(|request| with_token(request) != request.storage));
    // No other host gets the token, nor does the Hub's name without TLS.
    server.forget_requests();
    let home = tempfile::tempdir().unwrap();
    through("https://storage.test", home.path()).run().code_is(1).tells(&["storage.test, to which the Hub at"]);
    assert_eq!(server.requests().len(), 1);
    assert!(!server.requests().iter().any(with_token));
    let plain = HubServer::start();
    proxy.route("huggingface.co:80", plain.address);
    let http_proxy = format!("http://{}", proxy.authority());
    through("http://huggingface.co", home.path())
        .env("HTTP_PROXY", http_proxy)
        .env("NO_PROXY", "127.0.0.1")
        .run()
        .code_is(1);
    assert_eq!(plain.requests().len(), 1);
    assert!(!plain.requests().iter().any(with_token));
}

/// A library that, when preloaded, makes a function of the C library fail with this error number: it simulates a file
/// system that lacks a feature. Programs for musl are static, so they preload nothing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn failing(folder: &Path, function: &str, parameters: &str, errno: i32) -> PathBuf {
    let (source, library) = (folder.join(format!("{function}.rs")), folder.join(format!("{function}.so")));
    let code = format!(
        "extern \"C\" {{ fn __errno_location() -> *mut i32; }}\n\
         #[no_mangle] pub unsafe extern \"C\" fn {function}({parameters}) -> i32 {{ *__errno_location() = {errno}; -1 }}"
    );
    fs::write(&source, code).unwrap();
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status =
        std::process::Command::new(compiler).args(["--crate-type", "cdylib", "-o"]).args([&library, &source]).status();
    assert!(status.unwrap().success());
    library
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn on_a_file_system_without_locks_many_processes_and_kills_do_no_harm() {
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    let shims = tempfile::tempdir().unwrap();
    let no_locks = failing(shims.path(), "flock", "_: i32, _: i32", 37);
    server.storage_fault(usize::MAX, Fault::Slow(1 << 18, Duration::from_millis(5)));
    let mut children: Vec<_> = (0..8)
        .map(|_| {
            let (mut command, kept) = call(&server, home.path()).env("LD_PRELOAD", &no_locks).into_command();
            (command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), kept)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(150));
    for (child, _kept) in &mut children[..4] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for (child, _kept) in children.drain(..).skip(4) {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected(), "{stderr}");
    }
    assert_eq!(call(&server, home.path()).arg("--offline").quiet_success(), expected());
    let verified = agnews().env("HF_HOME", home.path()).args(["-m", ID, "--offline", "--download"]);
    verified.run().success().tells(&["4 files", "verified"]);
    let storage = server.requests().iter().filter(|request| request.storage).count();
    assert!(storage > 1, "nobody was kept out: {storage}");
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn on_a_file_system_without_links_the_files_themselves_are_there() {
    let (server, home) = (server_of_the_embedded_model(), tempfile::tempdir().unwrap());
    let shims = tempfile::tempdir().unwrap();
    let parameters = "_: *const u8, _: *const u8";
    let no_links = failing(shims.path(), "symlink", parameters, 1);
    assert_eq!(call(&server, home.path()).env("LD_PRELOAD", &no_links).quiet_success(), expected());
    assert_eq!(call(&server, home.path()).arg("--offline").quiet_success(), expected());
    let blobs = home.path().join("hub/models--org--small/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0, "moved, as Python's client does");
    // Another error does not mean that links are unsupported: nothing is moved.
    let home = tempfile::tempdir().unwrap();
    let full = failing(shims.path(), "symlink", parameters, 28);
    call(&server, home.path()).env("LD_PRELOAD", &full).run().code_is(1).tells(&["the disk that holds", "is full"]);
    assert_eq!(fs::read_dir(home.path().join("hub/models--org--small/blobs")).unwrap().count(), 1);
}
