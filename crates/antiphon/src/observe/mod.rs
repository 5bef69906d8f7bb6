//! How the engine is: health for a load balancer, metrics for a monitor, a diagnosis for a person.

mod diagnosis;
mod health;
mod meter;
mod metrics;
mod observers;

pub use self::diagnosis::{Check, CheckResult, Configuration, Diagnosis};
pub use self::health::{Health, HealthStatus};
pub(crate) use self::meter::{Endpoint, Meter};
pub(crate) use self::metrics::Metrics;
pub(crate) use self::observers::Observers;
