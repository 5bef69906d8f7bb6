//! Llama-family decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied or untied output.
//!
//! Weights are immutable and shared. A step takes rows of many sequences at once; the key/value rows of the sequences live
//! in a [`BlockPool`] outside the model, so what runs together is the caller's choice and no result depends on it.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use antiphon_kernels::{Arena, KvRow, Matrix, Pool, Program, RopeScaling, RopeStyle, RopeTable, Rows, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{ConfigReader, GgufMetadata, Package, Weights};
use crate::kv::{BlockPool, BlockTable};
use crate::matrix::Packer;
use crate::parallel::in_parallel;
use crate::sampling::Logits;

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Positions the model was made for.
    pub context_tokens: usize,
    rms_eps: f32,
    rope_theta: f32,
    rope_scaling: Option<RopeScaling>,
    rope_style: RopeStyle,
}

/// A loaded decoder.
pub struct Decoder {
    config: DecoderConfig,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// None: the embedding serves as output (tied).
    output: Option<Matrix>,
    rope: RopeTable,
}

struct Layer {
    attention_norm: Vec<f32>,
    qkv: Matrix,
    qkv_bias: Option<Vec<f32>>,
    attention_out: Matrix,
    ffn_norm: Vec<f32>,
    gate_up: Matrix,
    down: Matrix,
}

impl Layer {
    fn load(packer: &Packer<'_>, config: &DecoderConfig, names: &Names, layer: usize) -> Result<Self> {
        let DecoderConfig { hidden, heads, kv_heads, head_dim, ffn, .. } = *config;
        let name = |part: &str| format!("{}{layer}.{part}", names.layer);
        let [q, k, v] = [name(names.q), name(names.k), name(names.v)];
        let qkv = [(q.as_str(), heads * head_dim), (&k, kv_heads * head_dim), (&v, kv_heads * head_dim)];
        let [gate, up] = [name(names.gate), name(names.up)];
        Ok(Self {
            attention_norm: packer.vector(&name(names.attention_norm), hidden)?,
            qkv: packer.matrix(&qkv, hidden)?,
            qkv_bias: qkv_bias(packer, &qkv)?,
            attention_out: packer.matrix(&[(&name(names.attention_out), hidden)], heads * head_dim)?,
            ffn_norm: packer.vector(&name(names.ffn_norm), hidden)?,
            gate_up: packer.matrix(&[(&gate, ffn), (&up, ffn)], hidden)?,
            down: packer.matrix(&[(&name(names.down), hidden)], ffn)?,
        })
    }
}

/// One row of a step: a token of some sequence at its position.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The token to read.
    pub token: u32,
    /// Its position in its sequence, from 0; all earlier positions are in the table already or earlier in this step.
    pub position: u32,
    /// The sequence's blocks.
    pub table: &'a BlockTable,
    /// Whether the logits after this token are wanted.
    pub wants_logits: bool,
}

/// The logits of a step, `[rows that want them, vocab]`.
#[derive(Clone, Copy, Debug)]
pub struct StepLogits<'a> {
    values: Rows<'a>,
    peaks: Rows<'a>,
}

impl<'a> StepLogits<'a> {
    /// Those after the `row`th of the rows that wanted some.
    ///
    /// # Panics
    /// If there were not so many.
    pub fn row(self, row: usize) -> Logits<'a> {
        Logits::new(self.values.row(row), self.peaks.row(row))
    }
}

impl Decoder {
    /// Reads, packs and hashes the weights of a model on so many threads.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another architecture, [`ErrorKind::Invalid`] when config and tensors disagree.
    pub fn load(package: &Package, threads: usize) -> Result<Self> {
        let config = DecoderConfig::of(package)?;
        let names = if package.gguf.is_some() { &GGUF_NAMES } else { &HF_NAMES };
        let DecoderConfig { hidden, vocab, .. } = config;
        let packer = Packer::of_all(&package.weights);
        let (embedding, output) = (OnceLock::new(), OnceLock::new());
        let table = |name, place: &OnceLock<Matrix>| {
            let table = packer.matrix(&[(name, vocab)], hidden)?;
            place.get_or_init(|| table);
            Ok(None)
        };
        // The long ones come first.
        let layers = in_parallel(2 + config.layers, threads, |index| match index {
            0 => table(names.embedding, &embedding),
            1 if packer.weights.tensor(names.output).is_some() => table(names.output, &output),
            1 => Ok(None),
            _ => Layer::load(&packer, &config, names, index - 2).map(Some),
        })?;
        let layers = layers.into_iter().flatten().collect();
        let embedding = embedding.into_inner().expect("one of the parts");
        let output = output.into_inner();
        let norm = packer.vector(names.norm, hidden)?;
        let rope = RopeTable::new(
            config.head_dim,
            config.context_tokens,
            config.rope_theta,
            config.rope_scaling,
            config.rope_style,
        );
        Ok(Self { config, embedding, layers, norm, output, rope })
    }

