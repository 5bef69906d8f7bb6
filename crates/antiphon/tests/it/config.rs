//! What `open` refuses, and how memory is shared out.

use std::path::{Path, PathBuf};

use antiphon::{Engine, EngineConfig, ErrorKind, ModelSource, Request};
use sha2::{Digest, Sha256};

use crate::open;

fn refused(config: EngineConfig) -> antiphon::Error {
    Engine::open(config).err().expect("refused")
}

fn bundled(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(model)
}

fn copy(model: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(bundled(model)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn models_open_from_directories_as_from_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    copy("analyst", &dir.path().join("a"));
    copy("responder", &dir.path().join("r"));
    let config = EngineConfig::default()
        .models_dir(dir.path())
        .analyst(ModelSource::from("a"))
        .responder(ModelSource::from("r"));
    let engine = open(config.add_responder("second", ModelSource::Bundled));
    let names: Vec<String> = engine.models().into_iter().map(|model| model.model_name).collect();
    assert_eq!(names, ["analyst", "responder", "second"]);
    let answer = |model: &str| {
        engine.process_blocking(Request::new("Hello there").max_tokens(12).model(model)).unwrap()
    };
    let (first, second) = (answer("responder"), answer("second"));
    assert_eq!(first.response, second.response);
    let models = engine.models();
    assert_eq!(models[1].fingerprint, models[2].fingerprint, "the same bytes, wherever they lie");
}

/// A folder with the bundled sentiment head under other label names.
fn head_folder(dir: &Path, encoder: &str) -> PathBuf {
    let bytes = std::fs::read(bundled("analyst").join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let mut tensors = serde_json::Map::new();
    let mut data = Vec::new();
    for name in ["heads.sentiment.weight", "heads.sentiment.bias"] {
        let range = |index: usize| 8 + header + json[name]["data_offsets"][index].as_u64().unwrap() as usize;
        let start = data.len();
        data.extend_from_slice(&bytes[range(0)..range(1)]);
        let (dtype, shape) = (json[name]["dtype"].clone(), json[name]["shape"].clone());
        let tensor = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        tensors.insert(name.into(), tensor);
    }
    let tensors = serde_json::Value::from(tensors).to_string();
    let file = [&(tensors.len() as u64).to_le_bytes(), tensors.as_bytes(), &data].concat();
    let sha256: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = serde_json::json!({"schema": 1, "name": "mood", "version": "1", "task": "sentiment", "licence": "MIT",
        "files": [{"path": "heads.safetensors", "sha256": sha256, "bytes": file.len()}], "encoder": encoder,
        "heads": {"sentiment": {"labels": ["bad", "plain", "good"], "tensors": "heads.sentiment"}}});
    let folder = dir.join("mood");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("heads.safetensors"), file).unwrap();
    std::fs::write(folder.join("antiphon.json"), manifest.to_string()).unwrap();
    folder
}

#[test]
fn a_trained_head_takes_the_place_of_the_analysts_own() {
    let dir = tempfile::tempdir().unwrap();
    let plain = open(EngineConfig::default());
    let folder = head_folder(dir.path(), &plain.models()[0].fingerprint);
    let mut config = EngineConfig::default();
    config.sentiment = Some(ModelSource::Path(folder));
    let engine = open(config);
    let text = "I love this, thank you so much!";
    assert_eq!(plain.analyze_blocking(text).unwrap().sentiment.label, "positive");
    assert_eq!(engine.analyze_blocking(text).unwrap().sentiment.label, "good");
    let reply = engine.process_blocking(Request::new(text).max_tokens(2)).unwrap();
    assert!(reply.metadata.response_generation.repro.models["sentiment"].starts_with("blake3:"));

    let mut config = EngineConfig::default();
    config.sentiment =
        Some(ModelSource::Path(head_folder(dir.path(), &format!("blake3:{}", "0".repeat(64)))));
    let error = refused(config);
    assert_eq!(error.kind(), ErrorKind::ModelInvalid);
    assert!(error.to_string().contains("sentiment: encoder blake3:0000"), "{error}");

    let mut config = EngineConfig::default();
    config.intent = Some(ModelSource::Path(bundled("responder")));
    assert_eq!(refused(config).kind(), ErrorKind::ModelInvalid);
}

#[test]
fn a_missing_truncated_or_swapped_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(EngineConfig::default().responder(ModelSource::Path(dir.path().join("nowhere"))));
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.to_string().contains("nowhere"), "{error}");

    let cut = dir.path().join("cut");
    copy("responder", &cut);
    let weights = cut.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let error = refused(EngineConfig::default().responder(ModelSource::Path(cut)));
    assert_eq!(error.kind(), ErrorKind::IntegrityMismatch);
    assert!(error.to_string().contains("model.safetensors"), "{error}");

    let flipped = dir.path().join("flipped");
    copy("responder", &flipped);
    let mut bytes = bytes;
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(flipped.join("model.safetensors"), bytes).unwrap();
    let error = refused(EngineConfig::default().responder(ModelSource::Path(flipped)));
    assert_eq!(error.kind(), ErrorKind::IntegrityMismatch);

    let swapped = refused(EngineConfig::default().responder(ModelSource::Path(bundled("analyst"))));
    assert_eq!(swapped.kind(), ErrorKind::UnsupportedModel, "{swapped}");
    let swapped = refused(EngineConfig::default().analyst(ModelSource::Path(bundled("responder"))));
    assert_eq!(swapped.kind(), ErrorKind::UnsupportedModel, "{swapped}");
}

