//! The real program against a Hub: the embedded model's files as a repository, fetched by processes that are
//! many, that are killed, or that find nothing.

use crate::harness::{agnews, builtin, Agnews};
use crate::hub_server::{Fault, HubServer};
use std::fs;
use std::path::Path;
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

fn server() -> HubServer {
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
fn a_model_from_the_hub_answers_as_the_same_model_embedded() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    assert_eq!(call(&server, home.path()).quiet_success(), expected());
    server.forget_requests();
    assert_eq!(call(&server, home.path()).quiet_success(), expected());
    assert_eq!(call(&server, home.path()).arg("--offline").quiet_success(), expected());
    assert_eq!(call(&server, home.path()).env("HF_HUB_OFFLINE", "1").quiet_success(), expected());
    assert!(server.requests().is_empty());
}

#[test]
fn eight_processes_at_once_give_eight_answers_and_download_once() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
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
fn killed_again_and_again_it_goes_on_from_where_it_was() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    server.storage_fault(usize::MAX, Fault::Slow(1 << 18, Duration::from_millis(10)));
    let mut kills = 0;
    let output = loop {
        let (mut command, _kept) = call(&server, home.path()).into_command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Longer and longer lives, so that every phase is hit and the end is reached on a slow machine, too.
        std::thread::sleep(Duration::from_millis(20 + 15 * kills));
        match child.try_wait().unwrap() {
            Some(_) => break child.wait_with_output().unwrap(),
            None => child.kill().unwrap(),
        }
        child.wait().unwrap();
        kills += 1;
        // At any moment the cache is either whole or known not to be.
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
fn download_tells_where_the_checkpoint_lies() {
    let (server, home) = (server(), tempfile::tempdir().unwrap());
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
fn without_a_hub_the_error_names_both_ways_on_and_no_secret() {
    agnews()
        .args(["-v", TEXT])
        .env("HF_TOKEN", "hf_secret")
        .run()
        .code_is(1)
        .tells(&["textattack/bert-base-uncased-ag-news", "http://127.0.0.1:9", "-m builtin", "-m ./FOLDER"])
        .hides("hf_secret");
    agnews().args(["--offline", TEXT]).run().code_is(1).tells(&["not in the cache", "without --offline", "-m builtin"]);
    let (server, home) = (server(), tempfile::tempdir().unwrap());
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
    let (server, home) = (server(), tempfile::tempdir().unwrap());
    // A limit on the size of files stands in for a full disk: the kernel's answer to a write comes the same way.
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
    // With room enough it goes on from what is there.
    server.forget_requests();
    assert_eq!(call(&server, home.path()).quiet_success(), expected());
    let requests = server.requests();
    let range = requests.iter().find(|request| request.storage).unwrap().header("Range");
    assert_eq!(range, Some("bytes=4194304-"));
}
