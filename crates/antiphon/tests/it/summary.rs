//! What texts come down to.

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use antiphon::{Engine, EngineConfig, ErrorKind, ModelSource, SummaryMethod, SummaryOptions};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{engine, open};
use pollster::block_on;

const DIALOGUE: &str = "Agent: Hello, how can I help you today?
Anna: Hi. My order 4711 arrived on Monday and the screen of the laptop has a crack.
Agent: Oh, I am sorry. Would you like a refund for the laptop or a replacement?
Anna: Well.
Anna: A replacement please, sent to my office at 12 Main Street in Leeds.
Agent: Okay. The replacement for order 4711 leaves our warehouse in Leeds tomorrow.
Anna: Thanks!
Agent: You are welcome. Bye.";

fn summarize(text: &str, options: SummaryOptions) -> String {
    engine().summarize_blocking(text, options).unwrap()
}

fn of(sentences: usize) -> SummaryOptions {
    SummaryOptions::default().sentences(sentences)
}

/// A report whose sentences are numbered: `(1)`, `(2)`, ….
fn report(sentences: usize) -> String {
    let about = ["the harbour", "a budget of new ships", "the weather", "trains to Leeds", "prices of bread"];
    let said =
        |i: usize| format!("The council ({i}) spoke about {} and decided nothing. ", about[i % about.len()]);
    (0..sentences).map(said).collect()
}

fn numbers(summary: &str) -> Vec<usize> {
    let number = |part: &str| part.split(')').next().unwrap().parse().unwrap();
    summary.split('(').skip(1).map(number).collect()
}

#[test]
fn a_dialogue_comes_down_to_its_matter_in_order_with_its_speakers() {
    let summary = summarize(DIALOGUE, of(3));
    let lines: Vec<&str> = summary.lines().collect();
    assert!(summary.contains("Anna: ") && summary.contains("order 4711"), "{summary}");
    for filler in ["Well.", "Thanks!", "Okay.", "Bye.", "Hi.", "Hello"] {
        assert!(!summary.contains(filler), "{summary}");
    }
    let places: Vec<usize> =
        lines.iter().map(|line| DIALOGUE.find(&line[line.find(' ').unwrap()..]).unwrap()).collect();
    assert!(places.is_sorted(), "{summary}");
    assert_eq!(summary, block_on(engine().summarize(DIALOGUE, SummaryOptions::default())).unwrap());
}

#[test]
fn a_summary_has_the_sentences_that_were_asked_for_in_their_order() {
    let text = report(40);
    for wanted in [1, 2, 7, 39, 40, 1000] {
        let chosen = numbers(&summarize(&text, of(wanted)));
        assert_eq!(chosen.len(), wanted.min(40));
        assert!(chosen.is_sorted());
    }
    for (share, wanted) in [(0.1, 4), (0.5, 20), (1.0, 40), (0.001, 1)] {
        assert_eq!(numbers(&summarize(&text, SummaryOptions::default().share(share))).len(), wanted);
    }
    assert_eq!(numbers(&summarize(&text, SummaryOptions::default())).len(), 3);
}

#[test]
fn a_text_of_several_sections_gives_as_many_sentences_as_were_asked_for() {
    let text = report(1500);
    for wanted in [1, 5, 23, 24, 25, 700] {
        let chosen = numbers(&summarize(&text, of(wanted)));
        assert_eq!(chosen.len(), wanted);
        assert!(chosen.is_sorted());
    }
}

#[test]
fn what_is_said_twice_is_told_once() {
    let text = "The bridge over the river Aire is closed for repairs until May. Buses go round by the old mill road. \
                The bridge over the river Aire is closed for repairs until May. A ferry runs every hour from the harbour.";
    let summary = summarize(text, of(3));
    assert_eq!(summary.matches("The bridge").count(), 1, "{summary}");
}

#[test]
fn a_text_of_one_sentence_comes_back_whole() {
    for text in
        ["Where is my order", "My order 4711 has not arrived.", "Grüße aus Köln!", "😀", "会议在星期一举行。"]
    {
        assert_eq!(summarize(text, of(1)), text);
    }
    assert_eq!(
        summarize("  Broken by\n a margin that is not wide.  \n", of(2)),
        "Broken by a margin that is not wide."
    );
    assert_eq!(summarize(&"word ".repeat(100_000), of(1)).split(' ').count(), 100_000);
    assert_eq!(summarize("A:\nB:", of(2)), "A: B:");
}

#[test]
fn texts_beyond_ascii_keep_their_letters() {
    let text = "Die Wärmepumpe für Frau Müller kommt am 3. Mai in Köln an. Ja. Die Monteure prüfen die Wärmepumpe in Köln. \
                “Größe” heißt hier: 1,80 m. 😀 😀. Die Rechnung über 900 € folgt.";
    let summary = summarize(text, of(2));
    assert!(summary.contains("Wärmepumpe"), "{summary}");
    assert!(summary.split(". ").all(|sentence| text.contains(sentence)), "{summary}");
    let chinese = summarize("会议在星期一举行。我们讨论了新项目的预算。好。新项目的预算是三百万元。", of(2));
    assert_eq!(chinese.matches('。').count(), 2, "{chinese}");
    assert!(!chinese.contains(' '), "{chinese}");
}

