//! A decoder of a given shape with random weights: speed does not depend on what weights say.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

/// The shape of a Llama-family decoder with tied embeddings.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Rows of the embedding matrix.
    pub vocab: usize,
    /// Longest prompt and answer together.
    pub context: usize,
}

/// 135 million parameters.
pub const SHAPE_135M: Shape =
    Shape { hidden: 576, layers: 30, heads: 9, kv_heads: 3, ffn: 1536, vocab: 49_152, context: 4096 };

impl Shape {
    /// Writes a model folder with Q8_0 matrices; tokenizer and chat template are those of the bundled responder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/responder");
        for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            fs::copy(bundled.join(file), folder.join(file))?;
        }
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim(), "intermediate_size": self.ffn,
            "vocab_size": self.vocab, "max_position_embeddings": self.context, "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0, "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true,
            "bos_token_id": null, "eos_token_id": END, "pad_token_id": END + 1,
            "quantization_config": {"quant_method": "q8_0", "block_size": BLOCK},
        });
        fs::write(folder.join("config.json"), config.to_string())?;
        self.write_weights(&folder.join("model.safetensors"))
    }

    fn write_weights(&self, path: &Path) -> io::Result<()> {
        let (mut header, mut end) = (Map::new(), 0);
        let tensors = self.tensors();
        for (name, rows, columns) in &tensors {
            let (kind, shape, bytes) = match rows {
                Some(rows) => {
                    ("U8", json!([rows, columns / BLOCK * BLOCK_BYTES]), rows * columns / BLOCK * BLOCK_BYTES)
                }
                None => ("F32", json!([columns]), columns * 4),
            };
            header.insert(
                name.clone(),
                json!({"dtype": kind, "shape": shape, "data_offsets": [end, end + bytes]}),
            );
            end += bytes;
        }
        let mut header = Value::from(header).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut out = BufWriter::new(fs::File::create(path)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for (name, rows, columns) in tensors {
            // Rows without a token are nothing, and never the likeliest: what is written is seen.
            let seen = if name.contains("embed") { TOKENS } else { usize::MAX };
            for block in 0..rows.unwrap_or(0) * columns / BLOCK {
                // About a standard deviation of 0.04: an F16 of 2^-11 times whole numbers up to 127.
                let scale = if block * BLOCK / columns < seen { 0x1000_u16 } else { 0 };
                out.write_all(&scale.to_le_bytes())?;
                for _ in 0..BLOCK / 8 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    out.write_all(&state.to_le_bytes())?;
                }
            }
            if rows.is_none() {
                (0..columns).try_for_each(|_| out.write_all(&1f32.to_le_bytes()))?;
            }
        }
        out.flush()
    }

    /// Name, rows (none: a vector of ones) and columns of every tensor.
    fn tensors(&self) -> Vec<(String, Option<usize>, usize)> {
        let Self { hidden, ffn, .. } = *self;
        let (queries, keys) = (self.heads * self.head_dim(), self.kv_heads * self.head_dim());
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), Some(self.vocab), hidden)];
        for layer in 0..self.layers {
            for (name, rows, columns) in [
                ("input_layernorm", None, hidden),
                ("self_attn.q_proj", Some(queries), hidden),
                ("self_attn.k_proj", Some(keys), hidden),
                ("self_attn.v_proj", Some(keys), hidden),
                ("self_attn.o_proj", Some(hidden), queries),
                ("post_attention_layernorm", None, hidden),
                ("mlp.gate_proj", Some(ffn), hidden),
                ("mlp.up_proj", Some(ffn), hidden),
                ("mlp.down_proj", Some(hidden), ffn),
            ] {
                tensors.push((format!("model.layers.{layer}.{name}.weight"), rows, columns));
            }
        }
        tensors.push(("model.norm.weight".to_owned(), None, hidden));
        tensors
    }

    fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }
}

/// Tokens of the bundled tokenizer.
const TOKENS: usize = 5120;

/// The token that ends a turn in the bundled tokenizer.
pub const END: u32 = 3;

/// Weights of a Q8_0 block: an F16 scale, then so many whole numbers.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 2 + BLOCK;
