//! BERT-family encoder with sequence heads and a token head: one pass, all answers.
//!
//! A batch is not padded: the rows of all texts stand one after another and attention stays inside each text's span, so a
//! text's numbers do not depend on its neighbours.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use antiphon_kernels::{Arena, Matrix, Pool, Program, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{ConfigReader, Package, Weights};
use crate::matrix::Packer;

/// The shape of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Width of a token's vector, and of a text's.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Rows of the word embedding.
    pub vocab: usize,
    /// The longest text in tokens, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    norm_eps: f32,
}

/// A loaded encoder.
pub struct Encoder {
    config: EncoderConfig,
    words: Matrix,
    /// Position embeddings, the embedding of token type 0 already added.
    positions: Matrix,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    qkv: Linear,
    attention_out: Linear,
    attention_norm: Norm,
    inner: Linear,
    out: Linear,
    norm: Norm,
}

struct Linear {
    weight: Matrix,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// A linear head: one logit per label.
pub struct Head(Linear);

/// Linear heads that see the same, as one product.
pub struct Heads {
    product: Linear,
    /// The logits of each head among those of all.
    columns: Vec<Range<usize>>,
}

/// What a pass computed for one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Mean of the token vectors, `[hidden]`.
    pub vector: Vec<f32>,
    /// Logits of each sequence head, in the order the heads were fused.
    pub sequence: Vec<Vec<f32>>,
    /// Logits of the token head, `[tokens][labels]`; empty without one.
    pub tokens: Vec<Vec<f32>>,
}

