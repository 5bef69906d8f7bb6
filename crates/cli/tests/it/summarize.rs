//! `antiphon summarize`.

use tempfile::tempdir;

use crate::run::{antiphon, antiphon_reading, write};

const DIALOGUE: &str =
    "Agent: Hello!\nAnna: My parcel with the blue lamp from order 4711 is late.\nAgent: Okay.\n";

#[test]
fn a_file_or_standard_input_is_summarized() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), "dialogue.txt", DIALOGUE);
    let expected = "Anna: My parcel with the blue lamp from order 4711 is late.\n";
    assert_eq!(antiphon(&["summarize", &file, "--sentences", "1"]).done(), expected);
    assert_eq!(antiphon_reading(DIALOGUE.as_bytes(), &["summarize", "--sentences", "1"]).done(), expected);
    assert_eq!(antiphon_reading(DIALOGUE.as_bytes(), &["summarize", "-", "--share", "0.4"]).done(), expected);
    assert_eq!(antiphon(&["summarize", &file]).done(), DIALOGUE);
    let json = antiphon(&["summarize", &file, "--sentences", "1", "--method", "extractive", "--json"]).json();
    assert_eq!(json["summary"], expected.trim_end());
}

#[test]
fn what_cannot_be_summarized_is_refused() {
    antiphon_reading(b" \n", &["summarize"]).refused(1, "text is only white space");
    antiphon_reading(b"", &["summarize"]).refused(1, "text is empty");
    antiphon_reading(b"abc \xff", &["summarize"]).refused(1, "standard input: byte 4");
    antiphon(&["summarize", "/no/such/file"]).refused(1, "/no/such/file");
    let one = |arguments: &[&str]| antiphon_reading(b"One. Two.", &[&["summarize"], arguments].concat());
    one(&["--sentences", "0"]).refused(1, "`sentences` is 0, expected at least 1");
    one(&["--share", "-1"]).refused(1, "`share` is -1, expected above 0 to 1");
    one(&["--share", "NaN"]).refused(1, "`share` is NaN");
    one(&["--method", "abstractive"]).refused(1, "expected an instruct model");
    one(&["--sentences", "1", "--share", "0.5"]).refused(2, "--share");
    one(&["--sentences", "x"]).refused(2, "--sentences");
    one(&["--method", "magic"]).refused(2, "--method");
}

#[test]
fn summaries_are_measured_beside_the_first_sentences() {
    let dir = tempdir().unwrap();
    let record = serde_json::json!({"dialogue": DIALOGUE, "summary": "Anna's parcel is late."});
    let file = write(dir.path(), "summaries.jsonl", format!("{record}\n{record}\n"));
    let report = antiphon(&["eval", "--task", "summaries", "--data", &file, "--json"]).json();
    assert_eq!((report["task"].as_str(), report["examples"].as_u64()), (Some("summaries"), Some(2)));
    // All three sentences: 16 words with the labels; the reference has 5, of which `anna parcel is late` stand there in order.
    assert_eq!(report["rouge_l"], report["lead_3_rouge_l"]);
    assert!((report["rouge_l"].as_f64().unwrap() - 2.0 * 4.0 / 21.0).abs() < 1e-3, "{report}");
    assert!(report["p50_ms"].as_f64().unwrap() > 0.0 && report["texts_per_second"].as_f64().unwrap() > 0.0);
    let bad = write(dir.path(), "bad.jsonl", "{\"dialogue\": \"canary\"}");
    let message =
        antiphon(&["eval", "--task", "summaries", "--data", &bad]).refused(1, "expected `summary`, a string");
    assert!(!message.contains("canary"));
}
