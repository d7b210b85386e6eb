//! How often somebody may ask, and for whom a proxy asks.

use std::sync::Arc;

use super::fake::Server;
use super::wire::{Answer, request};
use crate::access::{Authority, Entry, Grant, Reason, Rights, Table, digest};
use crate::http::{HttpOptions, Proxies};

/// Far more than may ask in the time that they take.
const MANY: usize = 50;

fn server(rate_limit: Option<u64>, proxies: &[&str], tokens: &[&str]) -> Server {
    let texts: Vec<_> = proxies.iter().map(|&text| text.to_owned()).collect();
    let entry = |name: &&str| Entry {
        key: Some(digest(name.as_bytes())),
        grant: Grant { name: (*name).into(), rights: Rights::ALL, topics: None },
    };
    let authority = match tokens {
        [] => Authority::none(),
        _ => Authority::of(Table::new(tokens.iter().map(entry).collect()).unwrap()),
    };
    let proxies = Arc::new(Proxies::new(&texts).unwrap());
    Server::with(HttpOptions { authority, rate_limit, proxies, ..HttpOptions::default() })
}

fn ask(server: &Server, path: &str, client: &str, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("X-Forwarded-For", client), ("Authorization", &bearer)];
    request(server.address, "GET", path, &headers, b"")
}

/// The first answer that is none.
fn until_refused(server: &Server, client: &str, token: &str) -> Option<Answer> {
    let mut answers = (0..MANY).map(|_| ask(server, "/query", client, token));
    answers.find(|answer| answer.status != 200)
}

#[test]
fn who_asks_too_often_waits_and_nobody_else_does() {
    let server = server(Some(1), &["127.0.0.0/8"], &[]);
    assert_eq!(ask(&server, "/query", "10.0.0.1", "").status, 200);
    let answer = until_refused(&server, "10.0.0.1", "").expect("one a second is let in");
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"), "{}", answer.text());
    assert!(answer.text().contains("--http.rate-limit"), "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(ask(&server, "/query", "10.0.0.2", "").status, 200, "another client of that proxy");
    // A supervisor asks as often as it likes, and the page is a page.
    for path in ["/health", "/ready", "/ui/"] {
        assert!((0..3).all(|_| ask(&server, path, "10.0.0.1", "").status == 200), "{path}");
    }
    assert!(server.metrics.access.refused(Reason::Rate).get() > 0);
}

#[test]
fn a_token_is_one_client_wherever_it_comes_from() {
    let server = server(Some(1), &["127.0.0.1"], &["one", "other"]);
    let from = |n: usize| format!("10.0.0.{n}");
    let mut answers = (0..MANY).map(|n| ask(&server, "/query", &from(n), "one").status);
    assert_eq!(answers.next(), Some(200));
    assert!(answers.any(|status| status == 429), "of one address there was one request each");
    assert_eq!(ask(&server, "/query", "10.0.1.1", "other").status, 200);
    // Guesses count for their address.
    let guesses: Vec<_> =
        (0..MANY).map(|_| ask(&server, "/query", "10.0.2.1", "wrong").status).collect();
    assert!(guesses[0] == 401 && guesses.contains(&429), "{guesses:?}");
}

#[test]
fn nobody_drains_a_node_by_saying_that_he_is_on_its_host() {
    for proxies in [&["127.0.0.0/8"][..], &[]] {
        for rate_limit in [None, Some(1_000_000)] {
            let server = server(rate_limit, proxies, &[]);
            let said = ["127.0.0.1", "::1", "10.0.0.1", "127.0.0.1, 127.0.0.2", "unknown", ""];
            for client in said {
                let headers = [("X-Forwarded-For", client)];
                let answer = request(server.address, "POST", "/_drain", &headers, b"");
                assert_eq!(answer.status, 403, "{client:?}: {}", answer.text());
            }
            let answer = request(server.address, "POST", "/_drain", &[], b"");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

#[test]
fn who_is_no_trusted_proxy_asks_for_himself() {
    let server = server(Some(1), &["192.0.2.1"], &[]);
    let mut answers = (0..MANY).map(|n| ask(&server, "/query", &format!("10.0.0.{n}"), "").status);
    assert!(answers.any(|status| status == 429), "all of them are one address");
}
