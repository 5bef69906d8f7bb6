//! `antiphon generate`: the responder alone.

use std::path::PathBuf;

use antiphon::{Engine, Generate, Message, ModelSource};
use clap::{ArgGroup, Args};

use crate::input;
use crate::options::{Common, RequestFlags, TURNS};
use crate::output::{Outcome, Output};

#[derive(Args)]
#[command(group = ArgGroup::new("source").required(true).args(["prompt", "messages"]))]
pub(crate) struct Options {
    /// A message of the user to answer, with --raw a text to continue; `-` reads it from standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Chat turns: a JSON file of {"role", "content"}, oldest first
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    messages: Option<PathBuf>,
    /// The model: a model directory or a .gguf file [default: the engine's responder]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Continue the prompt as it stands, without the model's chat template
    #[arg(long)]
    raw: bool,
    /// Print the reply as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestFlags,
}

pub(crate) fn run(common: &Common, options: Options, output: &mut Output) -> Outcome {
    let Options { prompt, messages, model, raw, json, request: flags } = options;
    let mut config = common.engine_config()?;
    if !common.names_analyst() {
        // Nothing is analysed here: opening is quicker without.
        config = config.analyst(None);
    }
    if let Some(path) = model {
        config = config.responder(ModelSource::Path(path));
    }
    let mut request = match (prompt, messages) {
        (Some(prompt), _) if raw => Generate::prompt(input::text(prompt)?),
        (Some(prompt), _) => {
            let mut turns = flags.history()?;
            turns.push(Message::user(input::text(prompt)?));
            Generate::messages(turns)
        }
        (None, path) => {
            let mut turns = flags.history()?;
            turns.extend(
                path.map(|path| input::json_file::<Vec<Message>>(&path, TURNS))
                    .transpose()?
                    .into_iter()
                    .flatten(),
            );
            Generate::messages(turns)
        }
    };
    request = request.options(flags.options(None));
    request.user_id.clone_from(&flags.user);
    request.conversation_id.clone_from(&flags.conversation);
    if let Some(tenant) = &flags.tenant {
        request = request.tenant(tenant);
    }
    let reply = Engine::open(config)?.generate_blocking(request)?;
    if json { output.json(&reply) } else { output.line(&reply.response) }
}