#[test]
fn bad_options_and_empty_texts_are_refused() {
    let refused = |text: &str, options| engine().summarize_blocking(text, options).unwrap_err();
    for (options, says) in [
        (of(0), "`sentences` is 0, expected at least 1"),
        (SummaryOptions::default().share(0.0), "`share` is 0, expected above 0 to 1"),
        (SummaryOptions::default().share(-1.0), "`share` is -1, expected above 0 to 1"),
        (SummaryOptions::default().share(f32::INFINITY), "`share` is inf, expected above 0 to 1"),
        (of(3).share(0.5), "`sentences` is 3, expected null"),
    ] {
        let error = refused("A text.", options);
        assert_eq!(
            (error.kind(), error.to_string().contains(says)),
            (ErrorKind::InvalidArgument, true),
            "{error}"
        );
    }
    for text in ["", " ", "\n\t\u{2003}"] {
        assert_eq!(refused(text, SummaryOptions::default()).kind(), ErrorKind::InvalidText);
    }
}

#[test]
fn a_megabyte_is_summarized_while_others_are_answered() {
    let engine = open(EngineConfig::default().responder(None).max_message_chars(100));
    let text = report((1 << 20) / 70);
    assert!(text.len() > 1_000_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let chosen = numbers(&engine.summarize_blocking(&text, of(5)).unwrap());
            done.store(true, Ordering::SeqCst);
            assert_eq!(chosen.len(), 5);
        });
        let mut answered = 0;
        while !done.load(Ordering::SeqCst) {
            engine.analyze_blocking("Where is my order?").unwrap();
            answered += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(answered >= 10, "{answered}");
    });
}

#[test]
fn a_closed_engine_summarizes_nothing_and_closing_ends_what_is_under_way() {
    let engine = open(EngineConfig::default().responder(None));
    let text = report(10_000);
    std::thread::scope(|scope| {
        let summary = scope.spawn(|| engine.summarize_blocking(&text, of(5)));
        std::thread::sleep(Duration::from_millis(50));
        engine.close().unwrap();
        assert_eq!(summary.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    assert_eq!(engine.summarize_blocking("One.", of(1)).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_summary_that_is_dropped_leaves_nothing_to_do() {
    let engine = open(EngineConfig::default().responder(None));
    {
        let mut summary = pin!(engine.summarize(&report(10_000), of(5)));
        assert!(summary.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    engine.analyze_blocking("Hello").unwrap();
    engine.drain(Duration::from_secs(5)).unwrap();
}

#[test]
fn without_the_model_that_a_method_needs_the_error_says_which() {
    let without = open(EngineConfig::default().analyst(None));
    let error = without.summarize_blocking("One. Two.", of(1)).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("analyst")), (ErrorKind::BackendUnavailable, true));
    let abstractive = SummaryOptions::default().method(SummaryMethod::Abstractive);
    let error = engine().summarize_blocking("One. Two.", abstractive.clone()).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().contains("instruct")),
        (ErrorKind::UnsupportedModel, true),
        "{error}"
    );
    let without = open(EngineConfig::default().responder(None));
    let error = without.summarize_blocking("One. Two.", abstractive).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
}

#[test]
fn an_instruct_model_of_the_hosts_own_writes_in_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), true);
    let engine = own(dir.path());
    let extractive = SummaryOptions::default().method(SummaryMethod::Extractive);
    let told = engine.summarize_blocking(DIALOGUE, SummaryOptions::default()).unwrap();
    assert_ne!(told, engine.summarize_blocking(DIALOGUE, extractive).unwrap());
    assert!(!told.is_empty() && !told.contains("4711"), "{told}");
    let again = SummaryOptions::default().method(SummaryMethod::Abstractive);
    assert_eq!(told, engine.summarize_blocking(DIALOGUE, again).unwrap(), "greedy");
    // It reads the whole text, and how long the summary is to be.
    assert_ne!(told, engine.summarize_blocking(&DIALOGUE.replace("12 Main", "13 Main"), of(3)).unwrap());
    assert_ne!(told, engine.summarize_blocking(DIALOGUE, of(2)).unwrap());
}

#[test]
fn a_text_beyond_the_context_is_told_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), true);
    let engine = own(dir.path());
    let text = report(100);
    assert!(text.len() > 4 * CONTEXT, "a token is a byte");
    let told = engine.summarize_blocking(&text, of(2)).unwrap();
    assert!(!told.is_empty());
    assert_ne!(
        told,
        engine.summarize_blocking(&text.replace("(99)", "(98)"), of(2)).unwrap(),
        "the last part counts"
    );
    // One sentence that no prompt holds.
    engine.summarize_blocking(&"wörd ".repeat(1000), of(1)).unwrap();
    let small =
        EngineConfig::default().responder(ModelSource::Path(dir.path().to_owned())).context_tokens(300);
    let error = open(small).summarize_blocking(&text, of(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextFull, "{error}");
}

