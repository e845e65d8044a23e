use super::*;
use crate::checkpoint::config::ScoreFunction;
use crate::evaluation::{Evaluation, LeftOut};
use crate::prediction::Prediction;
use serde_json::Value;

fn about() -> About {
    About { model: "a <b> & \"c\" \u{1b}".to_owned(), data: "test's.csv".to_owned() }
}

/// `texts` texts over `labels`; every third is taken for the next class.
fn evaluation(labels: &[&str], texts: usize) -> Evaluation {
    let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let mut evaluation = Evaluation::new(&labels, ScoreFunction::Softmax);
    for text in 0..texts {
        let gold = text % labels.len();
        let predicted = if text % 3 == 0 { (gold + 1) % labels.len() } else { gold };
        let mut logits = vec![0.0; labels.len()];
        logits[predicted] = (text % 7) as f32 + 0.5;
        evaluation.observe(gold, &Prediction::from_logits(&logits, ScoreFunction::Softmax, false));
    }
    evaluation
}

fn parse(markup: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(markup, options).unwrap_or_else(|error| panic!("{error}\n{markup}"))
}

const HOSTILE: [&str; 4] = ["</text><script>", "a & b", "\"quoted\"'", "\0\u{ffff}\n"];

#[test]
fn svg_and_html_are_well_formed_for_every_number_of_classes() {
    let many: Vec<String> = (0..80).map(|id| format!("<class {id}> & its long, long, long description")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for classes in [1, 2, 4, 6, 7, 12, 13, 60, 61, 80] {
        for texts in [0, 1, 500] {
            let metrics = evaluation(&many[..classes], texts).metrics();
            for format in [Format::Svg, Format::Html] {
                let markup = format.render(&metrics, &about());
                parse(&markup);
                assert!(!markup.contains("NaN") && !markup.contains("inf"), "{classes} classes, {texts} texts");
            }
        }
    }
}

#[test]
fn names_of_labels_and_models_stay_text() {
    let metrics = evaluation(&HOSTILE, 50).metrics();
    for format in [Format::Svg, Format::Html] {
        let markup = format.render(&metrics, &about());
        let document = parse(&markup);
        assert!(document.descendants().all(|node| node.tag_name().name() != "script"), "{markup}");
        assert!(document.descendants().any(|node| node.text() == Some("a & b")), "{markup}");
    }
}

#[test]
fn the_picture_says_what_it_shows_and_loads_nothing() {
    let metrics = evaluation(&["World", "Sports"], 90).metrics();
    let markup = Format::Svg.render(&metrics, &about());
    let document = parse(&markup);
    let root = document.root_element();
    assert_eq!(root.attribute("role"), Some("img"));
    assert!(root.attribute("viewBox").is_some());
    for (name, id) in [("title", "evaluation-title"), ("desc", "evaluation-description")] {
        let node = root.children().find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name))).unwrap();
        assert_eq!(node.attribute("id"), Some(id));
        assert!(node.text().unwrap().len() > 10);
    }
    assert!(markup.contains("prefers-color-scheme: dark"));
    let elsewhere = markup.replace("http://www.w3.org/2000/svg", "");
    for load in ["http", "url(", "href", "@import", "src="] {
        assert!(!elsewhere.contains(load), "{load}");
    }
    // 45 texts a class, 15 of them taken for the other one.
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for expected in ["30", "66.7 %", "15", "33.3 %"] {
        assert!(texts.contains(&expected), "{expected} in {texts:?}");
    }
}

#[test]
fn nothing_leaves_the_picture() {
    let long = ["a rather long name of a class, as intents have them"; 12];
    for labels in [&["a", "b"][..], &["World", "Sports", "Business", "Sci/Tech"], &long] {
        let markup = Format::Svg.render(&evaluation(labels, 200).metrics(), &about());
        let document = parse(&markup);
        let root = document.root_element();
        let size = |name: &str| root.attribute(name).unwrap().parse::<f64>().unwrap();
        for group in root.children().filter(|node| node.has_attribute("transform")) {
            let (x, y) = group.attribute("transform").unwrap()["translate(".len()..]
                .trim_end_matches(')')
                .split_once(' ')
                .unwrap();
            let (left, top): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            for rect in group.descendants().filter(|node| node.tag_name().name() == "rect") {
                let number = |name: &str| rect.attribute(name).unwrap().parse::<f64>().unwrap();
                assert!(number("x") >= 0.0 && left + number("x") + number("width") <= size("width"), "{rect:?}");
                assert!(number("y") >= 0.0 && top + number("y") + number("height") <= size("height"), "{rect:?}");
            }
        }
    }
}

#[test]
fn json_has_every_figure_and_null_for_what_is_undefined() {
    let mut evaluation = evaluation(&["World", "Sports"], 90);
    evaluation.leave_out(LeftOut::BlankText);
    let report: Value = serde_json::from_str(&Format::Json.render(&evaluation.metrics(), &about())).unwrap();
    assert_eq!(report["model"], about().model);
    assert_eq!(report["evaluated"], 90);
    assert_eq!(report["left_out"]["blank_text"], 1);
    assert_eq!(report["confusion_matrix"], serde_json::json!([[30, 15], [15, 30]]));
    assert_eq!(report["confusions"][0], serde_json::json!({ "gold": 0, "predicted": 1, "count": 15 }));
    assert_eq!(report["classes"][1]["label"], "Sports");
    assert_eq!(report["classes"][1]["support"], 45);
    assert!((report["accuracy"]["value"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-15);
    let bins = report["calibration_bins"].as_array().unwrap();
    assert_eq!(bins.iter().map(|bin| bin["count"].as_u64().unwrap()).sum::<u64>(), 90);

    let empty = Evaluation::new(&["a".to_owned()], ScoreFunction::Softmax).metrics();
    let report: Value = serde_json::from_str(&Format::Json.render(&empty, &About::default())).unwrap();
    for undefined in
        ["/accuracy/value", "/macro_average/f1", "/classes/0/f1", "/log_loss", "/calibration_bins/3/accuracy"]
    {
        assert_eq!(report.pointer(undefined), Some(&Value::Null), "{undefined}");
    }
}

#[test]
fn the_form_follows_from_the_name() {
    for (name, format) in [("a.json", Format::Json), ("b/c.SVG", Format::Svg), ("d.html", Format::Html)] {
        assert_eq!(Format::of(Path::new(name)).unwrap(), format);
    }
    for name in ["report.pdf", "report", ".svg"] {
        let message = Format::of(Path::new(name)).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(".json, .svg or .html"), "{message}");
    }
}
