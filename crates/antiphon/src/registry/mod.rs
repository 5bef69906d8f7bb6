//! The models of an engine: where they come from, what they are, and whether they fit.

mod info;

use std::collections::BTreeMap;
use std::sync::Arc;

use antiphon_inference::format::Package;
use antiphon_inference::kv::BlockPool;
use antiphon_inference::parallel::both;

pub use self::info::{ModelInfo, ModelStatus};
use crate::analyst::Analyst;
use crate::config::{EngineConfig, ModelSource};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Plan;
use crate::responder::Responder;
use crate::responder::scheduler::Scheduler;

/// Everything that `open` loads.
pub(crate) struct Loaded {
    pub(crate) analyst: Option<Arc<Analyst>>,
    /// Of the analyst and the trained heads, by slot.
    pub(crate) fingerprints: BTreeMap<String, String>,
    /// The engine's own responder first, where there is one.
    pub(crate) schedulers: Vec<Scheduler>,
    pub(crate) models: Vec<ModelInfo>,
    pub(crate) weight_bytes: usize,
    /// Vocabularies and patterns.
    pub(crate) text_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) queue_bytes: usize,
}

impl Loaded {
    /// Reads the models on `threads` threads; where there are several, one more each reads the analyst and a tokenizer.
    pub(crate) fn open(config: &EngineConfig, threads: usize) -> Result<Self> {
        let (understanding, answering) =
            both(threads, || Understanding::open(config), || open_responders(config, threads));
        let Understanding { analyst, fingerprints, mut models } = understanding?;
        let responders = answering?;
        models.extend(responders.iter().map(|(_, model)| model.clone()));
        let responders: Vec<_> = responders.into_iter().map(|(responder, _)| responder).collect();
        let weight_bytes = models.iter().map(|model| model.bytes as usize).sum();
        let text_bytes = analyst.iter().map(|analyst| analyst.text_bytes()).sum::<usize>()
            + responders.iter().map(|responder| responder.text_bytes()).sum::<usize>();
        let plan = Plan::new(config, weight_bytes + text_bytes, &responders)?;
        let schedulers = responders
            .into_iter()
            .map(|responder| {
                // More than every running request can fill at once is of no use.
                let most = responder.context_tokens.saturating_mul(config.batcher.max_concurrent);
                let blocks = BlockPool::new(responder.decoder.config(), plan.kv_bytes_each, most)?;
                Ok(Scheduler::new(responder, blocks, config.batcher.prompt_chunk_tokens))
            })
            .collect::<Result<_>>()?;
        let Plan { cache_bytes, queue_bytes, .. } = plan;
        Ok(Self {
            analyst,
            fingerprints,
            schedulers,
            models,
            weight_bytes,
            text_bytes,
            cache_bytes,
            queue_bytes,
        })
    }
}

/// What reads messages.
struct Understanding {
    analyst: Option<Arc<Analyst>>,
    fingerprints: BTreeMap<String, String>,
    models: Vec<ModelInfo>,
}

impl Understanding {
    fn open(config: &EngineConfig) -> Result<Self> {
        let (mut models, mut fingerprints, mut trained) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (task, source) in config.heads() {
            let package = open(task, source, config)?;
            models.push(ModelInfo::of(task, &package, package.file_bytes as usize)?);
            fingerprints.insert(task.to_owned(), package.fingerprint()?.to_owned());
            trained.insert(task, package);
        }
        let mut analyst = None;
        if let Some(source) = &config.analyst {
            let package = open("analyst", source, config)?;
            let loaded = Analyst::load(&package, &trained).map_err(|error| error.context("analyst"))?;
            models.insert(0, ModelInfo::of("analyst", &package, loaded.bytes())?);
            fingerprints.insert("analyst".to_owned(), package.fingerprint()?.to_owned());
            analyst = Some(Arc::new(loaded));
        }
        Ok(Self { analyst, fingerprints, models })
    }
}

/// What answers them; the engine's own responder first, where there is one.
fn open_responders(config: &EngineConfig, threads: usize) -> Result<Vec<(Arc<Responder>, ModelInfo)>> {
    let mut responders: Vec<(Arc<Responder>, ModelInfo)> = Vec::new();
    let own = config.responder.iter().map(|source| ("responder", source));
    for (name, source) in own.chain(config.responders.iter().map(|(name, source)| (name.as_str(), source))) {
        if responders.iter().any(|(responder, _)| responder.name == name) {
            let what = format!(
                "configuration key `responders` has `{name}`, which is the name of the slot `responder`"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, what));
        }
        let package = open(name, source, config)?;
        let responder = Responder::load(&package, name.to_owned(), config.context_tokens, threads)
            .map_err(|error| error.context(name))?;
        let model = ModelInfo::of(name, &package, responder.decoder.bytes())?;
        responders.push((Arc::new(responder), model));
    }
    Ok(responders)
}

/// Opens the files of a slot.
pub(crate) fn open(slot: &str, source: &ModelSource, config: &EngineConfig) -> Result<Package> {
    let package = match source {
        ModelSource::Bundled => bundled(slot),
        ModelSource::Path(path) => Package::open(&config.resolve(path)).map_err(Error::from),
        ModelSource::Hub(_) => {
            let what = "a hub model, expected a local one: this build cannot reach the hub";
            Err(Error::new(ErrorKind::InvalidConfig, what))
        }
    };
    package.map_err(|error| error.context(slot))
}

#[cfg(feature = "bundled")]
fn bundled(slot: &str) -> Result<Package> {
    let (name, files) = if slot == "analyst" {
        ("analyst", antiphon_models::ANALYST)
    } else {
        ("responder", antiphon_models::RESPONDER)
    };
    Ok(Package::from_bundle(name, files)?)
}

#[cfg(not(feature = "bundled"))]
fn bundled(slot: &str) -> Result<Package> {
    let what = format!(
        "configuration key `{slot}` is \"bundled\", expected a path: this build has no bundled models"
    );
    Err(Error::new(ErrorKind::InvalidConfig, what))
}
