//! Compares the token ids of every kind of tokenizer to references: small ones in `fixtures/tokenizers`, and whole
//! checkpoints in the folders below `AGNEWS_FAMILIES`, if set.

use crate::harness::fixture;
use agnews::checkpoint::files::CheckpointFiles;
use agnews::tokenization::windows::{TextWindow, MAX_UNCUT_BYTES};
use agnews::tokenization::{Encoding, ModelInputs, Tokenization};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folders in `parent` that have references, sorted.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("reference.jsonl").is_file());
    folders.sort();
    folders
}

fn load_as(folder: &Path, max_length: Option<usize>) -> anyhow::Result<Tokenization> {
    load(folder, 8192, max_length)
}

fn load(folder: &Path, longest: usize, max_length: Option<usize>) -> anyhow::Result<Tokenization> {
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let inputs = ModelInputs {
        model_type: config["model_type"].as_str().unwrap(),
        vocab_size: config["vocab_size"].as_u64().unwrap() as usize,
        max_length: longest,
    };
    Tokenization::load(&CheckpointFiles::Folder(folder.to_owned()), &inputs, max_length)
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().into_iter().flatten().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The field of a reference, or, if the tokenizer file's own library gives another value, that value.
fn expected(reference: &Value, name: &str) -> Vec<u32> {
    let native = &reference[format!("native_{name}")];
    let ids = ids(if native.is_null() { &reference[name] } else { native });
    // Token types that are all zero are left out.
    if name == "token_type_ids" && ids.iter().all(|&id| id == 0) {
        return Vec::new();
    }
    ids
}

fn encode(tokenization: &Tokenization, reference: &Value) -> Encoding {
    let text = reference["text"].as_str().unwrap();
    match reference["text_pair"].as_str() {
        Some(text_pair) => tokenization.encode_pair(text, text_pair).unwrap(),
        None => tokenization.encode(text).unwrap(),
    }
}

/// The lines of a JSON Lines file. A text may contain Unicode line separators, so only line feeds end a line.
fn lines(path: &Path) -> Vec<Value> {
    let content = std::fs::read_to_string(path).unwrap();
    content.split('\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The references of a folder: with their own texts, or one for each text of the shared file.
fn references(folder: &Path) -> Vec<Value> {
    let mut references = lines(&folder.join("reference.jsonl"));
    if references[0]["text"].is_null() {
        let texts = lines(&folder.with_file_name("texts.jsonl"));
        assert_eq!(texts.len(), references.len());
        for (reference, text) in references.iter_mut().zip(texts) {
            reference.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
        }
    }
    references
}

/// The references of a folder, and one line for each text whose ids or token types differ.
fn compare(folder: &Path) -> (usize, Vec<String>) {
    let references = references(folder);
    let mut differences = Vec::new();
    for reference in &references {
        let max_length = reference["max_length"].as_u64().map(|length| length as usize);
        let tokenization =
            load_as(folder, max_length).unwrap_or_else(|error| panic!("{}: {error:#}", folder.display()));
        let encoding = encode(&tokenization, reference);
        let wanted = expected(reference, "input_ids");
        if encoding.input_ids != wanted {
            let at = encoding.input_ids.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
            differences.push(format!("{:?}: ids differ from {at} of {}", reference["text"], wanted.len()));
            differences.push(format!("  got    {:?}", &encoding.input_ids[at..encoding.input_ids.len().min(at + 12)]));
            differences.push(format!("  wanted {:?}", &wanted[at..wanted.len().min(at + 12)]));
        } else if reference.get("native_input_ids").is_some() == reference.get("native_token_type_ids").is_some()
            && encoding.token_type_ids != expected(reference, "token_type_ids")
        {
            differences.push(format!("{:?}: token types differ", reference["text"]));
        }
    }
    (references.len(), differences)
}

#[test]
fn ids_of_every_kind_equal_their_own_librarys() {
    let folders = folders(&fixture("tokenizers"));
    assert!(folders.len() >= 16, "{folders:?}");
    for folder in folders {
        let (count, differences) = compare(&folder);
        assert!(count >= 40 && differences.is_empty(), "{}:\n{}", folder.display(), differences.join("\n"));
    }
}

/// `AGNEWS_FAMILIES` names a folder of checkpoints, each with a `reference.jsonl` of `text`, optionally `text_pair`,
/// `input_ids`, `token_type_ids`, and `native_…` of both if the tokenizer's own library differs from transformers.
#[test]
fn ids_of_whole_families_equal_their_references() {
    let Some(parent) = std::env::var_os("AGNEWS_FAMILIES") else {
        eprintln!("AGNEWS_FAMILIES is not set: no checkpoints of whole families are compared");
        return;
    };
    let mut faults = Vec::new();
    for folder in folders(Path::new(&parent)) {
        let (count, differences) = compare(&folder);
        eprintln!("{}: {count} texts, {} lines on differences", folder.display(), differences.len());
        faults.extend(differences.into_iter().map(|difference| format!("{}: {difference}", folder.display())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The shortcut for long texts must not change a single id, and must be used.
#[test]
fn the_start_of_a_long_text_gives_the_ids_of_the_whole() {
    let seeds = [
        "a1 ",
        "x",
        "é ",
        "東",
        "<mask>",
        "- ",
        "\u{0}",
        "!",
        " ",
        "[SEP",
        "new_word ",
        "\u{301}",
        "q\u{0}",
        "The ferry",
    ];
    for folder in folders(&fixture("tokenizers")) {
        let short = load_as(&folder, Some(40)).unwrap();
        let whole = load(&folder, 1 << 24, Some(1 << 24)).unwrap();
        let from_left = folder.ends_with("distilbert-left");
        for (i, first) in seeds.iter().enumerate() {
            for second in &seeds[i..] {
                let text = format!("{}{}", first.repeat(500), second.repeat(500));
                let (kept, ids) = (short.encode(&text).unwrap().input_ids, whole.encode(&text).unwrap().input_ids);
                let (kept, ids) = (&kept[1..kept.len() - 1], &ids[1..ids.len() - 1]);
                let same = if from_left { ids.ends_with(kept) } else { ids.starts_with(kept) };
                assert!(same && kept.len() == ids.len().min(38), "{}: {first:?} then {second:?}", folder.display());
            }
        }
    }
}

#[test]
fn the_length_of_a_text_does_not_change_its_first_tokens() {
    let sentence = "The ferry leaves the harbour at noon. ";
    for folder in folders(&fixture("tokenizers")).into_iter().filter(|folder| !folder.ends_with("distilbert-left")) {
        let tokenization = load_as(&folder, Some(64)).unwrap();
        let [long, short] = [100_000, 100].map(|count| tokenization.encode(&sentence.repeat(count)).unwrap());
        assert!(long.truncated && long.input_ids.len() == 64);
        assert_eq!(long, short, "{}", folder.display());
    }
}

/// A copy of a fixture with one file changed, or removed if `content` is `None`.
fn changed(name: &str, file: &str, content: Option<&[u8]>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("tokenizers").join(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    match content {
        Some(content) => std::fs::write(folder.path().join(file), content).unwrap(),
        None => std::fs::remove_file(folder.path().join(file)).unwrap(),
    }
    folder
}

fn fault(name: &str, file: &str, content: Option<&[u8]>) -> String {
    match load_as(changed(name, file, content).path(), None) {
        Ok(_) => panic!("{name} with another {file} is taken"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn faults_name_the_file_and_the_field() {
    let config = "tokenizer_config.json";
    for (name, file, content, reasons) in [
        ("roberta", "merges.txt", None, &["merges.txt", "no tokenizer"][..]),
        ("roberta", "merges.txt", Some(&b"#version\nqq zz\n"[..]), &["merges.txt", "line 2", "\"qq\""]),
        ("roberta", "vocab.json", Some(b"{\"a\": 0"), &["vocab.json"]),
        ("roberta", config, Some(b"{\"add_prefix_space\": 1}"), &[config, "add_prefix_space"]),
        (
            "roberta-added",
            "added_tokens.json",
            Some(b"{\"new_word\": 9}"),
            &["added_tokens.json", "new_word", "the id 9"],
        ),
        ("roberta-added", "added_tokens.json", Some(b"[]"), &["added_tokens.json"]),
        ("bert", config, Some(b"{\"do_basic_tokenize\": false}"), &[config, "do_basic_tokenize"]),
        ("bert", config, Some(b"{\"do_lower_case\": 2}"), &[config, "do_lower_case is 2"]),
        ("bert", config, Some(b"{\"truncation_side\": \"up\"}"), &[config, "truncation_side"]),
        ("bert", config, Some(b"{\"tokenizer_class\": \"XLNetTokenizer\"}"), &["tokenizer_class XLNetTokenizer"]),
        ("bert", config, Some(b"{\"tokenizer_class\": \"RobertaTokenizer\"}"), &["vocab.json with merges.txt"]),
        ("deberta-v2", config, Some(b"{\"split_by_punct\": true}"), &[config, "split_by_punct"]),
        ("deberta-v2", "spm.model", Some(b"not a model"), &["spm.model"]),
        ("deberta-v2", "spm.model", Some(b""), &["spm.model", "UNKNOWN"]),
        ("deberta-v2", "spm.model", Some(b"\x12\x02\x18\x02"), &["spm.model", "model_type is 2 (BPE)"]),
        ("deberta-v2", "spm.model", None, &["spm.model"]),
        ("bert", "vocab.txt", Some(b"[UNK]\n[CLS]\n"), &["vocab.txt", "[SEP]"]),
        ("unigram-json", "tokenizer.json", Some(b"{}"), &["tokenizer.json"]),
    ] {
        let fault = fault(name, file, content);
        assert!(reasons.iter().all(|reason| fault.contains(reason)), "{name}, {file}: {fault}");
    }
}

#[test]
fn a_damaged_character_map_is_found_before_it_is_used() {
    let path = fixture("tokenizers").join("unigram-json/tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for map in ["", "//////////8=", "AAQAAA==", "#"] {
        json["normalizer"]["normalizers"][0]["precompiled_charsmap"] = map.into();
        let fault = fault("unigram-json", "tokenizer.json", Some(json.to_string().as_bytes()));
        assert!(fault.contains("tokenizer.json") && fault.contains("precompiled_charsmap"), "{fault}");
    }
}

/// The class takes precedence over the model's type, which takes precedence over the files.
#[test]
fn the_tokenizer_follows_the_class_or_the_model_type_or_the_files() {
    let ids = |model_type: &str, tokenizer_config: &str| {
        let folder = changed("camembert", "tokenizer_config.json", Some(tokenizer_config.as_bytes()));
        let inputs = ModelInputs { model_type, vocab_size: 1000, max_length: 64 };
        let files = CheckpointFiles::Folder(folder.path().to_owned());
        Tokenization::load(&files, &inputs, None).unwrap().encode("").unwrap().input_ids
    };
    assert_eq!(ids("camembert", "{}"), [5, 6]);
    assert_eq!(ids("camembert", r#"{"tokenizer_class": "XLMRobertaTokenizerFast"}"#), [0, 2]);
    assert_eq!(ids("camembert", r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#), [5, 6]);
    assert_eq!(ids("bert-of-my-own", "{}"), [0, 2]);
}

#[test]
fn token_types_are_left_out_for_a_model_that_takes_none() {
    let types = |tokenizer_config: &str| {
        let folder = changed("bert", "tokenizer_config.json", Some(tokenizer_config.as_bytes()));
        load_as(folder.path(), None).unwrap().encode_pair("The ferry", "leaves").unwrap().token_type_ids
    };
    assert_eq!(types("{}").first(), Some(&0));
    assert_eq!(types("{}").last(), Some(&1));
    assert!(types(r#"{"model_input_names": ["input_ids", "attention_mask"]}"#).is_empty());
}

#[test]
fn a_pair_needs_room_besides_its_special_tokens() {
    let tokenization = load_as(&fixture("tokenizers").join("roberta"), Some(4)).unwrap();
    let error = tokenization.encode_pair("a", "b").unwrap_err().to_string();
    assert!(error.contains("no room") && error.contains("4 special tokens"), "{error}");
    assert_eq!(tokenization.encode("The ferry leaves").unwrap().input_ids.len(), 4);
}

/// Windows of long texts, alone and before a second text, with the characters that each covers.
#[test]
fn windows_are_those_of_transformers() {
    let mut compared = 0;
    for folder in folders(&fixture("tokenizers")) {
        let path = folder.join("windows.jsonl");
        if !path.is_file() {
            continue;
        }
        for reference in lines(&path) {
            let number = |name: &str| reference[name].as_u64().unwrap() as usize;
            let tokenization = load_as(&folder, Some(number("max_length"))).unwrap();
            let frame = tokenization.frame_of(reference["text_pair"].as_str()).unwrap();
            let room = tokenization.window_room(std::slice::from_ref(&frame), number("stride")).unwrap();
            let text = reference["text"].as_str().unwrap();
            let windows: Vec<TextWindow> =
                tokenization.windows(text, room, number("stride")).collect::<Result<_, _>>().unwrap();
            let wanted = reference["windows"].as_array().unwrap();
            let at = format!("{}, {} with {}", folder.display(), number("max_length"), number("stride"));
            assert_eq!(windows.len(), wanted.len(), "{at}");
            for (window, wanted) in windows.iter().zip(wanted) {
                let encoding = frame.encode(&window.token_ids);
                assert_eq!(encoding.input_ids, ids(&wanted["input_ids"]), "{at}");
                assert_eq!(encoding.token_type_ids, expected(wanted, "token_type_ids"), "{at}");
                // Whether a token has the space before it differs between tokenizers, and in transformers by their versions.
                let chars = &window.range.chars;
                let range = ids(&wanted["range"]);
                let part = |start: usize, end: usize| text.chars().skip(start).take(end - start).collect::<String>();
                let theirs = part(range[0] as usize, range[1] as usize);
                assert_eq!(part(chars.start, chars.end), theirs.trim(), "{at}: {text:?}");
                assert_eq!(chars.start, range[1] as usize - theirs.trim_start().chars().count(), "{at}: {text:?}");
                assert_eq!(text[window.range.bytes.clone()], *theirs.trim(), "{at}");
            }
            assert!(windows.last().unwrap().is_last && windows.iter().filter(|window| window.is_last).count() == 1);
            compared += 1;
        }
    }
    assert!(compared >= 100, "{compared} windowings compared");
}

#[test]
fn windows_must_move_forward() {
    let tokenization = load_as(&fixture("tokenizers").join("bert"), Some(20)).unwrap();
    let frame = [tokenization.frame_of(None).unwrap()];
    assert_eq!(tokenization.window_room(&frame, 17).unwrap(), 18);
    let error = tokenization.window_room(&frame, 18).unwrap_err().to_string();
    assert!(error.contains("overlap by 18") && error.contains("smaller than the 18"), "{error}");
}

#[test]
fn a_text_that_can_be_cut_nowhere_is_refused() {
    let tokenization = load_as(&fixture("tokenizers").join("bert"), Some(20)).unwrap();
    assert_eq!(tokenization.refuses_windows(&"The ferry leaves. ".repeat(400_000)), None);
    assert_eq!(tokenization.refuses_windows(&"\u{304c}".repeat(MAX_UNCUT_BYTES / 3)), None);
    let text = format!("The ferry leaves {}", "\u{304c}".repeat(MAX_UNCUT_BYTES / 3));
    let reason = tokenization.refuses_windows(&text).unwrap();
    assert!(reason.contains("from byte 9 on") && reason.contains("2097152"), "{reason}");
    let error = tokenization.windows(&text, 18, 0).last().unwrap().unwrap_err().to_string();
    assert!(error.contains("2097152"), "{error}");
}
