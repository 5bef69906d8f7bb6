//! What a host can know of a loaded model.

use antiphon_inference::format::Package;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::breaker::BreakerState;
use crate::error::Result;

/// A model of an engine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The slot's name; `options.model` takes that of a responder.
    pub model_name: String,
    /// Version, from the manifest where there is one.
    pub version: String,
    /// Whether it can be used.
    pub status: ModelStatus,
    /// `analysis`, `generation`, or the single task of a trained head.
    pub task: String,
    /// The card: what it was trained on, what it measures, what it cannot do.
    pub performance_metrics: Map<String, Value>,
    /// Its shape, as its files say it.
    pub config: Value,
    /// BLAKE3 over its files.
    pub fingerprint: String,
    /// Bytes of its packed weights.
    pub bytes: u64,
}

/// Whether a model can be used.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelStatus {
    /// It answers.
    Available,
    /// It is being loaded.
    Loading,
    /// It could not be loaded.
    Failed,
}

impl ModelInfo {
    pub(crate) fn of(slot: &str, package: &Package, bytes: usize) -> Result<Self> {
        let manifest = package.manifest.as_ref();
        let task = match slot {
            "analyst" => "analysis",
            "intent" | "sentiment" | "entities" => slot,
            _ => "generation",
        };
        Ok(Self {
            model_name: slot.to_owned(),
            version: manifest.map_or_else(|| "unversioned".into(), |manifest| manifest.version.clone()),
            status: ModelStatus::Available,
            task: task.into(),
            performance_metrics: manifest.map_or_else(Map::new, |manifest| manifest.card.clone()),
            config: package.config.clone(),
            fingerprint: package.fingerprint()?.to_owned(),
            bytes: bytes as u64,
        })
    }

    /// A generator of the host: the engine knows its name, and whether it answers.
    pub(crate) fn of_generator(name: &str, state: BreakerState) -> Self {
        Self {
            model_name: name.to_owned(),
            version: "unversioned".into(),
            status: if state == BreakerState::Open { ModelStatus::Failed } else { ModelStatus::Available },
            task: "generation".into(),
            performance_metrics: Map::new(),
            config: Value::Null,
            fingerprint: format!("generator:{name}"),
            bytes: 0,
        }
    }

    /// The share of right answers that the card names first.
    pub(crate) fn accuracy(&self) -> Option<f64> {
        self.performance_metrics.get("accuracy")?.as_f64()
    }
}
