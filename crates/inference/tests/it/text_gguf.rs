//! Tokenizers inside GGUF files, and FAULTS 14 and 3.2 as far as they are about tokens.

use antiphon_inference::error::{ErrorKind, Result};
use antiphon_inference::format::Package;
use antiphon_inference::tokenizer::Tokenizer;
use serde_json::json;

use crate::build::{Gguf, expect_error, f32_tensors};
use crate::text_fixtures::{self as fixtures, alphabet};

const KEYS: u64 = 9;

/// The metadata of a tokenizer; what a test leaves out or changes comes as an argument.
struct File<'a> {
    model: &'a str,
    pre: &'a str,
    tokens: Vec<String>,
    types: Vec<u32>,
    scores: Vec<f32>,
    merges: Vec<&'a str>,
    eos: u32,
}

impl File<'_> {
    fn tokenizer(&self) -> Result<Tokenizer> {
        let tokens: Vec<&str> = self.tokens.iter().map(String::as_str).collect();
        let array = |gguf: Gguf, key: &str, element: u32, values: Vec<[u8; 4]>| {
            gguf.key(key, 9).u32(element).u64(values.len() as u64).bytes(values.concat())
        };
        let file = Gguf::new(1, KEYS)
            .key_string("general.architecture", "llama")
            .key_string("tokenizer.ggml.model", self.model)
            .key_string("tokenizer.ggml.pre", self.pre)
            .key_strings("tokenizer.ggml.tokens", &tokens)
            .key_strings("tokenizer.ggml.merges", &self.merges);
        let file = array(
            file,
            "tokenizer.ggml.token_type",
            5,
            self.types.iter().map(|kind| kind.to_le_bytes()).collect(),
        );
        let file = array(
            file,
            "tokenizer.ggml.scores",
            6,
            self.scores.iter().map(|score| score.to_le_bytes()).collect(),
        );
        let file =
            file.key_u32("tokenizer.ggml.bos_token_id", 1).key_u32("tokenizer.ggml.eos_token_id", self.eos);
        let file = file.tensor("a", &[8], 0, 0).pad(32).bytes([0; 32]).0;
        let package = Package::from_bundle("tiny", &[("tiny.gguf", file.leak())])?;
        Tokenizer::from_package(&package, self.tokens.len())
    }
}

fn llama() -> File<'static> {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    tokens.extend((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend("▁abcdefghijklmnopqrstuvwxyz<>/".chars().map(String::from));
    tokens.extend(["▁t", "he", "▁the", "hell", "ll", "hello", "▁hello", "<tool>"].map(String::from));
    let mut types = vec![1; tokens.len()];
    types[..3].copy_from_slice(&[2, 3, 3]);
    types[3..259].fill(6);
    let last = types.len() - 1;
    types[last] = 4;
    let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
    File { model: "llama", pre: "default", tokens, types, scores, merges: Vec::new(), eos: 2 }
}

fn gpt2(pre: &str) -> File<'_> {
    let mut tokens = alphabet();
    tokens.extend(["he", "ll", "hell", "hello", "Ġt", "12", "123", "<|im_end|>", "<pad>"].map(String::from));
    let mut types = vec![1; tokens.len()];
    let last = types.len();
    types[last - 2..].fill(3);
    let scores = vec![0.0; tokens.len()];
    let eos = last as u32 - 2;
    File {
        model: "gpt2",
        pre,
        tokens,
        types,
        scores,
        merges: vec!["h e", "l l", "he ll", "hell o", "Ġ t", "1 2", "12 3"],
        eos,
    }
}

fn words(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode_text(text).expect("it is text");
    ids.into_iter().map(|id| tokenizer.token(id).expect("an id of its own")).collect()
}

