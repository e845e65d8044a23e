//! `--dtype cascade`: float32's labels at nearly int8's pace, what it does when int8 errs, and what it refuses.

use crate::harness::{agnews, builtin, fixture, Agnews, Outcome};
use crate::random::Random;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const WHO: [&str; 10] = [
    "The striker",
    "The minister",
    "The carmaker",
    "The telescope",
    "A chip maker",
    "The club",
    "The central bank",
    "The peace talks",
    "A search engine",
    "The rebel army",
];
const DID: [&str; 8] = ["won", "cut", "found", "scored", "sold", "resumed", "attacked", "raised"];
const WHAT: [&str; 10] = [
    "the derby",
    "interest rates",
    "water on a planet",
    "talks in Geneva",
    "shares in a rival",
    "two goals",
    "a virus in its software",
    "an oil field",
    "the election",
    "a record profit",
];

/// Sentences that mix subjects, so that the model is often in doubt; all different.
fn sentences(count: usize) -> String {
    let mut random = Random::new(11);
    let mut text = String::new();
    for number in 0..count {
        let mut pick = |words: &[&'static str]| *random.pick(words);
        let (who, did, what, also) = (pick(&WHO), pick(&DID), pick(&WHAT), pick(&WHAT));
        text.push_str(&match number % 3 {
            0 => format!("{who} {did} {what} on day {number}.\n"),
            1 => format!("{who} {did} {what} and {also}, {number} said.\n"),
            _ => format!("{number}: {also} after {} {did} {what}\n", who.to_lowercase()),
        });
    }
    text
}

/// A checkpoint whose int8 errs where its float32 does not: the word "rare" is far out in a dimension that no weight reads,
/// which leaves int8's grid no points for the dimensions that count. Texts are about a (words a0 to a9) or b (b0 to b9), the
/// larger the number, the more; "rare" is b.
fn checkpoint_that_int8_gets_wrong() -> tempfile::TempDir {
    const SIZE: usize = 8;
    /// What the embeddings' layer norm multiplies the dimension with that no weight reads.
    const FAR: f32 = 1000.0;
    let mut vocab: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rare"].map(String::from).to_vec();
    let mut words = vec![[0.0; SIZE]; 5];
    // All have the mean 0 and the same length, so the layer norm multiplies each with the same number.
    words.push([1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0, -1.0]);
    for class in [1, 2] {
        for strength in 0..10 {
            vocab.push(format!("{}{strength}", ["a", "b"][class - 1]));
            let share = 0.1 + 0.06 * strength as f32;
            let mut word = [0.0; SIZE];
            (word[class], word[class + 2]) = (share, -share);
            (word[5], word[6]) = ((2.0 - share * share).sqrt(), -(2.0 - share * share).sqrt());
            words.push(word);
        }
    }
    words[2..5].fill([0.0, 0.0, 0.0, 0.0, 0.0, 2.0f32.sqrt(), -(2.0f32.sqrt()), 0.0]);
    let zeros = vec![0.0; SIZE * SIZE];
    let ones = vec![1.0; SIZE];
    let diagonal = |of: &[usize], value: f32| {
        let mut matrix = zeros.clone();
        of.iter().for_each(|&i| matrix[i * SIZE + i] = value);
        matrix
    };
    let far: Vec<f32> = (0..SIZE).map(|i| if i == 0 { FAR } else { 1.0 }).collect();
    let identity = diagonal(&[1, 2, 3, 4, 5, 6, 7], 1.0);
    let mut classifier = vec![0.0; 2 * SIZE];
    (classifier[1], classifier[SIZE + 2]) = (4.0, 4.0);
    let square = [SIZE, SIZE];
    let layer = "bert.encoder.layer.0";
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = vec![
        ("bert.embeddings.word_embeddings.weight".into(), vec![words.len(), SIZE], words.concat()),
        ("bert.embeddings.position_embeddings.weight".into(), vec![64, SIZE], vec![0.0; 64 * SIZE]),
        ("bert.embeddings.token_type_embeddings.weight".into(), vec![2, SIZE], vec![0.0; 2 * SIZE]),
        ("bert.embeddings.LayerNorm.weight".into(), vec![SIZE], far),
        (format!("{layer}.attention.self.query.weight"), square.to_vec(), zeros.clone()),
        (format!("{layer}.attention.self.key.weight"), square.to_vec(), zeros.clone()),
        (format!("{layer}.attention.self.value.weight"), square.to_vec(), diagonal(&[1, 2], 4.0)),
        (format!("{layer}.attention.output.dense.weight"), square.to_vec(), identity.clone()),
        (format!("{layer}.attention.output.LayerNorm.weight"), vec![SIZE], ones.clone()),
        (format!("{layer}.intermediate.dense.weight"), square.to_vec(), zeros.clone()),
        (format!("{layer}.output.dense.weight"), square.to_vec(), zeros.clone()),
        (format!("{layer}.output.LayerNorm.weight"), vec![SIZE], ones),
        ("bert.pooler.dense.weight".into(), square.to_vec(), identity),
        ("classifier.weight".into(), vec![2, SIZE], classifier),
    ];
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), tensors);
    std::fs::write(folder.path().join("vocab.txt"), vocab.join("\n")).unwrap();
    let config = format!(
        r#"{{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": {}, "hidden_size": {SIZE},
        "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": {SIZE}, "hidden_act": "gelu",
        "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "id2label": {{"0": "a", "1": "b"}}}}"#,
        vocab.len()
    );
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

