//! Tiny models with random weights, written as files and handed to candle with the same numbers.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::json;

/// Tensors by name, as candle sees them.
pub(crate) type Tensors = HashMap<String, Tensor>;

/// Sizes of a tiny decoder.
pub(crate) const HIDDEN: usize = 64;
pub(crate) const LAYERS: usize = 3;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;
pub(crate) const HEAD_DIM: usize = HIDDEN / HEADS;
pub(crate) const FFN: usize = 96;
pub(crate) const VOCAB: usize = 101;
pub(crate) const CONTEXT: usize = 256;

/// Numbers that look random and are the same every time (Steele and Vigna's SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Uniform around zero.
    pub(crate) fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let count = shape.iter().product();
        let values: Vec<f32> =
            (0..count).map(|_| (self.next() as f32 / u64::MAX as f32 - 0.5) * 2.0 * scale).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Around one, for norms.
    fn gains(&mut self, width: usize) -> Tensor {
        (self.tensor(&[width], 0.2) + 1.0).unwrap()
    }
}

/// A Llama of three layers, under its Hugging Face names.
pub(crate) fn llama_tensors(tied: bool) -> Tensors {
    let mut random = Random::new(7);
    let mut tensors = Tensors::from([
        ("model.embed_tokens.weight".to_owned(), random.tensor(&[VOCAB, HIDDEN], 1.0)),
        ("model.norm.weight".to_owned(), random.gains(HIDDEN)),
    ]);
    if !tied {
        tensors.insert("lm_head.weight".into(), random.tensor(&[VOCAB, HIDDEN], 0.3));
    }
    for layer in 0..LAYERS {
        for (name, rows, columns) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", FFN, HIDDEN),
            ("mlp.up_proj", FFN, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ] {
            tensors
                .insert(format!("model.layers.{layer}.{name}.weight"), random.tensor(&[rows, columns], 0.25));
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            tensors.insert(format!("model.layers.{layer}.{name}.weight"), random.gains(HIDDEN));
        }
    }
    tensors
}

/// `config.json` of that Llama.
pub(crate) fn llama_config() -> serde_json::Value {
    json!({"model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FFN, "vocab_size": VOCAB,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": CONTEXT, "hidden_act": "silu",
        "bos_token_id": null, "eos_token_id": null})
}

/// A BERT of three layers and two heads over it.
pub(crate) fn bert_tensors(labels: usize, tags: usize) -> Tensors {
    let mut random = Random::new(8);
    let mut tensors = Tensors::new();
    let mut linear = |random: &mut Random, name: String, rows: usize, columns: usize| {
        tensors.insert(format!("{name}.weight"), random.tensor(&[rows, columns], 0.25));
        tensors.insert(format!("{name}.bias"), random.tensor(&[rows], 0.1));
    };
    for layer in 0..LAYERS {
        let layer = format!("encoder.layer.{layer}");
        for part in ["query", "key", "value"] {
            linear(&mut random, format!("{layer}.attention.self.{part}"), HIDDEN, HIDDEN);
        }
        linear(&mut random, format!("{layer}.attention.output.dense"), HIDDEN, HIDDEN);
        linear(&mut random, format!("{layer}.intermediate.dense"), FFN, HIDDEN);
        linear(&mut random, format!("{layer}.output.dense"), HIDDEN, FFN);
    }
    linear(&mut random, "heads.intent".into(), labels, HIDDEN);
    linear(&mut random, "heads.entities".into(), tags, HIDDEN);
    let norms = (0..LAYERS)
        .flat_map(|layer| {
            ["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}.LayerNorm"))
        })
        .chain(["embeddings.LayerNorm".to_owned()]);
    for name in norms {
        tensors.insert(format!("{name}.weight"), random.gains(HIDDEN));
        tensors.insert(format!("{name}.bias"), random.tensor(&[HIDDEN], 0.1));
    }
    for (name, rows) in [("word", VOCAB), ("position", CONTEXT), ("token_type", 2)] {
        let name = format!("embeddings.{name}_embeddings.weight");
        tensors.insert(name, random.tensor(&[rows, HIDDEN], 1.0));
    }
    tensors
}

/// `config.json` of that BERT.
pub(crate) fn bert_config() -> serde_json::Value {
    json!({"model_type": "bert", "hidden_size": HIDDEN, "intermediate_size": FFN, "vocab_size": VOCAB,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "initializer_range": 0.02, "pad_token_id": 0})
}

/// Writes a model directory with F32 tensors.
pub(crate) fn write(dir: &Path, config: &serde_json::Value, tensors: &Tensors) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    candle_core::safetensors::save(tensors, dir.join("model.safetensors")).unwrap();
}

/// Writes a model directory whose big matrices are Q8_0 blocks, and gives candle the numbers those blocks stand for.
pub(crate) fn write_q8_0(dir: &Path, config: &serde_json::Value, tensors: &Tensors) -> Tensors {
    write_blocks(dir, config, json!({"quant_method": "q8_0", "block_size": 32}), tensors)
}

/// The same with one scale a row.
pub(crate) fn write_q8_0_rows(dir: &Path, config: &serde_json::Value, tensors: &Tensors) -> Tensors {
    let quantization = json!({"quant_method": "q8_0", "block_size": 32, "scales": "row"});
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), with_equal_maxima(tensor))).collect();
    write_blocks(dir, config, quantization, &tensors)
}

/// A matrix whose rows have the largest magnitude of a row in each 32 of it: then all blocks of a row have one scale.
fn with_equal_maxima(tensor: &Tensor) -> Tensor {
    let Ok((rows, columns)) = tensor.dims2() else { return tensor.clone() };
    let mut values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    for row in values.chunks_exact_mut(columns) {
        let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        row.chunks_mut(32).for_each(|block| block[0] = largest.copysign(block[0]));
    }
    Tensor::from_vec(values, &[rows, columns], &Device::Cpu).unwrap()
}

fn write_blocks(
    dir: &Path,
    config: &serde_json::Value,
    quantization: serde_json::Value,
    tensors: &Tensors,
) -> Tensors {
    let mut config = config.clone();
    config["quantization_config"] = quantization;
    let mut files = Tensors::new();
    let mut exact = Tensors::new();
    for (name, tensor) in tensors {
        let matrix = tensor.dims().len() == 2
            && !name.contains("heads.")
            && !name.contains("position")
            && !name.contains("type");
        if matrix {
            let quantized = QTensor::quantize(tensor, GgmlDType::Q8_0).unwrap();
            let (rows, columns) = tensor.dims2().unwrap();
            let bytes = quantized.data().unwrap().into_owned();
            let bytes = Tensor::from_vec(bytes, &[rows, columns / 32 * 34], &Device::Cpu).unwrap();
            files.insert(name.clone(), bytes);
            exact.insert(name.clone(), quantized.dequantize(&Device::Cpu).unwrap());
        } else {
            files.insert(name.clone(), tensor.clone());
            exact.insert(name.clone(), tensor.clone());
        }
    }
    write(dir, &config, &files);
    exact
}

/// Where two answers differ most, relative to the largest number in them.
pub(crate) fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}
