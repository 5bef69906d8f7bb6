//! What messages mean.

use antiphon::ErrorKind;

use crate::engine;
use pollster::block_on;

#[test]
fn the_first_message_of_the_readme_is_understood() {
    let analysis = engine().analyze_blocking("Hello, I need help with my account").unwrap();
    assert_eq!(analysis.intent.label, "help_request");
    assert!(!analysis.intent.out_of_scope);
    assert_eq!(analysis.intent.ranking.len(), 5);
    assert_eq!(analysis.intent.ranking[0].label, "help_request");
    let account = &analysis.entities[0];
    assert_eq!((account.kind.as_str(), account.value.as_str()), ("account", "account"));
    assert_eq!((account.start, account.end), (27, 34));
    assert!(analysis.tokens >= 9);
    let scores: f64 = analysis.sentiment.scores.values().sum();
    assert!((scores - 1.0).abs() < 1e-4);
}

#[test]
fn offsets_are_bytes_in_rust_and_code_points_in_json() {
    let text = "Grüße! Wo ist “order 4711”?";
    let analysis = engine().analyze_blocking(text).unwrap();
    let order = analysis.entities.iter().find(|entity| entity.kind == "order_id").unwrap();
    assert!(text[order.start..order.end].contains("4711"));
    assert_eq!(&text[order.start..order.end], order.value);
    let json = serde_json::to_value(order).unwrap();
    let (start, end) = (json["start"].as_u64().unwrap() as usize, json["end"].as_u64().unwrap() as usize);
    let span: String = text.chars().skip(start).take(end - start).collect();
    assert_eq!(span, order.value);
    assert!(start < order.start);
}

#[test]
fn a_batch_gives_what_each_text_gives_alone() {
    let texts: Vec<String> = (0..40)
        .map(|i| format!("{} order {i} please", ["Cancel", "Where is", "I love"][i % 3]).repeat(1 + i % 4))
        .collect();
    let together = block_on(engine().analyze_batch(&texts)).unwrap();
    assert_eq!(together.len(), texts.len());
    for (text, analysis) in texts.iter().zip(&together) {
        assert_eq!(analysis, &block_on(engine().analyze(text)).unwrap());
    }
    let none: [&str; 0] = [];
    assert!(engine().analyze_batch_blocking(&none).unwrap().is_empty());
}

#[test]
fn one_bad_text_fails_the_batch_and_is_named() {
    let error = engine().analyze_batch_blocking(&["Hello", " ", "You"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidText);
    assert!(error.to_string().contains("text 1"), "{error}");
}

#[test]
fn a_long_text_is_read_as_far_as_the_encoder_goes_and_says_so() {
    let analysis = engine().analyze_blocking(&"where is my order ".repeat(200)).unwrap();
    assert!(analysis.truncated);
    let short = engine().analyze_blocking("where is my order").unwrap();
    assert!(!short.truncated);
}

#[test]
fn faults_33_texts_at_the_edge_of_text_have_an_answer() {
    for text in ["a", "é", "\u{301}\u{301}", "\0", "a\0b", "😀😀", "\u{202e}abc", "\u{feff}x", "ﷺ"] {
        engine().analyze_blocking(text).unwrap();
    }
    for text in ["", " ", "\u{a0}\u{2003}\n"] {
        assert_eq!(engine().analyze_blocking(text).unwrap_err().kind(), ErrorKind::InvalidText, "{text:?}");
    }
}

#[test]
fn faults_34_a_megabyte_without_a_blank_is_refused_by_its_length() {
    let error = engine().analyze_blocking(&"a".repeat(1 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InputTooLong);
    assert!(error.to_string().contains("1048576"), "{error}");
}

#[test]
fn vectors_have_unit_length_and_know_near_from_far() {
    let texts =
        ["I want to cancel my order", "please cancel the order", "what is the weather in Paris tomorrow"];
    let vectors = engine().embed_blocking(&texts).unwrap();
    for vector in &vectors {
        let length: f32 = vector.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-4);
    }
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    assert!(cosine(&vectors[0], &vectors[1]) > cosine(&vectors[0], &vectors[2]));
    assert_eq!(vectors[1], block_on(engine().embed(&texts[1..2])).unwrap()[0]);
}
