//! A short conversation: two messages, answered as they come.

use std::io::{Write, stdout};

use antiphon::{ConversationConfig, Engine, EngineConfig, Event, Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::open(EngineConfig::default())?;
    let mut conversation = engine.conversation(ConversationConfig::default())?;
    for message in ["Hello, I need help with my account", "I forgot my password"] {
        for event in conversation.say(Request::new(message))? {
            match event? {
                Event::Analysis(analysis) => write!(stdout(), "[{}] ", analysis.intent.label)?,
                Event::Chunk { content, .. } => write!(stdout(), "{content}")?,
                _ => writeln!(stdout())?,
            }
        }
    }
    Ok(())
}
