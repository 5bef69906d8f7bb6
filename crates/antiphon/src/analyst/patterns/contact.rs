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

/// Both sides are read outwards from each `@`, no further than an address can reach.
fn emails(text: &str, candidates: &mut Vec<Candidate>) {
    for (at, _) in text.match_indices('@') {
        let local = text[..at].chars().rev().take(LOCAL_CHARS + 1).take_while(|&c| is_local(c));
        let start = at - local.map(char::len_utf8).sum::<usize>();
        let local = text[start..at].trim_start_matches(|c: char| !c.is_alphanumeric() && c != '_');
        let domain =
            text[at + 1..].chars().take(DOMAIN_BYTES).take_while(|&c| is_letter(c) || matches!(c, '.' | '-'));
        let domain = &text[at + 1..at + 1 + domain.map(char::len_utf8).sum::<usize>()];
        let domain = domain.trim_end_matches(['.', '-']);
        let (start, end) = (at - local.len(), at + 1 + domain.len());
        let own_start = !before(text, start).is_some_and(|c| matches!(c, '@' | '.'));
        let own_end = !after(text, end).is_some_and(|c| matches!(c, '@' | '_'));
        // `git@host:path`
        let remote = text[end..].starts_with(':') && after(text, end + 1).is_some_and(char::is_alphanumeric);
        let local_holds = (1..=LOCAL_CHARS).contains(&local.chars().count())
            && !local.ends_with('.')
            && !local.contains("..");
        if local_holds && own_start && own_end && !remote && is_domain(domain) {
            candidates.push(Candidate::new(Kind::Email, start..end, 0.99));
        }
    }
}

fn is_local(c: char) -> bool {
    is_letter(c) || matches!(c, '.' | '_' | '%' | '+' | '\'' | '-')
}

/// Letters and digits of scripts that part words by blanks: in the others a word before the address would join it.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() && c < '\u{e00}'
}

fn urls(text: &str, candidates: &mut Vec<Candidate>) {
    // Up to a blank, a control character or a character that no URL holds.
    static WITH_SCHEME: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r#"(?i-u:(?:https?|ftps?)://|www\.)[^\x00-\x20\x{7f}-\x{a0}\x{2000}-\x{200b}\x{3000}<>"`{}|\\^]+"#,
        )
    });
    static BARE: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?i-u)[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,6}(?::[0-9]{1,5})?(?:[/?][!#-;=?-Z_a-z~]*)?")
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
        let path = text[range.clone()].split_once('/').is_some_and(|(_, path)| path.starts_with(is_letter));
        let whole = !before(text, range.start).is_some_and(|c| matches!(c, '@' | '.' | '/' | ':'))
            && after(text, range.end).is_none_or(|c| c != '@');
        if whole && is_known_host(host, path) && is_authority(authority) && stands_alone(text, &range) {
            candidates.push(Candidate::new(Kind::Url, range, 0.9));
        }
    }
}

/// Whether a bare `name.ending` is a host, and not a file (`main.rs`), a product (`asp.net`) or an identifier
/// (`com.example.app`). With a path behind it any country will do: `t.me/name`.
fn is_known_host(host: &str, path: bool) -> bool {
    let host = host.to_ascii_lowercase();
    let Some((rest, top)) = host.rsplit_once('.') else { return false };
    let reversed = rest.split_once('.').is_some_and(|(first, _)| REVERSED.contains(&first));
    let country = path && top.len() == 2 && !FILE_ENDINGS.contains(&top);
    (BARE_TOP_LEVELS.contains(&top) || country) && !reversed && !PRODUCTS.contains(&&*host)
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
        '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' | '…' | '’' | '”' | '»' | '。' | '、' | '，'
        | '！' | '？' | '）' => true,
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

/// Letters before the `@` and bytes after it that an address can have.
const LOCAL_CHARS: usize = 64;
const DOMAIN_BYTES: usize = 253;

/// Endings that make a bare `name.ending` a URL; those that are words (`me`, `it`, `in`) need a path or a scheme.
#[rustfmt::skip]
const BARE_TOP_LEVELS: &[&str] = &[
    "com", "org", "net", "edu", "gov", "io", "dev", "app", "ai", "info", "biz", "shop", "store", "online", "co",
    "tech", "cloud", "site", "website", "xyz", "tv", "uk", "de", "fr", "eu", "ch", "nl", "ca", "au", "jp", "cn", "nz",
    "ie", "se", "es", "pl", "dk", "fi", "cz", "hu", "ro", "gr", "br", "mx", "kr", "tw", "hk", "sg", "za", "tr", "ru",
];
/// Country codes that end the names of files.
const FILE_ENDINGS: &[&str] = &["rs", "py", "md", "sh", "cs", "cc", "pl", "ps", "so", "mk", "ml", "st", "tf"];
/// First labels of names written back to front: `com.example.app`.
const REVERSED: &[&str] = &["com", "org", "net", "io", "dev"];
/// Products that are spelled like hosts.
const PRODUCTS: &[&str] = &["asp.net", "ado.net", "vb.net", "ml.net", "socket.io", "draw.io", "paint.net"];

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