#[test]
fn a_model_that_follows_no_instructions_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), false);
    let no_template = own(dir.path());
    let extractive = summarize(DIALOGUE, of(3));
    assert_eq!(no_template.summarize_blocking(DIALOGUE, of(3)).unwrap(), extractive);
    let forced = SummaryOptions::default().method(SummaryMethod::Abstractive);
    let error = no_template.summarize_blocking(DIALOGUE, forced).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedModel, "{error}");

    let (silent, says_so) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, card) in [(&silent, json!({})), (&says_so, json!({"instruct": true}))] {
        write_model(dir.path(), true);
        write_manifest(dir.path(), &card);
    }
    assert_eq!(own(silent.path()).summarize_blocking(DIALOGUE, of(3)).unwrap(), extractive);
    assert_ne!(own(says_so.path()).summarize_blocking(DIALOGUE, of(3)).unwrap(), extractive);
}

fn own(responder: &Path) -> Engine {
    open(EngineConfig::default().responder(ModelSource::Path(responder.to_owned())))
}

/// Sizes of a tiny decoder whose tokens are bytes and the four tokens of its template.
const HIDDEN: usize = 64;
const KV: usize = 32;
const FFN: usize = 96;
const VOCAB: usize = 256 + CONTROL.len();
const CONTEXT: usize = 1024;
const CONTROL: [&str; 4] = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"];

/// A Llama of random weights in the shape of an instruct model, with or without a chat template.
fn write_model(dir: &Path, template: bool) {
    let write =
        |name: &str, value: &serde_json::Value| std::fs::write(dir.join(name), value.to_string()).unwrap();
    write(
        "config.json",
        &json!({"model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FFN, "vocab_size": VOCAB,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "max_position_embeddings": CONTEXT, "hidden_act": "silu",
            "tie_word_embeddings": false, "bos_token_id": null, "eos_token_id": 3}),
    );
    // The byte alphabet of GPT-2: what prints stands for itself, the rest for characters from U+0100 on.
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=255).filter(|&byte| !prints(byte)).zip('\u{100}'..);
    let mut alphabet: Vec<char> = (0..=255_u8).map(char::from).collect();
    others.for_each(|(byte, c)| alphabet[usize::from(byte)] = c);
    let tokens = CONTROL.map(str::to_owned).into_iter().chain(alphabet.iter().map(char::to_string));
    let vocab: serde_json::Map<_, _> = tokens.zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added = |(id, content): (usize, &str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let added: Vec<_> = CONTROL.into_iter().enumerate().map(added).collect();
    write(
        "tokenizer.json",
        &json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": []}}),
    );
    write("tokenizer_config.json", &json!({"eos_token": "<|end|>", "clean_up_tokenization_spaces": false}));
    if template {
        let template = "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}\
                        {% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
        std::fs::write(dir.join("chat_template.jinja"), template).unwrap();
    }
    std::fs::write(dir.join("model.safetensors"), weights()).unwrap();
}

/// Random matrices and norms of ones, as a safetensors file.
fn weights() -> Vec<u8> {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN], 1.0),
        ("lm_head.weight".into(), vec![VOCAB, HIDDEN], 0.3),
        ("model.norm.weight".into(), vec![HIDDEN], 0.0),
    ];
    for layer in 0..2 {
        for (name, shape, scale) in [
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN], 0.25),
            ("self_attn.k_proj", vec![KV, HIDDEN], 0.25),
            ("self_attn.v_proj", vec![KV, HIDDEN], 0.5),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN], 0.5),
            ("mlp.gate_proj", vec![FFN, HIDDEN], 0.25),
            ("mlp.up_proj", vec![FFN, HIDDEN], 0.25),
            ("mlp.down_proj", vec![HIDDEN, FFN], 0.25),
            ("input_layernorm", vec![HIDDEN], 0.0),
            ("post_attention_layernorm", vec![HIDDEN], 0.0),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape, scale));
        }
    }
    // A seed of a model that has something to say of every text here, and of each something else.
    let mut state = 3_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, scale) in shapes {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            let value: f32 = if scale == 0.0 { 1.0 } else { scale * random() };
            data.extend(value.to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// An `antiphon.json` with this card.
fn write_manifest(dir: &Path, card: &serde_json::Value) {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"path": entry.file_name().to_str().unwrap(), "sha256": sha256, "bytes": bytes.len()})
    };
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().map(file).collect();
    let manifest = json!({"schema": 1, "name": "tiny", "version": "1", "task": "generation", "licence": "none",
        "files": files, "card": card});
    std::fs::write(dir.join("antiphon.json"), manifest.to_string()).unwrap();
}
