//! Explanations against their definition: each variant of a text is written out, and classified alone.

use crate::harness::builtin;
use agnews::checkpoint::config::ScoreFunction;
use agnews::checkpoint::hub::{Hub, HubOptions};
use agnews::checkpoint::{Checkpoint, CheckpointSpec};
use agnews::classifier::{Classifier, ClassifierOptions, LongText, LongTextOptions};
use agnews::explanation::{Explanation, Span};
use agnews::kernels::Level;
use agnews::tokenization::TextOrPair;
use serde_json::Value;

/// What a value may be off by: a rounding of float32, or with the portable kernels, whose sums depend on the batch, a few.
fn tolerance() -> f64 {
    if Level::detect() == Level::Portable {
        1e-4
    } else {
        1e-6
    }
}

fn load(options: ClassifierOptions) -> Classifier {
    let hub = Hub::new(HubOptions::from_env(&|_| None, true), &());
    Classifier::load(&Checkpoint::open(&CheckpointSpec::Builtin, &hub).unwrap(), &options).unwrap()
}

fn log_odds(logits: &[f32], label_id: usize) -> f64 {
    let exps: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
    let others: f64 = exps.iter().enumerate().filter(|(id, _)| *id != label_id).map(|(_, exp)| exp).sum();
    (exps[label_id] / others).ln()
}

/// The log odds of a text that is classified alone.
fn alone(classifier: &Classifier, text: &str, label_id: usize) -> f64 {
    let encodings = classifier.encode(&[text]).unwrap();
    log_odds(&classifier.logits(&encodings).unwrap()[0], label_id)
}

fn explain(classifier: &Classifier, texts: &[(&str, Vec<usize>)]) -> Vec<Vec<Explanation>> {
    classifier.explain(texts, &|_| {}).unwrap().explanations
}

/// Texts with their words, and what is left without each.
const CASES: [(&str, &[(&str, &str)]); 5] = [
    (
        "Shares of the club fell 9.5%, again!",
        &[
            ("Shares", "of the club fell 9.5%, again!"),
            ("of", "Shares the club fell 9.5%, again!"),
            ("the", "Shares of club fell 9.5%, again!"),
            ("club", "Shares of the fell 9.5%, again!"),
            ("fell", "Shares of the club 9.5%, again!"),
            ("9.5", "Shares of the club fell %, again!"),
            ("%", "Shares of the club fell 9.5, again!"),
            (",", "Shares of the club fell 9.5% again!"),
            ("again", "Shares of the club fell 9.5%, !"),
            ("!", "Shares of the club fell 9.5%, again"),
        ],
    ),
    (
        "Cafe\u{301}s won\r\n\u{a0}the cup",
        &[
            ("Cafe\u{301}s", "won\r\n\u{a0}the cup"),
            ("won", "Cafe\u{301}s\r\n\u{a0}the cup"),
            ("the", "Cafe\u{301}s won cup"),
            ("cup", "Cafe\u{301}s won\r\n\u{a0}the"),
        ],
    ),
    (
        "東京 👩‍🚀🇨🇭 wins",
        &[
            ("東", "京 👩‍🚀🇨🇭 wins"),
            ("京", "東 👩‍🚀🇨🇭 wins"),
            ("👩‍🚀", "東京 🇨🇭 wins"),
            ("🇨🇭", "東京 👩‍🚀 wins"),
            ("wins", "東京 👩‍🚀🇨🇭"),
        ],
    ),
    ("Derby", &[("Derby", "")]),
    (" a  b ", &[("a", " b "), ("b", " a ")]),
];

#[test]
fn a_value_is_what_the_log_odds_lose_without_the_word() {
    let classifier = load(ClassifierOptions::default());
    // All texts together, each with two labels, and one with none.
    let mut texts: Vec<(&str, Vec<usize>)> = CASES.iter().map(|(text, _)| (*text, vec![1, 2])).collect();
    texts.push(("nothing to explain", Vec::new()));
    let explanations = explain(&classifier, &texts);
    assert_eq!(explanations.last(), Some(&Vec::new()));
    for ((text, variants), explanations) in CASES.iter().zip(&explanations) {
        let characters: Vec<char> = text.chars().collect();
        assert_eq!(explanations.iter().map(|one| one.label_id).collect::<Vec<_>>(), [1, 2]);
        for Explanation { label_id, spans } in explanations {
            assert_eq!(spans.len(), variants.len(), "{text:?}: {spans:?}");
            let whole = alone(&classifier, text, *label_id);
            for (Span { range, value }, (word, variant)) in spans.iter().zip(*variants) {
                assert_eq!(&text[range.bytes.clone()], *word);
                assert_eq!(characters[range.chars.clone()].iter().collect::<String>(), *word, "{text:?}");
                let expected = whole - alone(&classifier, variant, *label_id);
                let off = (f64::from(*value) - expected).abs();
                assert!(off <= tolerance() * expected.abs().max(1.0), "{variant:?}: {value}, expected {expected}");
            }
        }
    }
}

