//! How the engine is: health for a load balancer, a diagnosis for a person.

mod diagnosis;
mod health;

pub use self::diagnosis::{Check, CheckResult, Configuration, Diagnosis};
pub use self::health::{Health, HealthStatus};
