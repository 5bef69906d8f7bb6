//! `format::config`: the faults of FAULTS 20, by key.

use antiphon_inference::error::ErrorKind::{self, Invalid, Unsupported};
use antiphon_inference::format::{ConfigReader, Package};

use crate::build::{expect_error, f32_tensors};

#[test]
fn values_out_of_range_are_refused_with_key_value_and_range() {
    type Read = fn(&ConfigReader<'_>) -> antiphon_inference::error::Result<()>;
    let heads: Read = |config| config.usize_in("num_attention_heads", 1..=1024).map(|_| ());
    let positions: Read = |config| config.usize_in("max_position_embeddings", 1..=1 << 20).map(|_| ());
    let layers: Read = |config| config.opt_usize_in("num_hidden_layers", 1..=512).map(|_| ());
    let eps: Read = |config| config.f32_in("rms_norm_eps", 0.0..=1.0).map(|_| ());
    let kind: Read = |config| config.str_in("model_type", &["llama", "qwen2"]).map(|_| ());
    let act: Read = |config| config.str_or_in("hidden_act", "silu", &["silu"]).map(|_| ());
    let tied: Read = |config| config.bool_or("tie_word_embeddings", false).map(|_| ());
    let factor: Read = |config| {
        config
            .opt_object("rope_scaling")?
            .map_or(Ok(()), |scaling| scaling.f32_in("factor", 1.0..=64.0).map(|_| ()))
    };
    let cases: [(&str, Read, ErrorKind, &str); 22] = [
        (
            r#"{"num_attention_heads": 0}"#,
            heads,
            Invalid,
            "`num_attention_heads` is `0`, expected an integer from 1 to 1024",
        ),
        (r#"{}"#, heads, Invalid, "`num_attention_heads` is missing, expected an integer from 1 to 1024"),
        (r#"{"num_attention_heads": null}"#, heads, Invalid, "`num_attention_heads` is missing"),
        (r#"{"num_attention_heads": -8}"#, heads, Invalid, "`num_attention_heads` is `-8`"),
        (r#"{"num_attention_heads": 8.0}"#, heads, Invalid, "`num_attention_heads` is `8.0`"),
        (r#"{"num_attention_heads": "8"}"#, heads, Invalid, "`num_attention_heads` is `\\\"8\\\"`"),
        (r#"{"num_attention_heads": [8]}"#, heads, Invalid, "`num_attention_heads` is an array"),
        (
            r#"{"max_position_embeddings": 1099511627776}"#,
            positions,
            Invalid,
            "`max_position_embeddings` is `1099511627776`",
        ),
        (
            r#"{"max_position_embeddings": 18446744073709551616}"#,
            positions,
            Invalid,
            "`max_position_embeddings` is `1.8",
        ),
        (
            r#"{"num_hidden_layers": 1000000000}"#,
            layers,
            Invalid,
            "`num_hidden_layers` is `1000000000`, expected an integer from 1 to 512",
        ),
        (r#"{"num_hidden_layers": true}"#, layers, Invalid, "`num_hidden_layers` is `true`"),
        (r#"{"rms_norm_eps": 2}"#, eps, Invalid, "`rms_norm_eps` is `2`, expected a number from 0.0 to 1.0"),
        (r#"{"rms_norm_eps": -0.5}"#, eps, Invalid, "`rms_norm_eps` is `-0.5`"),
        (r#"{"rms_norm_eps": 1e39}"#, eps, Invalid, "`rms_norm_eps` is `1e+39`"),
        (r#"{"rms_norm_eps": "1e-5"}"#, eps, Invalid, "`rms_norm_eps` is"),
        (r#"{"model_type": "gpt5"}"#, kind, Unsupported, "`model_type` is `gpt5`, expected llama or qwen2"),
        (r#"{"model_type": 3}"#, kind, Invalid, "`model_type` is `3`"),
        (r#"{}"#, kind, Invalid, "`model_type` is missing, expected llama or qwen2"),
        (r#"{"hidden_act": "relu"}"#, act, Unsupported, "`hidden_act` is `relu`, expected silu"),
        (
            r#"{"tie_word_embeddings": 1}"#,
            tied,
            Invalid,
            "`tie_word_embeddings` is `1`, expected true or false",
        ),
        (r#"{"rope_scaling": [1]}"#, factor, Invalid, "`rope_scaling` is an array, expected an object"),
        (
            r#"{"rope_scaling": {"factor": 0}}"#,
            factor,
            Invalid,
            "`rope_scaling`: `factor` is `0`, expected a number from 1.0 to 64.0",
        ),
    ];
    for (text, read, kind, says) in cases {
        let config = serde_json::from_str(text).expect("it is valid JSON");
        let config = ConfigReader::new(&config, "config.json").expect("it is an object");
        expect_error(text, read(&config), kind, &["`config.json`: ", says]);
    }
}

#[test]
fn values_in_range_are_read() {
    let config = serde_json::json!({"n": 8, "eps": 1e-6, "whole": 1, "kind": "llama", "flag": true, "inner": {"x": 2}, "null": null});
    let config = ConfigReader::new(&config, "config.json").expect("it is an object");
    assert_eq!(config.usize_in("n", 1..=8).expect("in range"), 8);
    assert_eq!(config.f32_in("eps", 0.0..=1.0).expect("in range"), 1e-6);
    assert_eq!(config.f32_in("whole", 0.0..=1.0).expect("in range"), 1.0);
    assert_eq!(config.str_in("kind", &["bert", "llama"]).expect("known"), "llama");
    assert_eq!(config.str_or_in("act", "silu", &["silu"]).expect("a default"), "silu");
    assert!(
        config.bool_or("flag", false).expect("a bool") && !config.bool_or("other", false).expect("a default")
    );
    assert_eq!(config.opt_f32_in("null", 0.0..=1.0).expect("missing"), None);
    let inner = config.opt_object("inner").expect("an object").expect("it is there");
    assert_eq!(inner.usize_in("x", 2..=2).expect("in range"), 2);
    assert!(config.has("n") && !config.has("null") && !config.has("other"));
}

#[test]
fn text_that_is_not_a_plain_object_of_json_is_refused() {
    let utf16: Vec<u8> = "\u{FEFF}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: [(&str, Vec<u8>, &str); 17] = [
        ("empty", vec![], "EOF while parsing"),
        ("byte order mark", b"\xEF\xBB\xBF{}".to_vec(), "begins with a byte order mark"),
        ("UTF-16", utf16, "is UTF-16"),
        ("invalid UTF-8", b"{\"a\": \"\xFF\"}".to_vec(), "invalid UTF-8 after byte 7"),
        ("lone surrogate", br#"{"a": "\ud800"}"#.to_vec(), "line 1"),
        ("array", b"[]".to_vec(), "expected a JSON object"),
        ("number", b"1".to_vec(), "expected a JSON object"),
        ("cut", b"{\"a\": ".to_vec(), "EOF while parsing"),
        ("rest", b"{} x".to_vec(), "trailing characters"),
        ("NaN", b"{\"a\": NaN}".to_vec(), "line 1"),
        ("duplicate key", br#"{"heads": 8, "heads": 0}"#.to_vec(), "duplicate key `heads`"),
        ("inner duplicate key", br#"{"a": {"b": 1, "b": 2}}"#.to_vec(), "duplicate key `b`"),
        ("escaped duplicate key", br#"{"a": 1, "\u0061": 2}"#.to_vec(), "duplicate key `a`"),
        ("5000 digits", format!("{{\"a\": {}}}", "9".repeat(5000)).into_bytes(), "number out of range"),
        ("deep", format!("{{\"a\": {}", "[".repeat(200_000)).into_bytes(), "nests deeper than 64"),
        (
            "many values",
            format!("{{\"a\": [{}0]}}", "0,".repeat(40_000)).into_bytes(),
            "values, expected at most 32768",
        ),
        ("1 MB and more", vec![b' '; (1 << 20) + 1], "1048577 bytes, expected at most 1048576"),
    ];
    let weights: &'static [u8] = f32_tensors(&[("a", "1", &[1.0])]).leak();
    for file in ["config.json", "generation_config.json"] {
        for (name, bytes, says) in &cases {
            let bytes: &'static [u8] = bytes.clone().leak();
            let files = [(file, bytes), ("config.json", &b"{}"[..]), ("model.safetensors", weights)];
            let (result, peak) = crate::allocations::peak(|| Package::from_bundle("m", &files).map(|_| ()));
            expect_error(name, result, Invalid, &[&format!("`{file}`"), says]);
            assert!(peak <= bytes.len() + (1 << 20), "{name}: {peak} bytes for a text of {}", bytes.len());
        }
    }
}
