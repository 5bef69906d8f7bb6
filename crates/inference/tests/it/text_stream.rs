//! Tokens back to text: chunk by chunk as in one piece, and as the dependency would have it where that has an opinion.

use antiphon_inference::error::ErrorKind;
use antiphon_inference::stop::StopFilter;
use antiphon_inference::tokenizer::{Memo, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;

use crate::text_fixtures::{self as fixtures, CONTROL, load};

const TEXTS: [&str; 9] = [
    "hello the world",
    "  hello  the\tworld\n\n",
    "é🦜🏽‍🦜 ünïcödé ▁x Ġy",
    "don't we'll they're 12345 x86_64",
    "<|im_start|>hello<|im_end|> the <s> </s>",
    "hello<tool_call>the</tool_call> world",
    "日本語のテキスト",
    "a",
    "the the the the",
];

#[test]
fn tokenizers_templates_and_samplers_are_good_from_any_thread() {
    fn check<T: Send + Sync>() {}
    check::<Tokenizer>();
    check::<antiphon_inference::tokenizer::Detokenizer>();
    check::<antiphon_inference::template::ChatTemplate>();
    check::<antiphon_inference::sampling::Sampler>();
    check::<StopFilter>();
}

fn oracle(file: &Value) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(file.to_string()).expect("a whole file")
}

#[test]
fn template_text_becomes_the_tokens_that_the_dependency_gives() {
    for (name, file) in [
        ("byte level", fixtures::byte_level()),
        ("sentence piece", fixtures::sentence_piece()),
        ("metaspace", fixtures::metaspace()),
        ("unigram", fixtures::unigram()),
        ("word piece", fixtures::word_piece()),
    ] {
        let (ours, theirs) = (load(&file).unwrap(), oracle(&file));
        for text in TEXTS {
            let expected = theirs.encode_fast(text, false).unwrap();
            assert_eq!(ours.encode_template(text).unwrap(), expected.get_ids(), "{name}: {text:?}");
        }
    }
}

#[test]
fn user_text_without_control_tokens_becomes_the_tokens_that_the_dependency_gives() {
    for (name, file) in [
        ("byte level", fixtures::byte_level()),
        ("sentence piece", fixtures::sentence_piece()),
        ("word piece", fixtures::word_piece()),
    ] {
        let (ours, theirs) = (load(&file).unwrap(), oracle(&file));
        for text in TEXTS.iter().filter(|text| !text.contains('<')) {
            let expected = theirs.encode_fast(*text, false).unwrap();
            assert_eq!(ours.encode_text(text).unwrap(), expected.get_ids(), "{name}: {text:?}");
            let framed = theirs.encode(*text, true).unwrap();
            assert_eq!(ours.encode_message(text, 512).unwrap().ids, framed.get_ids(), "{name}: {text:?}");
        }
    }
}

#[test]
fn text_of_ids_is_what_the_dependency_decodes() {
    for (name, file) in [
        ("byte level", fixtures::byte_level()),
        ("sentence piece", fixtures::sentence_piece()),
        ("metaspace", fixtures::metaspace()),
        ("word piece", fixtures::word_piece()),
    ] {
        let (ours, theirs) = (load(&file).unwrap(), oracle(&file));
        for text in TEXTS {
            let ids = ours.encode_template(text).unwrap();
            assert_eq!(ours.decode(&ids).unwrap(), theirs.decode(&ids, true).unwrap(), "{name}: {text:?}");
        }
    }
}

#[test]
fn a_prompt_in_parts_has_the_tokens_of_the_prompt_in_one_piece() {
    for (name, file) in [
        ("byte level", fixtures::byte_level()),
        ("sentence piece", fixtures::sentence_piece()),
        ("metaspace", fixtures::metaspace()),
        ("unigram", fixtures::unigram()),
    ] {
        use antiphon_inference::tokenizer::Part::{Template, User};
        let (ours, theirs) = (load(&file).unwrap(), oracle(&file));
        let memo = Memo::default();
        for parts in [
            &[Template("<|im_start|>"), User("hello"), Template("<|im_end|>the<|im_start|>"), User("world")]
                [..],
            &[User("hello"), Template("<|im_end|>")],
            &[Template("<|im_start|>the"), Template("<|im_end|>the")],
        ] {
            let whole: String = parts
                .iter()
                .map(|part| match part {
                    Template(text) | User(text) => *text,
                })
                .collect();
            let expected = theirs.encode_fast(whole.as_str(), false).unwrap();
            assert_eq!(ours.encode_parts(parts).unwrap(), expected.get_ids(), "{name}: {parts:?}");
            for owner in ["acme", "acme", "globex"] {
                let again = ours.encode_parts_again(&memo, owner, parts).unwrap();
                assert_eq!(again, expected.get_ids(), "{name}, from what is known: {parts:?}");
            }
        }
    }
}

