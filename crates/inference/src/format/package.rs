//! A model as it lies on disk or in the program: config, tokenizer, chat template, manifest and weights, read and checked.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::files::{self, Content, Directory, Expected, quote_path};
use crate::format::index::Index;
use crate::format::manifest::MAX_MANIFEST_BYTES;
use crate::format::weights::Shard;
use crate::format::{Bytes, ConfigReader, GgufMetadata, Manifest, Weights};
use crate::format::{foreign, gguf, json, safetensors};

/// The files of one model. Weights are read when they are used, from files that stay open until the package is dropped; those
/// whose checksum a manifest has are read and checked first, and stay in memory.
pub struct Package {
    /// The manifest's name, the directory's or the file's.
    pub name: String,
    /// `config.json`, an object; empty for GGUF, whose metadata says the same.
    pub config: Value,
    /// `tokenizer.json`.
    pub tokenizer: Option<Bytes>,
    /// `tokenizer_config.json`, an object.
    pub tokenizer_config: Option<Value>,
    /// `generation_config.json`, an object.
    pub generation_config: Option<Value>,
    /// The chat template, at most 64 KiB.
    pub chat_template: Option<String>,
    /// `antiphon.json`.
    pub manifest: Option<Manifest>,
    /// All tensors, those of `heads.safetensors` too.
    pub weights: Weights,
    /// The metadata of a GGUF file.
    pub gguf: Option<GgufMetadata>,
    /// Size of the files that were read for use, together.
    pub file_bytes: u64,
    /// Their names and contents, in the order of their names.
    files: Vec<(String, Part)>,
    fingerprint: OnceLock<String>,
    /// What [`Package::verify`] still has to look at: bundles are not checked against their manifest at open.
    bundle: Vec<(String, &'static [u8])>,
}

/// A file that was read for use.
enum Part {
    Whole(Bytes),
    /// A file of weights, by its number.
    Weights(usize, u64),
}

impl Package {
    /// Opens a directory in the Hugging Face layout, a GGUF file, or a folder of heads alone: an `antiphon.json` that
    /// names the encoder they were trained on, and `heads.safetensors`.
    ///
    /// Where there is an `antiphon.json`, sizes and checksums have to match it, and no other file may lie beside.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when a file is missing, [`ErrorKind::Invalid`] when one is malformed,
    /// [`ErrorKind::IntegrityMismatch`] when one is not what the manifest promises, [`ErrorKind::Unsupported`] for other
    /// formats, [`ErrorKind::Io`] and [`ErrorKind::OutOfBudget`] when the machine refuses.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| files::io_error(path, error))?;
        let name = path.file_name().map_or("model".to_owned(), |name| name.to_string_lossy().into_owned());
        if metadata.is_dir() {
            let directory = Directory::open(path)?;
            let names = directory.names()?;
            Reader::new(Source::Directory(directory), names)?.package(name)
        } else {
            Self::open_file(path, &name)
        }
    }