#[test]
fn the_llama_kind_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = llama().tokenizer().unwrap();
    assert_eq!(words(&tokenizer, "hello the"), ["▁hello", "▁the"]);
    assert_eq!(words(&tokenizer, "é"), ["▁", "<0xC3>", "<0xA9>"]);
    for text in ["hello the", " hello", "é🦜\n", "<s></s><tool><0x41>"] {
        let ids = tokenizer.encode_text(text).unwrap();
        assert!(ids.iter().all(|id| !tokenizer.is_control(*id)), "{text}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(tokenizer.encode_template("<s><tool>").unwrap(), [1, llama().tokens.len() as u32 - 1]);
    assert_eq!((tokenizer.bos(), tokenizer.eos_ids()), (Some(1), &[2][..]));
    assert_eq!(tokenizer.special().unknown, Some(0));
}

#[test]
fn the_gpt2_kind_splits_as_its_family_does() {
    let split = |pre: &str| words(&gpt2(pre).tokenizer().unwrap(), "hello 1234");
    assert_eq!(split("gpt-2"), ["hello", "Ġ", "123", "4"]);
    assert_eq!(split("llama-bpe"), ["hello", "Ġ", "123", "4"]);
    assert_eq!(split("qwen2"), ["hello", "Ġ", "1", "2", "3", "4"]);
    assert_eq!(split("smollm"), ["hello", "Ġ", "1", "2", "3", "4"]);
    for pre in ["default", "gpt-4o", "tekken", "qwen2", "llama-bpe", "gpt-2"] {
        let tokenizer = gpt2(pre).tokenizer().unwrap();
        let text = "hello <|im_end|> the\n\n  don't é🦜 <pad>";
        let ids = tokenizer.encode_text(text).unwrap();
        assert!(ids.iter().all(|id| !tokenizer.is_control(*id)), "{pre}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{pre}");
    }
    let error = gpt2("klingon").tokenizer().map(|_| ());
    expect_error("unknown split", error, ErrorKind::Unsupported, &["`tokenizer.ggml.pre`", "`klingon`"]);
}

#[test]
fn metadata_that_contradicts_itself_is_refused_by_key() {
    let refuse = |case: &str, file: File<'_>, kind: ErrorKind, says: &str| {
        expect_error(case, file.tokenizer().map(|_| ()), kind, &[says]);
    };
    for byte in ["<0x-1>", "<0xZZ>", "<0x"] {
        let mut file = llama();
        file.tokens[3] = byte.to_owned();
        refuse("gg-byte", file, ErrorKind::Invalid, byte);
    }
    let mut file = llama();
    file.scores.pop();
    refuse("scores too short", file, ErrorKind::Invalid, "tokenizer.ggml.scores");
    let mut file = llama();
    file.scores[7] = f32::NAN;
    refuse("score that is no number", file, ErrorKind::Invalid, "tokenizer.ggml.scores");
    let mut file = llama();
    file.types.pop();
    refuse("types too short", file, ErrorKind::Invalid, "tokenizer.ggml.token_type");
    let mut file = llama();
    file.types[7] = 99;
    refuse("unknown type", file, ErrorKind::Invalid, "99");
    let mut file = llama();
    file.tokens[270] = "a".to_owned();
    refuse("one token twice", file, ErrorKind::Invalid, "`a` is already token");
    let mut file = llama();
    file.eos = 1_000_000;
    refuse("end beyond the tokens", file, ErrorKind::Invalid, "tokenizer.ggml.eos_token_id");
    let mut file = gpt2("gpt-2");
    file.merges.push("zz top");
    refuse("merge outside of the vocabulary", file, ErrorKind::Invalid, "`zz` is not in the vocabulary");
    let mut file = llama();
    file.model = "bert";
    refuse("another model", file, ErrorKind::Unsupported, "`bert`");
}

#[test]
fn special_tokens_come_from_all_the_files_that_name_them() {
    let tokenizer = fixtures::byte_level().to_string();
    let id = |token: &str| fixtures::load(&fixtures::byte_level()).unwrap().token_id(token).unwrap();
    let open = |config: serde_json::Value| {
        let leak = |text: String| -> &'static [u8] { text.into_bytes().leak() };
        let generation = json!({"eos_token_id": [id("<|eot_id|>"), id("<|im_end|>")]});
        let files = [
            ("config.json", leak(config.to_string())),
            ("tokenizer.json", leak(tokenizer.clone())),
            (
                "tokenizer_config.json",
                leak(json!({"eos_token": {"content": "<|im_end|>"}, "bos_token": "<s>"}).to_string()),
            ),
            ("generation_config.json", leak(generation.to_string())),
            ("model.safetensors", &*f32_tensors(&[("a", "1", &[0.0])]).leak()),
        ];
        Tokenizer::from_package(&Package::from_bundle("tiny", &files)?, fixtures::ROWS)
    };
    let found = open(json!({"eos_token_id": id("<|endoftext|>"), "pad_token_id": -1})).unwrap();
    assert_eq!(found.eos_ids(), [id("<|im_end|>"), id("<|eot_id|>"), id("<|endoftext|>")]);
    assert_eq!((found.bos(), found.special().padding), (Some(id("<s>")), None));
    let beyond = open(json!({"eos_token_id": 5000})).map(|_| ());
    expect_error("beyond the rows", beyond, ErrorKind::Invalid, &["config.json: `eos_token_id` is `5000`"]);
    let text = open(json!({"eos_token_id": "</s>"})).map(|_| ());
    expect_error("a text", text, ErrorKind::Invalid, &["config.json: `eos_token_id`"]);
}