#[test]
fn what_this_build_cannot_do_is_refused_by_name() {
    for (json, needle) in [
        (r#"{"device": "cuda"}"#, "`device`"),
        (r#"{"responder": "hub:owner/name"}"#, "hub"),
        (r#"{"context_tokens": 4000000}"#, "`context_tokens`"),
        (r#"{"responders": {"responder": "bundled"}}"#, "`responders`"),
        (r#"{"threads": 0}"#, "`threads`"),
    ] {
        let error = EngineConfig::from_json(json).and_then(Engine::open).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{json}: {error}");
        assert!(error.to_string().contains(needle), "{json}: {error}");
    }
}

#[test]
fn faults_30_a_limit_below_the_models_says_what_they_need() {
    let error = refused(EngineConfig::default().memory_limit_bytes(1 << 20));
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    assert!(error.to_string().contains("1048576"), "{error}");
    let engine = open(EngineConfig::default().memory_limit_bytes(96 << 20));
    assert!(engine.cache().stats().max_bytes <= 50 << 20);
    engine.process_blocking(Request::new("Hello").max_tokens(4)).unwrap();
}

#[test]
fn without_an_analyst_turns_can_still_be_continued() {
    let engine = open(EngineConfig::default().analyst(None));
    assert_eq!(engine.process_blocking(Request::new("x")).unwrap_err().kind(), ErrorKind::BackendUnavailable);
    assert_eq!(engine.analyze_blocking("x").unwrap_err().kind(), ErrorKind::BackendUnavailable);
    let request = antiphon::Generate::messages([antiphon::Message::user("Hello")]).max_tokens(4);
    engine.generate_blocking(request).unwrap();
}

#[test]
fn a_key_value_pool_too_small_for_a_request_is_out_of_budget() {
    let config = EngineConfig::from_json(r#"{"kv_cache_bytes": 262144}"#).unwrap();
    let error = open(config).process_blocking(Request::new("Hello").max_tokens(900)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    assert!(error.to_string().contains("`kv_cache_bytes`"), "{error}");
}

#[test]
fn health_and_diagnosis_tell_what_is_there() {
    let engine = open(EngineConfig::default());
    let health = serde_json::to_value(engine.health()).unwrap();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["ready"], true);
    let diagnosis = engine.diagnose();
    assert!(diagnosis.recommendations.is_empty(), "{:?}", diagnosis.recommendations);
    let json = serde_json::to_value(&diagnosis).unwrap();
    for check in json["checks"].as_array().unwrap() {
        assert_eq!(check["result"], "success", "{check}");
    }
    assert_eq!(json["configuration"]["valid"], true);
    engine.close().unwrap();
    assert_eq!(serde_json::to_value(engine.health()).unwrap()["status"], "unhealthy");
}