/// Writes the tensors, and a bias of 0 for each weight that has one.
fn save(folder: &Path, mut tensors: Vec<(String, Vec<usize>, Vec<f32>)>) {
    let biases: Vec<_> = tensors
        .iter()
        .filter(|(name, ..)| !name.ends_with("embeddings.weight"))
        .map(|(name, shape, _)| (name.replace(".weight", ".bias"), vec![shape[0]], vec![0.0; shape[0]]))
        .collect();
    tensors.extend(biases);
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views: HashMap<String, TensorView<'_>> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()))
        .collect();
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Texts of the checkpoint above: first some without the rare word, then some of class a but for the rare word.
fn texts_that_change(before: usize, after: usize) -> String {
    let mut random = Random::new(5);
    let mut text = String::new();
    for number in 0..before + after {
        let mut words = Vec::new();
        for _ in 0..6 + random.below(6) {
            let class = if number < before && random.below(2) == 0 { "b" } else { "a" };
            words.push(format!("{class}{}", random.below(10)));
        }
        if number >= before {
            words.extend(std::iter::repeat_n("rare".to_owned(), words.len()));
        }
        text.push_str(&(words.join(" ") + "\n"));
    }
    text
}

fn of(folder: &Path) -> Agnews {
    agnews().arg("-m").arg(folder)
}

fn with_dtype(call: Agnews, dtype: &str, texts: &str) -> Outcome {
    call.args(["--dtype", dtype]).stdin(texts).run().success()
}

/// The line about the cascade on standard error.
fn report(outcome: &Outcome) -> String {
    let line = outcome.stderr.lines().find(|line| line.starts_with("agnews: cascade: "));
    line.unwrap_or_else(|| panic!("no report in {:?}", outcome.stderr)).to_owned()
}

/// The number before `what` in a report.
fn number_before(report: &str, what: &str) -> u64 {
    let before = report.split(what).next().unwrap().split_whitespace().last();
    before.unwrap().parse().unwrap_or_else(|_| panic!("no number before {what:?} in {report}"))
}

#[test]
fn labels_are_float32s_where_int8s_are_not() {
    let tiny = fixture("tiny");
    for (checkpoint, count) in [(Path::new("builtin"), 3000), (&tiny, 2500)] {
        let texts = sentences(count);
        let labels = |dtype| with_dtype(of(checkpoint), dtype, &texts);
        let (exact, quick, cascade) = (labels("f32").stdout, labels("int8").stdout, labels("cascade"));
        let differ = exact.lines().zip(quick.lines()).filter(|(a, b)| a != b).count();
        assert!(differ > 0, "int8 alone gives float32's labels, so this proves nothing");
        assert!(cascade.stdout == exact, "{}", report(&cascade));
        let report = report(&cascade);
        assert!(report.contains(&format!(" of {count} texts ")) && report.contains(" 0 of "), "{report}");
        assert!(number_before(&report, " of their labels") > 0, "{report}");
        assert!(number_before(&report, " audited texts") > 0, "{report}");
    }
}

#[test]
fn few_texts_run_in_float32() {
    let texts = sentences(40).repeat(30);
    let outcome = with_dtype(builtin(), "cascade", &texts);
    assert!(
        report(&outcome).contains("too few different texts to know int8's errors: all 1200 labels"),
        "{}",
        report(&outcome)
    );
    assert_eq!(outcome.stdout, with_dtype(builtin(), "f32", &texts).stdout);
}

/// Texts whose int8 errs come after the bound was found. The audit finds one of them, tells, and from there on none is wrong.
#[test]
fn the_audit_finds_texts_that_int8_gets_wrong() {
    let folder = checkpoint_that_int8_gets_wrong();
    let texts = texts_that_change(1300, 1200);
    let labels = |dtype| with_dtype(of(folder.path()), dtype, &texts);
    let (exact, quick, cascade) = (labels("f32").stdout, labels("int8").stdout, labels("cascade"));
    let wrong = |labels: &str| -> Vec<usize> {
        let pairs = labels.lines().zip(exact.lines()).enumerate();
        pairs.filter(|(_, (label, exact))| label != exact).map(|(place, _)| place).collect()
    };
    assert!(wrong(&quick).iter().filter(|&&place| place >= 1300).count() == 1200, "int8 gets all of them wrong");
    let report = report(&cascade);
    assert!(number_before(&report, " audited texts") > 0, "{report}");
    assert!(report.contains(" 1 of ") && report.contains("expect that of"), "{report}");
    let wrong = wrong(&cascade.stdout);
    let found = wrong.len();
    assert!(found > 0 && found < 600, "{found} before the audit found one");
    assert_eq!(wrong, (1300..1300 + found).collect::<Vec<_>>(), "all before the audited text, none after it");
    // Even if notes are not wanted.
    let quiet = with_dtype(of(folder.path()).arg("--quiet"), "cascade", &texts);
    assert!(quiet.stderr.contains("audited texts differed"), "{}", quiet.stderr);
}

#[test]
fn neither_windows_nor_batches_nor_threads_matter() {
    let folder = checkpoint_that_int8_gets_wrong();
    let texts = texts_that_change(1300, 900) + &sentences(50);
    let expected = with_dtype(of(folder.path()), "cascade", &texts);
    for options in
        [&["--max-batch-tokens", "7"][..], &["--max-batch-tokens", "100000"], &["--threads", "1"], &["--threads", "5"]]
    {
        let outcome = with_dtype(of(folder.path()).args(options), "cascade", &texts);
        assert!(outcome.stdout == expected.stdout, "{options:?}");
        assert_eq!(report(&outcome), report(&expected), "{options:?}");
    }
    let file = folder.path().join("texts");
    std::fs::write(&file, &texts).unwrap();
    let parts: Vec<PathBuf> = texts
        .split_inclusive('\n')
        .collect::<Vec<_>>()
        .chunks(333)
        .map(|lines| lines.concat())
        .enumerate()
        .map(|(number, lines)| {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, lines).unwrap();
            path
        })
        .collect();
    for files in [vec![file], parts] {
        let outcome = with_dtype(of(folder.path()).arg("-f").args(&files), "cascade", "");
        assert!(outcome.stdout == expected.stdout && report(&outcome) == report(&expected));
    }
}