    /// Reads `rows` and returns the logits after those that want them, in their order. Rows of one sequence must come in order of
    /// position.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] when `interrupt` was set (read before each layer): rows read so far may have been stored,
    /// reading them again stores the same. [`ErrorKind::Internal`] for a token or position outside the model.
    pub fn step<'a>(
        &self,
        pool: &mut Pool,
        arena: &'a mut Arena,
        kv: &mut BlockPool,
        rows: &[Row<'_>],
        interrupt: &AtomicBool,
    ) -> Result<Option<StepLogits<'a>>> {
        self.check(rows)?;
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        let places: Vec<KvRow<'_>> =
            rows.iter().map(|row| KvRow { table: row.table.blocks(), position: row.position }).collect();
        let wanted: Vec<u32> =
            (0..rows.len() as u32).filter(|&row| rows[row as usize].wants_logits).collect();

        let wanted_places: Vec<KvRow<'_>> = wanted.iter().map(|&row| places[row as usize]).collect();

        let mut program = Program::new();
        let mut x = program.embed(&self.embedding, &tokens); // [rows, hidden]
        for (index, layer) in self.layers.iter().enumerate() {
            program.checkpoint();
            let q = self.store(&mut program, layer, index, x, &places);
            if index + 1 < self.layers.len() || wanted.len() == rows.len() {
                x = self.look_back(&mut program, layer, index, x, q, &places);
            } else if !wanted.is_empty() {
                // Of rows whose logits nobody wants, only keys and values are left to be computed.
                let [x_wanted, q] = [x, q].map(|value| program.select(value, &wanted));
                x = self.look_back(&mut program, layer, index, x_wanted, q, &wanted_places);
            }
        }
        let logits = (!wanted.is_empty()).then(|| {
            let last = program.rms_norm(x, &self.norm, self.config.rms_eps);
            let output = self.output.as_ref().unwrap_or(&self.embedding);
            let (values, peaks) = program.linear_and_peaks(last, output);
            [values, peaks].map(|value| program.keep(value)) // [wanted, vocab], [wanted, vocab / 32]
        });
        pool.run(&program, arena, Some(kv.store()), interrupt)
            .map_err(|_| Error::new(ErrorKind::Interrupted, "the step was interrupted"))?;
        Ok(logits.map(|[values, peaks]| StepLogits { values: arena.read(values), peaks: arena.read(peaks) }))
    }

    /// Stores the keys and values of a layer; returns its queries, `[rows, heads * head_dim]`.
    fn store<'a>(
        &'a self,
        program: &mut Program<'a>,
        layer: &'a Layer,
        index: usize,
        x: Value,
        places: &'a [KvRow<'a>],
    ) -> Value {
        let DecoderConfig { heads, kv_heads, head_dim, rms_eps, .. } = self.config;
        let normed = program.rms_norm(x, &layer.attention_norm, rms_eps);
        let qkv = program.linear(normed, &layer.qkv, layer.qkv_bias.as_deref()); // [rows, (heads + 2 kv_heads) * head_dim]
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let q = qkv.columns(0..q_width);
        let k = qkv.columns(q_width..q_width + kv_width);
        let v = qkv.columns(q_width + kv_width..q_width + 2 * kv_width);
        program.store_cached(q, k, v, heads, kv_heads, index, &self.rope, places)
    }

    /// The rest of the layer, for rows whose keys and values are stored: `[rows, hidden]`.
    fn look_back<'a>(
        &'a self,
        program: &mut Program<'a>,
        layer: &'a Layer,
        index: usize,
        x: Value,
        q: Value,
        places: &'a [KvRow<'a>],
    ) -> Value {
        let DecoderConfig { heads, kv_heads, rms_eps, .. } = self.config;
        let mixed = program.attend_cached(q, heads, kv_heads, index, places);
        let x = program.linear_add(mixed, &layer.attention_out, None, x);
        let normed = program.rms_norm(x, &layer.ffn_norm, rms_eps);
        let inner = program.swiglu(normed, &layer.gate_up); // [rows, ffn]
        program.linear_add(inner, &layer.down, None, x)
    }

    fn check(&self, rows: &[Row<'_>]) -> Result<()> {
        for row in rows {
            let covered = row.table.blocks().len() * antiphon_kernels::KV_BLOCK;
            let limit = covered.min(self.config.context_tokens);
            if row.token as usize >= self.config.vocab || row.position as usize >= limit {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!(
                        "decoder row: token {} at position {}, expected a token below {} at a position below {limit}",
                        row.token, row.position, self.config.vocab
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Bytes of the packed weights and the table of positions.
    pub fn bytes(&self) -> usize {
        let layers: usize = self
            .layers
            .iter()
            .map(|l| l.qkv.bytes() + l.attention_out.bytes() + l.gate_up.bytes() + l.down.bytes())
            .sum();
        layers + self.embedding.bytes() + self.output.as_ref().map_or(0, Matrix::bytes) + self.rope.bytes()
    }
}

impl DecoderConfig {
    /// The shape of the decoder in a package.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn of(package: &Package) -> Result<Self> {
        match &package.gguf {
            Some(gguf) => Self::from_gguf(gguf, &package.weights),
            None => Self::from_json(&package.config_reader()?),
        }
    }

    fn from_json(config: &ConfigReader<'_>) -> Result<Self> {
        let model_type = config.str_in("model_type", &["llama", "mistral", "qwen2"])?;
        let hidden = config.usize_in("hidden_size", WIDTHS)?;
        let heads = config.usize_in("num_attention_heads", 1..=1024)?;
        if let Some(window) = config.opt_usize_in("sliding_window", 1..=1 << 30)?
            && (model_type == "mistral" || config.bool_or("use_sliding_window", false)?)
            && window < config.usize_in("max_position_embeddings", POSITIONS)?
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("config.json: sliding_window is {window}; sliding-window attention is not supported"),
            ));
        }
        config.str_or_in("hidden_act", "silu", &["silu"])?;
        Self {
            hidden,
            layers: config.usize_in("num_hidden_layers", LAYERS)?,
            heads,
            kv_heads: config.opt_usize_in("num_key_value_heads", 1..=1024)?.unwrap_or(heads),
            head_dim: config.opt_usize_in("head_dim", 1..=1024)?.unwrap_or(hidden / heads),
            ffn: config.usize_in("intermediate_size", WIDTHS)?,
            vocab: config.usize_in("vocab_size", VOCABULARY)?,
            context_tokens: config.usize_in("max_position_embeddings", POSITIONS)?,
            rms_eps: config.f32_in("rms_norm_eps", 0.0..=1.0)?,
            rope_theta: config.opt_f32_in("rope_theta", 1.0..=1e12)?.unwrap_or(10_000.0),
            rope_scaling: rope_scaling(config)?,
            rope_style: RopeStyle::Halves,
        }
        .checked("config.json")
    }

    fn from_gguf(gguf: &GgufMetadata, weights: &Weights) -> Result<Self> {
        let architecture = gguf.str("general.architecture")?;
        let rope_style = match architecture {
            "llama" => RopeStyle::Pairs,
            "qwen2" => RopeStyle::Halves,
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("general.architecture is `{}`, expected llama or qwen2", other.escape_debug()),
                ));
            }
        };
        let key = |name: &str| format!("{architecture}.{name}");
        let hidden = gguf.usize_in(&key("embedding_length"), WIDTHS)?;
        let heads = gguf.usize_in(&key("attention.head_count"), 1..=1024)?;
        let embedding = weights.tensor(GGUF_NAMES.embedding).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("tensor `{}` is missing", GGUF_NAMES.embedding))
        })?;
        let head_dim = gguf.opt_usize_in(&key("attention.key_length"), 1..=1024)?.unwrap_or(hidden / heads);
        if let Some(rotated) = gguf.opt_usize_in(&key("rope.dimension_count"), 1..=1024)?
            && rotated != head_dim
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: {rotated}, expected the head width {head_dim}", key("rope.dimension_count")),
            ));
        }
        let rope_scaling = match gguf.opt_str(&key("rope.scaling.type"))? {
            None | Some("none") => None,
            Some("linear") => {
                Some(RopeScaling::Linear { factor: gguf.f32_in(&key("rope.scaling.factor"), 1e-3..=1e6)? })
            }
            Some(other) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{}: `{}`, expected none or linear",
                        key("rope.scaling.type"),
                        other.escape_debug()
                    ),
                ));
            }
        };
        Self {
            hidden,
            layers: gguf.usize_in(&key("block_count"), LAYERS)?,
            heads,
            kv_heads: gguf.opt_usize_in(&key("attention.head_count_kv"), 1..=1024)?.unwrap_or(heads),
            head_dim,
            ffn: gguf.usize_in(&key("feed_forward_length"), WIDTHS)?,
            vocab: embedding.shape[0],
            context_tokens: gguf.usize_in(&key("context_length"), POSITIONS)?,
            rms_eps: gguf.f32_in(&key("attention.layer_norm_rms_epsilon"), 0.0..=1.0)?,
            rope_theta: gguf.opt_f32_in(&key("rope.freq_base"), 1.0..=1e12)?.unwrap_or(10_000.0),
            rope_scaling,
            rope_style,
        }
        .checked(architecture)
    }

    /// A shape for tests of what surrounds the model.
    #[cfg(test)]
    pub(crate) fn tiny() -> Self {
        Self {
            hidden: 32,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            head_dim: 16,
            ffn: 32,
            vocab: 8,
            context_tokens: 64,
            rms_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            rope_style: RopeStyle::Halves,
        }
    }

    /// The products and ratios between fields that single ranges cannot show.
    fn checked(self, place: &str) -> Result<Self> {
        let fail = |what: String| Err(Error::new(ErrorKind::Invalid, format!("{place}: {what}")));
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fail(format!(
                "{} heads over {} key/value heads, expected a multiple",
                self.heads, self.kv_heads
            ));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return fail(format!("head width {}, expected an even number above 0", self.head_dim));
        }
        // The rotation table is the one allocation that follows the config alone.
        if self.context_tokens * self.head_dim > 1 << 28 {
            return fail(format!(
                "{} positions of width {}, expected at most 2^28 together",
                self.context_tokens, self.head_dim
            ));
        }
        Ok(self)
    }
}