/// 195 words, of which few matter.
fn long_text() -> String {
    let mut parts = ["and then they went there"; 39];
    parts[20] = "and the striker scored twice";
    parts.join(" ")
}

#[test]
fn spans_of_a_long_text_have_their_exact_values_and_the_strongest_are_words() {
    let text = long_text();
    let classifier = load(ClassifierOptions { max_length: Some(256), ..Default::default() });
    let explained = classifier.explain(&[(&text, vec![1])], &|_| {}).unwrap();
    let spans = &explained.explanations[0][0].spans;
    // The text, 64 spans, and 16 of them in halves twice at most: fewer than words.
    assert!(explained.variants <= 1 + 64 + 2 * 32 && spans.len() < 195, "{} of {}", explained.variants, spans.len());
    let covered: Vec<&str> = spans.iter().map(|span| &text[span.range.bytes.clone()]).collect();
    assert_eq!(covered.join(" "), text, "all of the text, once");
    let whole = alone(&classifier, &text, 1);
    for (at, span) in spans.iter().enumerate().step_by(5) {
        let rest = [&covered[..at], &covered[at + 1..]].concat().join(" ");
        let expected = whole - alone(&classifier, &rest, 1);
        assert!(
            (f64::from(span.value) - expected).abs() <= tolerance() * expected.abs().max(1.0),
            "{span:?} {expected}"
        );
    }
    let strongest = explained.explanations[0][0].by_strength()[0];
    assert_eq!(&text[strongest.range.bytes.clone()], "striker");
}

#[test]
fn a_long_text_is_explained_as_it_is_classified() {
    let text = "The striker scored twice, and the crowd sang. Shares of the club fell nine percent.";
    for how in [LongText::Truncate, LongText::Mean, LongText::Max] {
        let options = |score_function| ClassifierOptions {
            max_length: Some(10),
            long_text: LongTextOptions { how, stride: 0 },
            score_function,
            ..Default::default()
        };
        let logits_of = load(options(Some(ScoreFunction::Raw)));
        let logits = |text: &str| {
            let prediction = logits_of.predict(&[TextOrPair::Text(text)], &|_| {}).unwrap().remove(0);
            let mut logits = vec![0.0; 4];
            prediction.ranking.iter().for_each(|scored| logits[scored.label_id] = scored.score);
            logits
        };
        let explanations = explain(&load(options(None)), &[(text, vec![2])]);
        let spans = &explanations[0][0].spans;
        let whole = log_odds(&logits(text), 2);
        for span in spans {
            let bytes = span.range.bytes.clone();
            let mut rest = format!("{}{}", text[..bytes.start].trim_end(), &text[bytes.end..]);
            if bytes.start == 0 || !(text[bytes.end..].is_empty() || text[bytes.end..].starts_with(' ')) {
                rest = format!("{}{}", &text[..bytes.start], &text[bytes.end..]).trim_start().to_owned();
            }
            let expected = whole - log_odds(&logits(&rest), 2);
            assert!(
                (f64::from(span.value) - expected).abs() <= tolerance() * expected.abs().max(1.0),
                "{how:?} {span:?}"
            );
        }
        let last = spans.last().unwrap();
        match how {
            LongText::Truncate => assert!(spans.len() == 10 && last.value == 0.0, "what is not read has no value"),
            _ => assert!(spans.len() == 18 && last.range.bytes.end == text.len(), "{how:?} {spans:?}"),
        }
    }
}