    /// Opens files that the program carries, without copying them: those of a directory, or one GGUF file.
    /// [`Package::verify`] checks them against their manifest.
    ///
    /// # Errors
    /// As [`Package::open`].
    pub fn from_bundle(name: &str, files: &[(&str, &'static [u8])]) -> Result<Self> {
        if let [(file, bytes)] = files
            && file.ends_with(".gguf")
        {
            return Self::from_gguf(name, file, Content::Held(files::borrow(file, bytes, GGUF_FILE)?.bytes));
        }
        let bundle: Vec<_> = files.iter().map(|&(name, bytes)| (name.to_owned(), bytes)).collect();
        let names = files.iter().map(|&(name, _)| name.to_owned()).collect();
        let mut package = Reader::new(Source::Bundle(files), names)?.package(name.to_owned())?;
        package.bundle = bundle;
        Ok(package)
    }

    /// Checks every file against the manifest. For a directory that happened when it was opened.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without a manifest, [`ErrorKind::IntegrityMismatch`] for the first file that differs, is
    /// missing or is not listed.
    pub fn verify(&self) -> Result<()> {
        let Some(manifest) = &self.manifest else {
            let message =
                format!("{}: no {}, expected one to check against", quote(&self.name), quote(Manifest::FILE));
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        if self.bundle.is_empty() {
            return Ok(());
        }
        check_listing(manifest, self.bundle.iter().map(|(name, _)| name.as_str()))?;
        for (name, bytes) in &self.bundle {
            check_sha256(manifest, name, files::sha256(bytes))?;
        }
        Ok(())
    }

    /// `blake3:` and 64 hexadecimal digits, over the names and contents of every file that was read for use. A tensor's
    /// elements are hashed in the pass that reads them first, which is the one that packs them; asked for before, it takes a pass
    /// of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when a file cannot be read any more.
    pub fn fingerprint(&self) -> Result<&str> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known);
        }
        let mut hasher = blake3::Hasher::new();
        for (name, part) in &self.files {
            let hash = match part {
                Part::Whole(bytes) => blake3::hash(bytes),
                Part::Weights(shard, _) => self.weights.fingerprint(*shard)?,
            };
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&part.len().to_le_bytes());
            hasher.update(hash.as_bytes());
        }
        Ok(self.fingerprint.get_or_init(|| format!("blake3:{}", hasher.finalize().to_hex())))
    }

    /// Typed access to `config.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is not an object.
    pub fn config_reader(&self) -> Result<ConfigReader<'_>> {
        ConfigReader::new(&self.config, CONFIG)
    }

    fn open_file(path: &Path, file: &str) -> Result<Self> {
        if foreign::is_foreign_name(file) {
            return Err(foreign::unsupported(file));
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
            let message =
                format!("{}: a single file, expected a model's directory or a .gguf file", quote_path(path));
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        Self::from_gguf(name, file, Directory::open(parent)?.content(file, GGUF_FILE)?)
    }

    fn from_gguf(name: &str, file: &str, content: Content) -> Result<Self> {
        // The file may be called anything; its fingerprint does not depend on that.
        let files = vec![("model.gguf".to_owned(), Part::Weights(0, content.len()))];
        let (metadata, shard) = gguf::read(file, content)?;
        let mut weights = Weights::default();
        weights.push(shard)?;
        let chat_template = metadata.opt_str("tokenizer.chat_template")?;
        Ok(Self {
            name: name.to_owned(),
            config: Value::Object(Map::new()),
            tokenizer: None,
            tokenizer_config: None,
            generation_config: None,
            chat_template: chat_template.map(|template| checked_template(file, template)).transpose()?,
            manifest: None,
            weights,
            gguf: Some(metadata),
            file_bytes: size_of_all(&files),
            files,
            fingerprint: OnceLock::new(),
            bundle: Vec::new(),
        })
    }
}

/// Where files come from.
enum Source<'a> {
    Directory(Directory),
    Bundle(&'a [(&'a str, &'static [u8])]),
}

/// Reads the files of one model, each at most once, and keeps them.
struct Reader<'a> {
    source: Source<'a>,
    names: Vec<String>,
    manifest: Option<Manifest>,
    files: Vec<(String, Part)>,
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Weights(_, len) => *len,
        }
    }
}

impl<'a> Reader<'a> {
    fn new(source: Source<'a>, names: Vec<String>) -> Result<Self> {
        let mut reader = Self { source, names, manifest: None, files: Vec::new() };
        if let Some(bytes) = reader.optional(Manifest::FILE, MAX_MANIFEST_BYTES)? {
            let manifest = Manifest::parse(&bytes)?;
            if let Source::Directory(_) = reader.source {
                check_listing(&manifest, reader.names.iter().map(String::as_str))?;
            }
            reader.manifest = Some(manifest);
        }
        Ok(reader)
    }