fn qkv_bias(packer: &Packer<'_>, parts: &[(&str, usize)]) -> Result<Option<Vec<f32>>> {
    let mut all = Vec::new();
    for (name, rows) in parts {
        let name = name.replace(".weight", ".bias");
        if packer.weights.tensor(&name).is_some() {
            all.extend(packer.vector(&name, *rows)?);
        }
    }
    match all.len() {
        0 => Ok(None),
        n if n == parts.iter().map(|(_, rows)| rows).sum::<usize>() => Ok(Some(all)),
        n => Err(Error::new(
            ErrorKind::Invalid,
            format!("{}: biases of {n} rows, expected all or none", parts[0].0),
        )),
    }
}

fn rope_scaling(config: &ConfigReader<'_>) -> Result<Option<RopeScaling>> {
    let Some(scaling) = config.opt_object("rope_scaling")? else { return Ok(None) };
    let kind = if scaling.has("rope_type") { "rope_type" } else { "type" };
    Ok(match scaling.str_in(kind, &["default", "linear", "llama3"])? {
        "linear" => Some(RopeScaling::Linear { factor: scaling.f32_in("factor", 1e-3..=1e6)? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: scaling.f32_in("factor", 1e-3..=1e6)?,
            low_freq_factor: scaling.f32_in("low_freq_factor", 1e-3..=1e6)?,
            high_freq_factor: scaling.f32_in("high_freq_factor", 1e-3..=1e6)?,
            original_positions: scaling.usize_in("original_max_position_embeddings", POSITIONS)?,
        }),
        _ => None,
    })
}