impl Encoder {
    /// Packs the weights of a model.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another architecture, [`ErrorKind::Invalid`] when config and tensors disagree.
    pub fn load(package: &Package) -> Result<Self> {
        let config = EncoderConfig::from_json(&package.config_reader()?)?;
        let weights = &package.weights;
        let packer = &Packer::of_all(weights);
        let EncoderConfig { hidden, ffn, .. } = config;
        let prefix =
            if weights.tensor("bert.embeddings.word_embeddings.weight").is_some() { "bert." } else { "" };
        let name = |part: &str| format!("{prefix}{part}");

        let words = packer.matrix(&[(&name("embeddings.word_embeddings.weight"), config.vocab)], hidden)?;
        let types = package.config_reader()?.usize_in("type_vocab_size", 1..=16)?;
        let types =
            weights.expect(&name("embeddings.token_type_embeddings.weight"), &[types, hidden])?.to_f32()?;
        let mut positions = weights
            .expect(&name("embeddings.position_embeddings.weight"), &[config.max_tokens, hidden])?
            .to_f32()?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(x, t)| *x += t);
        }
        let positions = Matrix::f32(&[&positions], hidden)
            .map_err(|error| Error::new(ErrorKind::Invalid, format!("position embeddings: {error}")))?;
        let layers = (0..config.layers)
            .map(|layer| {
                let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
                let [q, k, v] = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
                Ok(Layer {
                    qkv: Linear::load(packer, &[(&q, hidden), (&k, hidden), (&v, hidden)], hidden)?,
                    attention_out: Linear::load(
                        packer,
                        &[(&name("attention.output.dense"), hidden)],
                        hidden,
                    )?,
                    attention_norm: Norm::load(packer, &name("attention.output.LayerNorm"), hidden)?,
                    inner: Linear::load(packer, &[(&name("intermediate.dense"), ffn)], hidden)?,
                    out: Linear::load(packer, &[(&name("output.dense"), hidden)], ffn)?,
                    norm: Norm::load(packer, &name("output.LayerNorm"), hidden)?,
                })
            })
            .collect::<Result<_>>()?;
        let norm = Norm::load(packer, &name("embeddings.LayerNorm"), hidden)?;
        Ok(Self { config, words, positions, norm, layers })
    }

    /// Runs a batch of texts, given as token ids with their special tokens. Sequence heads see the mean of a text's token
    /// vectors, the token head sees each token.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] when `interrupt` was set (read before each layer). [`ErrorKind::Internal`] for an empty
    /// or too long text, or a token outside the vocabulary.
    pub fn pass(
        &self,
        pool: &mut Pool,
        arena: &mut Arena,
        texts: &[&[u32]],
        sequence_heads: Option<&Heads>,
        token_head: Option<&Head>,
        interrupt: &AtomicBool,
    ) -> Result<Vec<Encoded>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        self.check(texts)?;
        let ids = texts.concat();
        let positions: Vec<u32> = texts.iter().flat_map(|text| 0..text.len() as u32).collect();
        let spans: Vec<Range<usize>> = texts
            .iter()
            .scan(0, |start, text| {
                let span = *start..*start + text.len();
                *start = span.end;
                Some(span)
            })
            .collect();

        let mut program = Program::new();
        let words = program.embed(&self.words, &ids);
        let places = program.embed(&self.positions, &positions);
        let x = program.add(words, places);
        let mut x = self.norm.apply(&mut program, x, self.config.norm_eps); // [tokens, hidden]
        for layer in &self.layers {
            program.checkpoint();
            x = self.layer(&mut program, layer, x, &spans);
        }
        let vectors = program.mean(x, &spans); // [texts, hidden]
        let sequence = sequence_heads.map(|heads| {
            let logits = heads.product.apply(&mut program, vectors);
            program.keep(logits); // [texts, labels of all heads]
            heads.columns.iter().map(|columns| logits.columns(columns.clone())).collect::<Vec<Value>>()
        });
        let tokens = token_head.map(|head| {
            let logits = head.0.apply(&mut program, x);
            program.keep(logits) // [tokens, labels]
        });
        let vectors = program.keep(vectors);
        pool.run(&program, arena, None, interrupt)
            .map_err(|_| Error::new(ErrorKind::Interrupted, "the pass was interrupted"))?;

        let encoded = |(text, span): (usize, &Range<usize>)| Encoded {
            vector: arena.read(vectors).row(text).to_vec(),
            sequence: sequence
                .iter()
                .flatten()
                .map(|&logits| arena.read(logits).row(text).to_vec())
                .collect(),
            tokens: tokens
                .map(|logits| span.clone().map(|row| arena.read(logits).row(row).to_vec()).collect())
                .unwrap_or_default(),
        };
        Ok(spans.iter().enumerate().map(encoded).collect())
    }

    fn layer<'a>(
        &self,
        program: &mut Program<'a>,
        layer: &'a Layer,
        x: Value,
        spans: &'a [Range<usize>],
    ) -> Value {
        let EncoderConfig { hidden, heads, norm_eps, .. } = self.config;
        let qkv = layer.qkv.apply(program, x); // [tokens, 3 hidden]
        let [q, k, v] = [0, 1, 2].map(|part| qkv.columns(part * hidden..(part + 1) * hidden));
        let mixed = program.attend(q, k, v, heads, spans);
        let attended = layer.attention_out.apply_add(program, mixed, x);
        let x = layer.attention_norm.apply(program, attended, norm_eps);
        let inner = program.linear_gelu(x, &layer.inner.weight, Some(&layer.inner.bias)); // [tokens, ffn]
        let out = layer.out.apply_add(program, inner, x);
        layer.norm.apply(program, out, norm_eps)
    }

    fn check(&self, texts: &[&[u32]]) -> Result<()> {
        let fail = |what: String| Err(Error::new(ErrorKind::Internal, format!("encoder batch: {what}")));
        for (index, text) in texts.iter().enumerate() {
            if text.is_empty() || text.len() > self.config.max_tokens {
                let limit = self.config.max_tokens;
                return fail(format!("text {index} has {} tokens, expected 1 to {limit}", text.len()));
            }
            if let Some(id) = text.iter().find(|&&id| id as usize >= self.config.vocab) {
                return fail(format!("text {index} has token {id}, expected below {}", self.config.vocab));
            }
        }
        Ok(())
    }

    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let layer = |l: &Layer| {
            [&l.qkv, &l.attention_out, &l.inner, &l.out].map(|m| m.weight.bytes()).iter().sum::<usize>()
        };
        self.words.bytes() + self.positions.bytes() + self.layers.iter().map(layer).sum::<usize>()
    }
}