/// Interrupted while there is no bound yet, just after that, and long after; and in the middle of a window.
#[test]
fn a_resumed_run_gives_the_same_bytes() {
    let folder = checkpoint_that_int8_gets_wrong();
    let texts: Vec<String> = texts_that_change(1300, 900).lines().map(str::to_owned).collect();
    let path = |name: &str| folder.path().join(name);
    let (first, second, out) = (path("first.csv"), path("second.csv"), path("out.csv"));
    let call = || {
        let call = of(folder.path()).args(["--dtype", "cascade", "--keep", "--text-field", "text", "-f"]);
        call.arg(&first).arg(&second).arg("-o").arg(&out)
    };
    for at in [100, 1100, 1290, 2000] {
        let write = |path: &Path, header: &str, texts: &[String]| {
            std::fs::write(path, format!("{header}\n{}\n", texts.join("\n"))).unwrap();
        };
        write(&first, "text", &texts[..at]);
        write(&second, "text", &texts[at..]);
        let expected = call().run().success();
        let bytes = std::fs::read_to_string(&out).unwrap();
        assert!(bytes.starts_with("text,label_id,label\n") && bytes.lines().count() == texts.len() + 1, "{at}");
        std::fs::remove_file(&out).unwrap();
        for in_the_middle_of_a_window in [false, true] {
            match in_the_middle_of_a_window {
                // Another column: the records of the first file are written, those of the second are not.
                true => {
                    write(&second, "text,id", &texts[at..].iter().map(|text| format!("{text},1")).collect::<Vec<_>>())
                }
                false => std::fs::remove_file(&second).unwrap(),
            }
            call().run().code_is(1).tells(&["second.csv"]);
            write(&second, "text", &texts[at..]);
            let resumed = call().arg("--resume").run().success();
            assert!(std::fs::read_to_string(&out).unwrap() == bytes, "{at}, {in_the_middle_of_a_window}");
            assert_eq!(report(&resumed), report(&expected), "{at}, {in_the_middle_of_a_window}");
            std::fs::remove_file(&out).unwrap();
        }
    }
}