/// What the tensors are called in one file family.
struct Names {
    embedding: &'static str,
    output: &'static str,
    norm: &'static str,
    layer: &'static str,
    attention_norm: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    attention_out: &'static str,
    ffn_norm: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
}

const HF_NAMES: Names = Names {
    embedding: "model.embed_tokens.weight",
    output: "lm_head.weight",
    norm: "model.norm.weight",
    layer: "model.layers.",
    attention_norm: "input_layernorm.weight",
    q: "self_attn.q_proj.weight",
    k: "self_attn.k_proj.weight",
    v: "self_attn.v_proj.weight",
    attention_out: "self_attn.o_proj.weight",
    ffn_norm: "post_attention_layernorm.weight",
    gate: "mlp.gate_proj.weight",
    up: "mlp.up_proj.weight",
    down: "mlp.down_proj.weight",
};

const GGUF_NAMES: Names = Names {
    embedding: "token_embd.weight",
    output: "output.weight",
    norm: "output_norm.weight",
    layer: "blk.",
    attention_norm: "attn_norm.weight",
    q: "attn_q.weight",
    k: "attn_k.weight",
    v: "attn_v.weight",
    attention_out: "attn_output.weight",
    ffn_norm: "ffn_norm.weight",
    gate: "ffn_gate.weight",
    up: "ffn_up.weight",
    down: "ffn_down.weight",
};

const WIDTHS: std::ops::RangeInclusive<usize> = 1..=1 << 17;
const LAYERS: std::ops::RangeInclusive<usize> = 1..=512;
const VOCABULARY: std::ops::RangeInclusive<usize> = 1..=1 << 21;
const POSITIONS: std::ops::RangeInclusive<usize> = 1..=1 << 22;