#[test]
fn special_tokens_do_not_show_and_other_added_tokens_do() {
    let tokenizer = load(&fixtures::byte_level()).unwrap();
    // every third control token of the fixture is not special
    for (index, token) in CONTROL.iter().enumerate() {
        let ids = tokenizer.encode_template(&format!("a{token}b")).unwrap();
        let expected = if index % 3 == 0 { format!("a{token}b") } else { "ab".to_owned() };
        assert_eq!(tokenizer.decode(&ids).unwrap(), expected);
    }
}

#[test]
fn a_broken_code_point_shows_as_a_replacement_character_and_ends_there() {
    let tokenizer = load(&fixtures::byte_level()).unwrap();
    let parrot = tokenizer.encode_text("🦜").unwrap();
    let mut detokenizer = tokenizer.detokenizer();
    let chunks: Vec<String> = parrot.iter().map(|id| detokenizer.push(*id).unwrap()).collect();
    assert_eq!(chunks, ["", "", "", "🦜"]);
    assert_eq!(detokenizer.finish(), "");
    assert_eq!(tokenizer.decode(&parrot[..3]).unwrap(), "\u{FFFD}");
    let a = tokenizer.encode_text("a").unwrap()[0];
    assert_eq!(tokenizer.decode(&[parrot[0], a, parrot[3], a]).unwrap(), "\u{FFFD}a\u{FFFD}a");
    let mut half = tokenizer.detokenizer();
    half.push(parrot[0]).unwrap();
    assert!(half.fits(parrot[1]).unwrap() && !half.fits(a).unwrap());
    assert!(!half.fits(fixtures::ROWS as u32 - 1).unwrap(), "an end would leave it broken");
    assert!(tokenizer.detokenizer().fits(a).unwrap() && !tokenizer.detokenizer().fits(parrot[3]).unwrap());
    let outside = tokenizer.decode(&[fixtures::ROWS as u32]).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::InvalidArgument);
    assert_eq!(tokenizer.decode(&[fixtures::ROWS as u32 - 1]).unwrap(), "");
}

#[test]
fn a_long_answer_takes_time_in_proportion() {
    let tokenizer = load(&fixtures::sentence_piece()).unwrap();
    let ids = tokenizer.encode_text(&"hello the ".repeat(20_000)).unwrap();
    let time = |ids: &[u32]| {
        let start = std::time::Instant::now();
        tokenizer.decode(ids).unwrap();
        start.elapsed()
    };
    let half = time(&ids[..ids.len() / 2]);
    assert!(time(&ids) < half * 4 + std::time::Duration::from_millis(50));
}

/// FAULTS 38: through tokens that end inside code points, and stop strings that span several.
#[test]
fn stop_strings_are_found_across_tokens_and_code_points() {
    let tokenizer = load(&fixtures::byte_level()).unwrap();
    let answer = "hello é🦜 the world <|end|> and more";
    let ids = tokenizer.encode_text(answer).unwrap();
    for stop in ["🦜 the", "<|end|>", "é", "world <", "hello", "e"] {
        let mut detokenizer = tokenizer.detokenizer();
        let mut filter = StopFilter::new(vec![stop.to_owned()]).unwrap();
        let mut shown = String::new();
        for id in &ids {
            let outcome = filter.push(&detokenizer.push(*id).unwrap());
            shown.push_str(&outcome.emit);
            if outcome.stopped {
                break;
            }
        }
        assert_eq!(shown, answer[..answer.find(stop).unwrap()], "{stop}");
    }
}

fn everything() -> Vec<(&'static str, Tokenizer)> {
    let mut all = fixtures::all();
    all.push(("word piece", load(&fixtures::word_piece()).expect("a whole file")));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_that_fit_break_nothing(ids in prop::collection::vec(0_u32..fixtures::ROWS as u32, 0..60)) {
        for (name, tokenizer) in everything() {
            let mut detokenizer = tokenizer.detokenizer();
            let mut text = String::new();
            for &id in &ids {
                if detokenizer.fits(id).unwrap() {
                    text.push_str(&detokenizer.push(id).unwrap());
                }
            }
            prop_assert!(!text.contains(char::REPLACEMENT_CHARACTER), "{}: {:?}", name, text);
        }
    }

    #[test]
    fn chunks_are_whole_code_points_and_add_up(ids in prop::collection::vec(0_u32..fixtures::ROWS as u32, 0..60)) {
        for (name, tokenizer) in everything() {
            let mut detokenizer = tokenizer.detokenizer();
            let mut text = String::new();
            for id in &ids {
                text.push_str(&detokenizer.push(*id).unwrap());
            }
            let certain = text.len();
            text.push_str(&detokenizer.finish());
            prop_assert_eq!(&text, &tokenizer.decode(&ids).unwrap(), "{}", name);
            prop_assert!(text[certain..].chars().count() <= 1);
        }
    }

    #[test]
    fn any_text_stays_text_and_comes_back(text in "\\PC{0,40}|[<>|/a-z_\\[\\] \\n]{0,40}") {
        let tokenizer = load(&fixtures::byte_level()).unwrap();
        let ids = tokenizer.encode_text(&text).unwrap();
        prop_assert!(ids.iter().all(|id| !tokenizer.is_control(*id)));
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}