#[test]
fn another_arithmetic_does_not_resume_it() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, missing, out) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("out"));
    std::fs::write(&lines, sentences(3)).unwrap();
    let call = |dtype| builtin().args(["--dtype", dtype, "-f"]).arg(&lines).arg(&missing).arg("-o").arg(&out);
    call("cascade").run().code_is(1);
    call("f32").arg("--resume").run().code_is(1).tells(&["the arithmetic was", "in int8, and in"]);
}

#[test]
fn records_have_no_scores() {
    let call = || builtin().args(["--dtype", "cascade", "--quiet", "The striker scored twice in the derby.", ""]);
    assert_eq!(call().quiet_success(), "1\tSports\n\t\n");
    assert_eq!(call().args(["--format", "csv"]).quiet_success(), "label_id,label\n1,Sports\n,\n");
    let expected = "{\"label_id\":1,\"label\":\"Sports\"}\n{\"label_id\":null,\"label\":null}\n";
    assert_eq!(call().args(["--format", "jsonl"]).quiet_success(), expected);
}

#[test]
fn what_needs_scores_or_several_passes_is_refused() {
    for (options, named) in [
        (&["--scores"][..], "--scores"),
        (&["-k", "2"], "--top-k"),
        (&["--min-score", "0.5"], "--min-score"),
        (&["--threshold", "0.5"], "--threshold"),
        (&["--score-function", "none"], "--score-function"),
        (&["--calibration", "calibration.json"], "--calibration"),
        (&["--zero-shot", "a,b"], "--zero-shot"),
        (&["--long-text", "mean"], "--long-text"),
        (&["--windows"], "--windows"),
        (&["--explain"], "--explain"),
        (&["--input-format", "csv", "--label-field", "gold"], "--label-field"),
    ] {
        builtin().args(["--dtype", "cascade"]).args(options).run().code_is(2).tells(&[named, "use another --dtype"]);
    }
}

#[test]
fn only_the_cpu_kernels_have_both_arithmetics() {
    let candle = builtin().args(["--dtype", "cascade", "a"]).env("AGNEWS_CPU", "candle").run().code_is(1);
    candle.tells(&["a cascade needs the CPU kernels", "candle on the CPU in f32", "--device cpu"]);
}

#[test]
fn the_arithmetic_is_told() {
    let info = builtin().args(["--dtype", "cascade", "--info"]).quiet_success();
    assert!(info.contains("kernels in int8, and in "), "{info}");
}
