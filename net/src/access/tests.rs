//! Who is let in, and what with.

use super::*;

fn topic(name: &str) -> Topic {
    Topic::new(name.as_bytes()).unwrap()
}

fn entry(name: &str, token: Option<&str>, rights: &[Right], topics: Option<&[&str]>) -> Entry {
    let rights = rights.iter().fold(Rights::default(), |all, right| all.and(*right));
    let topics = topics.map(|topics| topics.iter().map(|name| topic(name)).collect());
    let grant = Grant { name: name.into(), rights, topics };
    Entry { key: token.map(|token| digest(token.as_bytes())), grant }
}

fn authority(entries: Vec<Entry>) -> Authority {
    Authority::of(Table::new(entries).unwrap())
}

#[test]
fn without_a_table_everybody_may_do_everything() {
    let open = Authority::none();
    for token in [None, Some(&b"any"[..])] {
        let access = open.admit(token).unwrap();
        assert!(access.require_everything().is_ok() && open.holds(&access));
        assert!(Right::ALL.into_iter().all(|right| access.require(right).is_ok()));
        assert!(access.require_writing(None).is_ok());
    }
    assert_eq!(open.refused(Reason::Right, None, 0), None);
}

#[test]
fn a_token_is_known_by_its_hash_and_nobody_else_is() {
    // SHA-256("abc"), FIPS 180-4.
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let bytes = known
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    assert!(digest(b"abc").into_iter().eq(bytes));
    let authority = authority(vec![entry("a", Some("abc"), &[Right::Read], None)]);
    assert_eq!(authority.admit(Some(b"abc")).unwrap().name(), "a");
    for wrong in [&b"ab"[..], b"abcd", b"", b"ABC", known.as_bytes()] {
        assert_eq!(authority.admit(Some(wrong)), Err(Unknown::WrongToken));
    }
    assert_eq!(authority.admit(None), Err(Unknown::NoToken));
}

#[test]
fn those_without_a_token_may_what_anonymous_may() {
    let entries = vec![
        entry("anonymous", None, &[Right::Write], None),
        entry("a", Some("t"), &[Right::Read], None),
    ];
    let authority = authority(entries);
    let anybody = authority.admit(None).unwrap();
    assert!(anybody.is_anonymous() && anybody.require_writing(None).is_ok());
    let words = anybody.require(Right::Read).unwrap_err().words;
    assert_eq!(words, "who has no token has not the right to read; it has write");
    assert_eq!(authority.admit(Some(b"x")), Err(Unknown::WrongToken), "a wrong one is not none");
}

#[test]
fn topics_bound_what_is_seen_and_written() {
    let both = [Right::Read, Right::Write];
    let authority = authority(vec![entry("shop", Some("t"), &both, Some(&["web", "db"]))]);
    let access = authority.admit(Some(b"t")).unwrap();
    assert!(access.require_reading(&[]).is_ok() && access.require_reading(&[topic("db")]).is_ok());
    let beyond = access.require_reading(&[topic("web"), topic("mail")]).unwrap_err();
    assert_eq!(beyond.reason, Reason::Topic);
    assert_eq!(
        beyond.words,
        "topic: \"mail\" is not for the token \"shop\", which is for web, db only"
    );
    assert!(access.require_writing(Some(&topic("web"))).is_ok());
    assert!(access.require_writing(Some(&topic("mail"))).is_err());
    assert!(access.require_writing(None).unwrap_err().words.contains("name one"));
    assert_eq!(access.require_everything().unwrap_err().reason, Reason::Topic);
}

#[test]
fn what_is_taken_away_or_changed_holds_no_longer() {
    let a = || entry("a", Some("a"), &[Right::Read], None);
    let authority = authority(vec![a(), entry("b", Some("b"), &[Right::Read], None)]);
    let (of_a, of_b) = (authority.admit(Some(b"a")).unwrap(), authority.admit(Some(b"b")).unwrap());
    let same = Table::new(vec![entry("b", Some("b"), &[Right::Read], None), a()]).unwrap();
    assert!(!authority.set(same), "another order is no change");
    assert_eq!(authority.changes(), 0);
    let fewer = entry("b", Some("b"), &[Right::Read], Some(&["x"]));
    assert!(authority.set(Table::new(vec![a(), fewer]).unwrap()));
    assert_eq!(authority.changes(), 1);
    assert!(authority.holds(&of_a) && !authority.holds(&of_b));
    let renewed = entry("a", Some("another"), &[Right::Read], None);
    assert!(authority.set(Table::new(vec![renewed]).unwrap()));
    assert!(!authority.holds(&of_a));
}

#[test]
fn entries_that_do_not_fit_each_other_are_refused() {
    let good = || entry("a", Some("a"), &[Right::Read], None);
    let refused = |entries: Vec<Entry>| Table::new(entries).unwrap_err();
    assert_eq!(refused(vec![]), TableError::Empty);
    let same_name = entry("a", Some("b"), &[Right::Read], None);
    assert_eq!(refused(vec![good(), same_name]), TableError::SameName("a".into()));
    let same_token = entry("b", Some("a"), &[Right::Read], None);
    assert!(matches!(refused(vec![good(), same_token]), TableError::SameToken(..)));
    let right = &[Right::Read][..];
    assert!(matches!(refused(vec![entry("b", Some("b"), &[], None)]), TableError::NoRight(_)));
    let of_nothing = entry("b", Some(""), right, None);
    assert!(matches!(refused(vec![of_nothing]), TableError::NoToken(_)));
    for topics in [&[][..], &["x", "x"]] {
        let bad = entry("b", Some("b"), right, Some(topics));
        assert!(matches!(refused(vec![bad]), TableError::Topics(_)));
    }
    assert!(matches!(refused(vec![entry("b", None, right, None)]), TableError::Keyless(_)));
    let named = entry("anonymous", Some("b"), right, None);
    assert!(matches!(refused(vec![named]), TableError::Keyless(_)));
}

#[tokio::test]
async fn a_change_is_told_to_those_who_watch() {
    let authority = authority(vec![entry("a", Some("a"), &[Right::Read], None)]);
    let mut changes = authority.watch();
    let mut next = std::pin::pin!(changes.next());
    tokio::select! {
        biased;
        () = &mut next => panic!("nothing has changed"),
        () = std::future::ready(()) => {}
    }
    authority.set(Table::new(vec![entry("b", Some("b"), &[Right::Read], None)]).unwrap());
    next.await;
}