impl Head {
    /// Loads `{prefix}.weight [labels, hidden]` and `{prefix}.bias [labels]`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when a tensor is missing or has another shape.
    pub fn load(weights: &Weights, prefix: &str, labels: usize, hidden: usize) -> Result<Self> {
        Linear::load(&Packer::of_few(weights), &[(prefix, labels)], hidden).map(Self)
    }
}

impl Heads {
    /// Packs heads together, as F32: they are small, and may come from files of several formats.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for no heads.
    ///
    /// # Panics
    /// If they were loaded for vectors of several widths.
    pub fn fuse(heads: &[Head]) -> Result<Self> {
        let width = heads.first().map_or(0, |head| head.0.weight.k());
        let mut weights = Vec::new();
        let mut columns = Vec::new();
        for Head(Linear { weight, .. }) in heads {
            let start = weights.len();
            weights.resize(start + weight.n() * width, 0.0);
            let rows = weights[start..].chunks_exact_mut(width);
            rows.enumerate().for_each(|(row, out)| weight.row(row, out));
            columns.push(start / width..weights.len() / width);
        }
        let weight =
            Matrix::f32(&[&weights], width).map_err(|error| Error::invalid(format!("heads: {error}")))?;
        let bias = heads.iter().flat_map(|head| &head.0.bias).copied().collect();
        Ok(Self { product: Linear { weight, bias }, columns })
    }
}

impl EncoderConfig {
    fn from_json(config: &ConfigReader<'_>) -> Result<Self> {
        config.str_in("model_type", &["bert"])?;
        config.str_or_in("hidden_act", "gelu", &["gelu"])?;
        config.str_or_in("position_embedding_type", "absolute", &["absolute"])?;
        let hidden = config.usize_in("hidden_size", 1..=1 << 16)?;
        let heads = config.usize_in("num_attention_heads", 1..=1024)?;
        if !hidden.is_multiple_of(heads) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("config.json: hidden_size {hidden} over {heads} heads, expected a multiple"),
            ));
        }
        Ok(Self {
            hidden,
            layers: config.usize_in("num_hidden_layers", 1..=512)?,
            heads,
            ffn: config.usize_in("intermediate_size", 1..=1 << 17)?,
            vocab: config.usize_in("vocab_size", 1..=1 << 21)?,
            max_tokens: config.usize_in("max_position_embeddings", 3..=1 << 16)?,
            norm_eps: config.opt_f32_in("layer_norm_eps", 0.0..=1.0)?.unwrap_or(1e-12),
        })
    }
}

impl Linear {
    /// Loads `{name}.weight` and `{name}.bias` of each part, stacked by rows.
    fn load(packer: &Packer<'_>, parts: &[(&str, usize)], k: usize) -> Result<Self> {
        let names: Vec<(String, usize)> =
            parts.iter().map(|(name, rows)| (format!("{name}.weight"), *rows)).collect();
        let names: Vec<(&str, usize)> = names.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        let weight = packer.layer_matrix(&names, k)?;
        let biases = parts
            .iter()
            .map(|(name, rows)| packer.vector(&format!("{name}.bias"), *rows))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { weight, bias: biases.concat() })
    }

    fn apply<'a>(&'a self, program: &mut Program<'a>, x: Value) -> Value {
        program.linear(x, &self.weight, Some(&self.bias))
    }

    fn apply_add<'a>(&'a self, program: &mut Program<'a>, x: Value, residual: Value) -> Value {
        program.linear_add(x, &self.weight, Some(&self.bias), residual)
    }
}

impl Norm {
    fn load(packer: &Packer<'_>, name: &str, width: usize) -> Result<Self> {
        Ok(Self {
            weight: packer.vector(&format!("{name}.weight"), width)?,
            bias: packer.vector(&format!("{name}.bias"), width)?,
        })
    }

    fn apply<'a>(&'a self, program: &mut Program<'a>, x: Value, eps: f32) -> Value {
        program.layer_norm(x, &self.weight, &self.bias, eps)
    }
}