    fn package(mut self, name: String) -> Result<Package> {
        let config = if self.is_heads_alone() {
            Map::new()
        } else {
            json::parse_object(CONFIG, &self.read(CONFIG, MAX_CONFIG_BYTES)?, MAX_CONFIG_VALUES)?
        };
        let config = Value::Object(config);
        let scales = scales(&config)?;
        let tokenizer = self.optional(TOKENIZER, MAX_TOKENIZER_BYTES)?;
        let tokenizer_config =
            self.optional_object(TOKENIZER_CONFIG, MAX_TOKENIZER_CONFIG_BYTES, MAX_TOKENIZER_CONFIG_VALUES)?;
        let generation_config =
            self.optional_object(GENERATION_CONFIG, MAX_CONFIG_BYTES, MAX_CONFIG_VALUES)?;
        let chat_template = self.chat_template(tokenizer_config.as_ref())?;
        let mut weights = self.weights()?;
        if scales.is_some() {
            weights.present_q8_0()?;
        }
        weights.one_scale = scales == Some(Scales::Row);
        self.read_unused()?;
        self.files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Package {
            name: self.manifest.as_ref().map_or(name, |manifest| manifest.name.clone()),
            config,
            tokenizer,
            tokenizer_config,
            generation_config,
            chat_template,
            manifest: self.manifest,
            weights,
            gguf: None,
            file_bytes: size_of_all(&self.files),
            files: self.files,
            fingerprint: OnceLock::new(),
            bundle: Vec::new(),
        })
    }

    /// Whether the folder holds classifiers trained on somebody else's encoder, and no model of its own.
    fn is_heads_alone(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.encoder.is_some())
    }

    fn weights(&mut self) -> Result<Weights> {
        let mut weights = Weights::default();
        if self.is_heads_alone() {
            self.shard(HEADS, &mut weights, |_| Ok(()))?;
            return Ok(weights);
        }
        if self.has(SAFETENSORS) {
            self.shard(SAFETENSORS, &mut weights, |_| Ok(()))?;
        } else if let Some(index) = self.optional(Index::FILE, MAX_INDEX_BYTES)? {
            let index = Index::parse(&index)?;
            // All names are known to be there before the first of them is read.
            if let Some(missing) = index.files().into_iter().find(|file| !self.has(file)) {
                let message = format!("{}: not found, but {} names it", quote(missing), quote(Index::FILE));
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            for file in index.files() {
                self.shard(file, &mut weights, |shard| index.check(file, shard))?;
            }
        } else if let Some(name) = self.names.iter().find(|name| foreign::is_foreign_name(name)) {
            return Err(foreign::unsupported(name));
        } else {
            return Err(self.not_found(SAFETENSORS));
        }
        if self.has(HEADS) {
            self.shard(HEADS, &mut weights, |_| Ok(()))?;
        }
        Ok(weights)
    }

    /// Adds a file of weights.
    fn shard(
        &mut self,
        name: &str,
        weights: &mut Weights,
        check: impl FnOnce(&Shard) -> Result<()>,
    ) -> Result<()> {
        let content = match &self.source {
            Source::Directory(directory) if !self.is_listed(name) => {
                directory.content(name, self.expected(name, u64::MAX))?
            }
            _ => Content::Held(self.checked(name, u64::MAX)?),
        };
        self.files.push((name.to_owned(), Part::Weights(weights.shards(), content.len())));
        let shard = safetensors::read(name, content)?;
        check(&shard)?;
        weights.push(shard)
    }

    /// The template of its own file, or the one in the tokenizer's config: a string, or a list of named ones.
    fn chat_template(&mut self, tokenizer_config: Option<&Value>) -> Result<Option<String>> {
        if let Some(template) = self.optional(CHAT_TEMPLATE, MAX_TEMPLATE_BYTES)? {
            let template = String::from_utf8(template.to_vec()).map_err(|error| {
                Error::invalid(format!("{}: is not UTF-8", quote(CHAT_TEMPLATE))).with_source(error)
            })?;
            return Ok(Some(template));
        }
        let template = match tokenizer_config.and_then(|config| config.get("chat_template")) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(template)) => Some(template),
            Some(Value::Array(templates)) => {
                match templates
                    .iter()
                    .find(|template| template["name"] == "default")
                    .map(|named| &named["template"])
                {
                    Some(Value::String(template)) => Some(template),
                    _ => None,
                }
            }
            Some(_) => None,
        };
        let template = template.ok_or_else(|| {
            Error::invalid(format!(
                "{}: `chat_template`, expected a string or a list of name and template with one named `default`",
                quote(TOKENIZER_CONFIG)
            ))
        })?;
        checked_template(TOKENIZER_CONFIG, template).map(Some)
    }

    /// Reads what the manifest lists and nobody asked for, so that every checksum of a directory is checked.
    fn read_unused(&mut self) -> Result<()> {
        let (Source::Directory(_), Some(manifest)) = (&self.source, &self.manifest) else { return Ok(()) };
        let is_read = |path: &str| self.files.iter().any(|(name, _)| name == path);
        let paths: Vec<String> =
            manifest.files.iter().map(|file| file.path.clone()).filter(|path| !is_read(path)).collect();
        let used = self.files.len();
        for path in paths {
            self.read(&path, u64::MAX)?;
        }
        self.files.truncate(used);
        Ok(())
    }

    fn optional_object(&mut self, name: &str, max_bytes: u64, max_values: usize) -> Result<Option<Value>> {
        let Some(bytes) = self.optional(name, max_bytes)? else { return Ok(None) };
        json::parse_object(name, &bytes, max_values).map(|map| Some(Value::Object(map)))
    }

    fn optional(&mut self, name: &str, max_bytes: u64) -> Result<Option<Bytes>> {
        if self.has(name) { self.read(name, max_bytes).map(Some) } else { Ok(None) }
    }

    fn read(&mut self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let bytes = self.checked(name, max_bytes)?;
        self.files.push((name.to_owned(), Part::Whole(bytes.clone())));
        Ok(bytes)
    }

    /// The whole of a file, its checksum compared where a manifest has one.
    fn checked(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let expected = self.expected(name, max_bytes);
        let file = match &self.source {
            Source::Directory(directory) => directory.read(name, expected)?,
            Source::Bundle(files) => match files.iter().find(|(known, _)| *known == name) {
                Some((_, bytes)) => files::borrow(name, bytes, expected)?,
                None => return Err(self.not_found(name)),
            },
        };
        if let (Some(manifest), Some(sha256)) = (&self.manifest, file.sha256) {
            check_sha256(manifest, name, sha256)?;
        }
        Ok(file.bytes)
    }

    fn expected(&self, name: &str, max_bytes: u64) -> Expected {
        let listed = self.manifest.as_ref().and_then(|manifest| manifest.file(name));
        Expected {
            max_bytes,
            bytes: listed.map(|file| file.bytes),
            sha256: listed.is_some() && matches!(self.source, Source::Directory(_)),
            start: if name.ends_with(".safetensors") { safetensors::check_start } else { |_, _, _| Ok(()) },
        }
    }

    fn is_listed(&self, name: &str) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.file(name).is_some())
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    fn not_found(&self, name: &str) -> Error {
        let place = match &self.source {
            Source::Directory(directory) => quote_path(&directory.path().join(name)),
            Source::Bundle(_) => quote(name),
        };
        Error::new(ErrorKind::NotFound, format!("{place}: not found"))
    }
}