fn records(args: &[&str]) -> Vec<Value> {
    let stdout = builtin().args(["--format", "jsonl", "--quiet"]).args(args).run().success().stdout;
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const TEXT: &str = "The striker scored twice, it’s a 東 derby";

#[test]
fn json_has_words_with_code_point_ranges_and_the_strongest_if_asked_for() {
    let all = &records(&["--explain", TEXT])[0];
    let words = all["words"].as_array().unwrap();
    let characters: Vec<char> = TEXT.chars().collect();
    for word in words {
        let place = |name: &str| word[name].as_u64().unwrap() as usize;
        assert_eq!(characters[place("start")..place("end")].iter().collect::<String>(), word["text"]);
    }
    let texts: Vec<&str> = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["The", "striker", "scored", "twice", ",", "it’s", "a", "東", "derby"]);
    let value = |word: &Value| word["value"].as_f64().unwrap();
    let mut strongest = words.clone();
    strongest.sort_by(|a, b| value(b).abs().total_cmp(&value(a).abs()));
    let few = &records(&["--explain=3", TEXT])[0];
    assert_eq!(few["words"].as_array().unwrap(), &strongest[..3]);
    assert_eq!((&few["label"], &few["score"]), (&all["label"], &all["score"]));
    // The words are the same whatever else is in the batch, and texts without a label have none.
    let both = records(&["--explain=3", "--min-score", "0.5", "", TEXT, "the"]);
    assert_eq!((&both[0]["words"], &both[1]["words"]), (&Value::Null, &few["words"]));
    assert_eq!((&both[2]["label_id"], &both[2]["words"]), (&Value::Null, &Value::Null));
}

#[test]
fn tables_list_the_words() {
    let tsv = builtin().args(["--explain=2", "--with-text", "Derby won", ""]).quiet_success();
    let lines: Vec<Vec<&str>> = tsv.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[1], ["", "", "", ""]);
    assert_eq!((lines[0].len(), lines[0][3]), (4, "Derby won"));
    let (word, value) = lines[0][2].split_once(' ').unwrap().0.split_once(':').unwrap();
    assert!(word == "Derby" && value.parse::<f64>().unwrap() > 0.5, "{tsv}");
    let csv = builtin().args(["--explain", "--format", "csv", "-n", "Derby won"]).quiet_success();
    assert_eq!(csv.lines().next(), Some("line,label_id,label,score,words"));
}

#[test]
fn a_page_is_written_whole_and_continued_where_it_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let texts = "The striker scored <twice> & won.\n\nShares fell.\n";
    std::fs::write(path("a.txt"), texts).unwrap();
    let run = |output: &str, resume: &[&str]| {
        let page = builtin().args(["--explain", "-n", "-o"]).arg(path(output)).args(resume);
        page.arg("-f").arg(path("a.txt")).arg(path("b.txt"))
    };
    run("why.html", &[]).run().code_is(1).tells(&["b.txt", "--resume"]);
    assert!(!path("why.html").exists());
    std::fs::write(path("b.txt"), "Peace talks resumed.\n").unwrap();
    run("why.html", &["--resume"]).quiet_success();
    run("whole.html", &[]).quiet_success();
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    let articles = |page: &str| page.lines().filter(|line| line.starts_with("<article>")).map(String::from).collect();
    let articles: [Vec<String>; 2] = [articles(&read("why.html")), articles(&read("whole.html"))];
    assert_eq!(articles[0], articles[1]);
    assert_eq!(articles[0].len(), 4);
    let page = read("why.html");
    let xml = page.replace("\"utf-8\">", "\"utf-8\"/>").replace("initial-scale=1\">", "initial-scale=1\"/>");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&xml, options).unwrap();
    let marks = document.descendants().filter(|node| node.has_tag_name("mark"));
    assert!(marks.filter(|mark| mark.text() == Some("striker")).count() == 1, "{page}");
    for loaded in ["src=", "href=", "<script", "url("] {
        assert!(!page.contains(loaded), "{loaded}\n{page}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, part) in [
        (&["--explain=0", "x"][..], "--explain must be at least 1"),
        (&["--explain=x", "x"], "--explain"),
        (&["--explain", "--pairs"], "--pairs"),
        (&["--explain", "-f", "x.csv", "--pair-field", "b"], "--pair-field"),
        (&["--explain", "--windows", "x"], "--windows"),
        (&["--explain", "--count", "x"], "--count"),
        (&["--explain", "--only", "World", "x"], "--only"),
        (&["--explain", "-f", "x.csv", "--label-field", "a", "--no-results"], "--no-results"),
        (&["--format", "html", "x"], "add --explain"),
        (&["--explain", "-f", "x.csv", "--keep", "-o", "x.html"], "--keep needs a format with fields"),
        (&["--explain", "-k", "2", "-o", "x.HTML.gz", "x"], "--top-k needs a format with fields"),
    ] {
        builtin().args(args).run().code_is(2).tells(&[part]);
    }
}
