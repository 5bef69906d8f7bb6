//! Summaries: the most telling sentences of a text of any length, or what an instruct model of the host's own says of it.

mod abstracts;
mod extract;
mod options;
pub(crate) mod split;
pub(crate) mod words;

pub use self::options::{SummaryMethod, SummaryOptions};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::request::check_text;
use crate::shared::Shared;

/// A summary of a text.
pub(crate) async fn summarize(engine: Engine, text: String, options: SummaryOptions) -> Result<String> {
    let shared = engine.shared();
    shared.check_process()?;
    if shared.queue.closing().is_some() {
        return Err(Error::closed());
    }
    options.validate()?;
    check_text("text", &text)?;
    let writer = writer(shared, options.method)?;
    if writer.is_none() {
        shared.analyst()?;
    }
    let sentences = split::sentences(&text);
    let wanted = options.wanted(sentences.len());
    match writer {
        Some(responder) => abstracts::write(&engine, responder, &sentences, wanted).await,
        None if wanted == sentences.len() => Ok(split::render(&sentences)),
        None => {
            let chosen = extract::extract(&engine, &sentences, wanted).await?;
            Ok(split::render(chosen.into_iter().map(|index| &sentences[index])))
        }
    }
}

/// The responder that writes the summary; none where the text's own sentences make it.
fn writer(shared: &Shared, method: SummaryMethod) -> Result<Option<usize>> {
    let own = shared.config.responder.as_ref().map(|_| &shared.responders[OWN]);
    match (method, own) {
        (SummaryMethod::Extractive, _) => Ok(None),
        (SummaryMethod::Auto, own) => Ok(own.filter(|own| own.is_instruct).map(|_| OWN)),
        (SummaryMethod::Abstractive, Some(own)) if own.is_instruct => Ok(Some(OWN)),
        (SummaryMethod::Abstractive, Some(own)) => {
            let what = format!(
                "`method` is abstractive and model `{}` follows no instructions, expected an instruct model with a chat \
                 template",
                own.name
            );
            Err(Error::new(ErrorKind::UnsupportedModel, what))
        }
        (SummaryMethod::Abstractive, None) => {
            let what = "`method` is abstractive and no responder is configured, expected one";
            Err(Error::new(ErrorKind::BackendUnavailable, what))
        }
    }
}

/// The engine's own responder is the first.
const OWN: usize = 0;
