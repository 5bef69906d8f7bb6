//! Addresses: email and url.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use super::context::{after, before, stands_alone};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    emails(text, candidates);
    urls(text, candidates);
}

fn emails(text: &str, candidates: &mut Vec<Candidate>) {
    static EMAIL: LazyLock<Regex> =
        LazyLock::new(|| expression(r"(?i-u)[a-z0-9_][a-z0-9._%+'-]*@[a-z0-9.-]+"));
    for shape in EMAIL.find_iter(text) {
        let trimmed = shape.as_str().trim_end_matches(['.', '-']);
        let range = shape.start()..shape.start() + trimmed.len();
        let Some((local, domain)) = trimmed.rsplit_once('@') else { continue };
        let local_holds = local.len() <= 64 && !local.ends_with('.') && !local.contains("..");
        let own_start = !before(text, range.start).is_some_and(|c| c == '@' || c == '.');
        let own_end = after(text, range.end).is_none_or(|c| c != '@');
        if local_holds && own_start && own_end && is_domain(domain) && stands_alone(text, &range) {
            candidates.push(Candidate::new(Kind::Email, range, 0.99));
        }
    }
}

fn urls(text: &str, candidates: &mut Vec<Candidate>) {
    // Up to a blank, a control character or a character that no URL holds.
    static WITH_SCHEME: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r#"(?i-u:(?:https?|ftps?)://|www\.)[^\x00-\x20\x{7f}-\x{a0}\x{2000}-\x{200b}\x{3000}<>"`{}|\\^]+"#,
        )
    });
    static BARE: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?i-u)[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,6}(?::[0-9]{1,5})?(?:/[!#-;=?-Z_a-z~]*)?")
    });
    for shape in WITH_SCHEME.find_iter(text) {
        let range = shape.start()..shape.start() + without_closing_punctuation(shape.as_str()).len();
        let url = &text[range.clone()];
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        if is_authority(authority(rest)) && !before(text, range.start).is_some_and(char::is_alphanumeric) {
            candidates.push(Candidate::new(Kind::Url, range, 0.99));
        }
    }
    for shape in BARE.find_iter(text) {
        let range = shape.start()..shape.start() + without_closing_punctuation(shape.as_str()).len();
        let authority = authority(&text[range.clone()]);
        let host = authority.split(':').next().unwrap_or(authority);
        let known = host
            .rsplit_once('.')
            .is_some_and(|(_, top)| BARE_TOP_LEVELS.contains(&&*top.to_ascii_lowercase()));
        let whole = !before(text, range.start).is_some_and(|c| matches!(c, '@' | '.' | '/' | ':'))
            && after(text, range.end).is_none_or(|c| c != '@');
        if known && whole && is_authority(authority) && stands_alone(text, &range) {
            candidates.push(Candidate::new(Kind::Url, range, 0.9));
        }
    }
}

/// Host and port: what stands before the path, without user information.
fn authority(url: &str) -> &str {
    let authority = url.split(['/', '?', '#']).next().unwrap_or(url);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn is_authority(authority: &str) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let known = host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok() || is_domain(host);
    known && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// At least two labels of 1 to 63 letters, digits or inner hyphens; the last one of letters (or Punycode).
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let Some((rest, top)) = domain.rsplit_once('.') else { return false };
    let is_top =
        top.chars().count() >= 2 && (top.chars().all(char::is_alphabetic) || top.starts_with("xn--"));
    domain.len() <= 253 && is_top && is_label(top) && rest.split('.').all(is_label)
}

/// Without the punctuation of the sentence around it; a closing bracket stays if the URL opened it.
fn without_closing_punctuation(url: &str) -> &str {
    let surplus =
        |close: char, open: char| url.matches(close).count().saturating_sub(url.matches(open).count());
    let (mut round, mut square) = (surplus(')', '('), surplus(']', '['));
    url.trim_end_matches(|c| match c {
        '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' | '…' | '’' | '”' | '»' => true,
        ')' => take_one(&mut round),
        ']' => take_one(&mut square),
        _ => false,
    })
}

fn take_one(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// Endings that make a bare `name.ending` a URL; those that are words (`me`, `it`, `in`) need a scheme.
const BARE_TOP_LEVELS: &[&str] = &[
    "com", "org", "net", "edu", "gov", "io", "dev", "app", "ai", "info", "biz", "shop", "store", "online",
    "uk", "de", "fr", "eu", "ch", "nl", "ca", "au", "jp", "cn", "nz", "ie", "se", "tech", "cloud",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_checked_label_by_label() {
        for good in [
            "example.com",
            "a.b.co.uk",
            "bücher.example",
            "xn--bcher-kva.example",
            "localhost:8080",
            "10.0.0.1",
            "[::1]:80",
        ] {
            assert!(is_authority(good), "{good}");
        }
        for bad in [
            "",
            "example",
            "-a.com",
            "a-.com",
            "a..com",
            "300.1.1.1",
            "example.com:0",
            "example.com:70000",
            "[::1",
            "a.1",
        ] {
            assert!(!is_authority(bad), "{bad}");
        }
        assert!(!is_domain(&format!("{}.com", "a".repeat(64))));
    }

    #[test]
    fn brackets_that_the_url_opened_stay() {
        assert_eq!(without_closing_punctuation("https://x.org/a_(b)"), "https://x.org/a_(b)");
        assert_eq!(without_closing_punctuation("https://x.org/a)."), "https://x.org/a");
    }
}
