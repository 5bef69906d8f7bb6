//! `antiphon process`: one message through everything.

use antiphon::{Engine, Event, Request};
use clap::Args;
use serde_json::json;

use crate::input;
use crate::options::{Common, RequestFlags};
use crate::output::{Outcome, Output};

#[derive(Args)]
pub(crate) struct Options {
    /// The message; `-` reads it from standard input
    text: String,
    /// Print the reply (with --stream: the events, one a line) as JSON
    #[arg(long)]
    json: bool,
    /// Print as it comes
    #[arg(long)]
    stream: bool,
    /// The responder, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    #[command(flatten)]
    request: RequestFlags,
}

pub(crate) fn run(common: &Common, options: Options, output: &mut Output) -> Outcome {
    let Options { text, json, stream, model, request } = options;
    let config = common.engine_config()?;
    let request = assemble(input::text(text)?, &request, model)?;
    let engine = Engine::open(config)?;
    match (stream, json) {
        (true, true) => stream_json(&engine, request, output),
        (true, false) => stream_text(&engine, request, output),
        (false, true) => output.json(&engine.process_blocking(request)?),
        (false, false) => {
            let reply = engine.process_blocking(request)?;
            if let Some(analysis) = reply.analysis() {
                output.analysis(&analysis)?;
            }
            output.line(&format!("\n{}", reply.response))
        }
    }
}

/// The request that the options describe.
pub(crate) fn assemble(message: String, flags: &RequestFlags, model: Option<String>) -> Outcome<Request> {
    let mut request = Request::new(message).options(flags.options(model)).history(flags.history()?);
    request.context = flags.context()?;
    request.user_id.clone_from(&flags.user);
    request.conversation_id.clone_from(&flags.conversation);
    if let Some(tenant) = &flags.tenant {
        request = request.tenant(tenant);
    }
    Ok(request)
}

/// One event a line. An error that comes after an event is the last line, too.
fn stream_json(engine: &Engine, request: Request, output: &mut Output) -> Outcome {
    for event in engine.stream(request)? {
        match event {
            Ok(event) => output.json(&event)?,
            Err(error) => {
                if output.wrote() {
                    output.json(&json!({"type": "error", "error": error}))?;
                    output.flush()?;
                }
                return Err(error.into());
            }
        }
        output.flush()?;
    }
    Ok(())
}

/// The analysis, then the answer piece by piece.
fn stream_text(engine: &Engine, request: Request, output: &mut Output) -> Outcome {
    for event in engine.stream(request)? {
        match event? {
            Event::Analysis(analysis) => {
                output.analysis(&analysis)?;
                output.line("")?;
            }
            Event::Chunk { content, .. } => output.text(&content)?,
            Event::Done(_) => output.line("")?,
            // Kinds of events that this command does not know are not for people.
            _ => {}
        }
        output.flush()?;
    }
    Ok(())
}
