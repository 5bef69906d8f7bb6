//! `antiphon chat`: a conversation at the terminal, streamed.

use std::io::{BufRead, IsTerminal, Write};

use antiphon::{Conversation, ConversationConfig, Engine, Error, ErrorKind, Event, Request};
use clap::Args;

use crate::options::{Common, RequestFlags};
use crate::output::{Failure, Outcome, Output};
use crate::process;

#[derive(Args)]
pub(crate) struct Options {
    /// The responder, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    #[command(flatten)]
    request: RequestFlags,
}

pub(crate) fn run(common: &Common, options: Options, output: &mut Output) -> Outcome {
    // What every turn has; the history is the conversation's.
    let mut template = process::assemble(String::new(), &options.request, options.model)?;
    let beginning = std::mem::take(&mut template.history);
    let engine = Engine::open(common.engine_config()?)?;
    let mut conversation = engine.conversation(ConversationConfig::default().history(beginning))?;
    let terminal = std::io::stdin().is_terminal();
    tell(terminal, "Type a message and press return. /reset forgets the conversation, /quit ends it.\n");
    let mut line = Vec::new();
    loop {
        tell(terminal, "> ");
        line.clear();
        let read = std::io::stdin().lock().read_until(b'\n', &mut line);
        let read = read.map_err(|error| Error::new(ErrorKind::Io, format!("standard input: {error}")))?;
        if read == 0 {
            return Ok(());
        }
        let Ok(message) = std::str::from_utf8(&line) else {
            complain(&Error::new(
                ErrorKind::InvalidText,
                "standard input: the line is not UTF-8, expected UTF-8 text",
            ));
            continue;
        };
        match message.trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(()),
            "/reset" => conversation.reset(),
            message => {
                let mut request = template.clone();
                request.message = message.to_owned();
                match say(&mut conversation, request, output) {
                    Err(Failure::Error(error)) => complain(&error),
                    outcome => outcome?,
                }
            }
        }
    }
}

/// One turn; the answer is shown as it comes.
fn say(conversation: &mut Conversation, request: Request, output: &mut Output) -> Outcome {
    for event in conversation.say(request)? {
        match event? {
            Event::Chunk { content, .. } => output.text(&content)?,
            Event::Done(_) => output.line("")?,
            _ => {}
        }
        output.flush()?;
    }
    Ok(())
}

/// A turn that failed does not end the conversation.
fn complain(error: &Error) {
    tell(true, &format!("error: {error} ({})\n", error.hint()));
}

/// What is not an answer goes to standard error; when nobody reads that, it is lost.
fn tell(wanted: bool, text: &str) {
    if wanted {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}
