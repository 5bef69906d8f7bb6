//! What stands in when no responder can answer: a sentence from the analysis, and the reply says so.

use crate::reply::Analysis;

/// The name a reply gives as its model.
pub(crate) const TEMPLATE: &str = "template";

/// An honest sentence: what was understood, and that a person should look at it.
pub(crate) fn answer(analysis: &Analysis) -> String {
    if analysis.intent.out_of_scope {
        return "Thank you for your message. I am not sure what you need. Could you say it in other words?"
            .into();
    }
    let topic = analysis.intent.label.replace('_', " ");
    let sorry = if analysis.sentiment.label == "negative" { "I am sorry about the trouble. " } else { "" };
    let named: Vec<&str> = analysis.entities.iter().map(|entity| entity.value.as_str()).collect();
    let about = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
    format!("{sorry}Thank you for your message. I understand that it is about: {topic}{about}.")
}