/// The files lie where the manifest says, and no others lie beside.
fn check_listing<'a>(manifest: &Manifest, names: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    let fail = |name: &str, what: &str| {
        Err(Error::new(
            ErrorKind::IntegrityMismatch,
            format!("{}: {what} {}", quote(name), quote(Manifest::FILE)),
        ))
    };
    if let Some(file) = manifest.files.iter().find(|file| !names.clone().any(|name| name == file.path)) {
        return fail(&file.path, "missing, but listed in");
    }
    match names.clone().find(|name| *name != Manifest::FILE && manifest.file(name).is_none()) {
        Some(name) => fail(name, "not listed in"),
        None => Ok(()),
    }
}

fn check_sha256(manifest: &Manifest, name: &str, sha256: [u8; 32]) -> Result<()> {
    match manifest.file(name) {
        Some(file) if file.sha256() != Some(sha256) => Err(Error::new(
            ErrorKind::IntegrityMismatch,
            format!("{}: sha256 {}, the manifest has {}", quote(name), hex(&sha256), quote(&file.sha256)),
        )),
        _ => Ok(()),
    }
}

fn size_of_all(files: &[(String, Part)]) -> u64 {
    files.iter().map(|(_, part)| part.len()).sum()
}

/// What has a scale of its own in matrices that are stored as Q8_0 blocks in U8 tensors.
#[derive(PartialEq, Eq)]
enum Scales {
    Block,
    /// All blocks of a row have the same.
    Row,
}

/// None if matrices are stored otherwise.
fn scales(config: &Value) -> Result<Option<Scales>> {
    let Some(quantization) = ConfigReader::new(config, CONFIG)?.opt_object("quantization_config")? else {
        return Ok(None);
    };
    quantization.str_in("quant_method", &["q8_0"])?;
    quantization.usize_in("block_size", 32..=32)?;
    let scales = quantization.str_or_in("scales", "block", &["block", "row"])?;
    Ok(Some(if scales == "row" { Scales::Row } else { Scales::Block }))
}

fn checked_template(file: &str, template: &str) -> Result<String> {
    if template.len() as u64 > MAX_TEMPLATE_BYTES {
        return Err(Error::invalid(format!(
            "{}: a chat template of {} bytes, expected at most {MAX_TEMPLATE_BYTES}",
            quote(file),
            template.len()
        )));
    }
    Ok(template.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const SAFETENSORS: &str = "model.safetensors";
const HEADS: &str = "heads.safetensors";

const GGUF_FILE: Expected =
    Expected { max_bytes: u64::MAX, bytes: None, sha256: false, start: gguf::check_start };
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_CONFIG_VALUES: usize = 1 << 15;
/// The largest vocabularies in use take a quarter of this.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
/// Repeats every added token with its flags.
const MAX_TOKENIZER_CONFIG_BYTES: u64 = 16 << 20;
const MAX_TOKENIZER_CONFIG_VALUES: usize = 1 << 19;
const MAX_TEMPLATE_BYTES: u64 = 64 << 10;
const MAX_INDEX_BYTES: u64 = 16 << 20;
