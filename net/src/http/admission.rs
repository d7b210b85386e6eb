//! Who asks, and whether he may: the door that every route of the table has, unless everybody may do
//! everything.
//!
//! A route says what it takes ([`Need`]); here that is held against what whoever asks may do. Topics are seen
//! to behind it: [`crate::backend::Guarded`] has records for an [`Access`] alone, which is made here.
//!
//! Invariants: decided from heads alone; what is answered tells nothing of what is held. A token stands in
//! `Authorization` or in the page's cookie, never in a URL, and is shown nowhere. Who is refused is counted,
//! and told once a minute.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use engine::limits::TOKEN_BYTES_MAX;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, COOKIE, HeaderMap, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

use super::App;
use super::answer::Refusal;
use crate::access::{Access, Authority, Beyond, Rates, Reason, Right, Unknown};

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it tells of no record.
    Nothing,
    /// That it is known who asks.
    Somebody,
    /// This right; what of it depends on topics is seen to behind.
    Right(Right),
    /// To see all topics: it tells of them together.
    Everything,
}

/// Where a request comes from; who that is is not known yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// The other end of the connection, be it a proxy.
    pub(super) peer: IpAddr,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// The other end of the connection, be it a proxy.
    pub(super) peer: IpAddr,
    pub(super) access: Access,
}

/// What the request under way on a connection was let in with: the connection ends with that.
#[derive(Debug, Default)]
pub(super) struct LetIn(Mutex<Option<Access>>);

impl LetIn {
    fn note(&self, access: &Access) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(access.clone());
    }

    fn get(&self) -> Option<Access> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Ready once what was let in may no longer what it did then.
pub(super) async fn until_withdrawn(authority: &Authority, let_in: &LetIn) {
    let mut changes = authority.watch();
    // First: it may have been withdrawn before anybody waited for that.
    while let_in.get().is_none_or(|access| authority.holds(&access)) {
        changes.next().await;
    }
}

impl App {
    /// Everybody may do everything, any time: routes have no door.
    pub(super) const fn is_open(&self) -> bool {
        self.options.authority.is_none() && self.rates.is_none()
    }

    /// Refuses what comes too often.
    fn pace(
        &self,
        whose: &str,
        take: impl FnOnce(&mut Rates, u64) -> Result<(), u64>,
    ) -> Result<(), Refusal> {
        let Some(rates) = &self.rates else { return Ok(()) };
        let taken = take(
            &mut rates.lock().unwrap_or_else(PoisonError::into_inner),
            self.refusals().now_ms(),
        );
        taken.map_err(|_| Refusal {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry: true,
            ..denied(
                Reason::Rate,
                &format!(
                    "too many requests {whose}: more a second than may be (--http.rate-limit)"
                ),
            )
        })
    }
}

/// The door of one route.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) app: Arc<App>,
    pub(super) need: Need,
}

/// Lets a request in, or refuses it.
pub(super) async fn enter(
    State(Door { app, need }): State<Door>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let address = request.extensions().get::<Peer>().map(|peer| peer.address);
    let mut response = match let_in(&app, need, &mut request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if let Some(&Denied(reason)) = response.extensions().get() {
        app.refusals().note(reason, address);
    }
    if need != Need::Nothing {
        // What one may see is nobody else's, not that of a cache either.
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().entry(CACHE_CONTROL).or_insert(no_store);
    }
    response
}

fn let_in(app: &App, need: Need, request: &mut Request<Body>) -> Result<(), Refusal> {
    let Some(&Peer { address, peer }) = request.extensions().get() else {
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "nobody knows who asks"));
    };
    if need == Need::Nothing {
        return Ok(());
    }
    // First that: who asks with wrong tokens asks as well.
    app.pace("of this address", |rates, now_ms| rates.of_address(address, now_ms))?;
    let access = app.identify(request.headers(), address)?;
    if let Some(token) = access.key() {
        app.pace("with this token", |rates, now_ms| rates.of_token(token, now_ms))?;
    }
    match need {
        Need::Nothing | Need::Somebody => {}
        Need::Right(right) => access.require(right)?,
        Need::Everything => access.require_everything()?,
    }
    if let Some(let_in) = request.extensions().get::<Arc<LetIn>>() {
        let_in.note(&access);
    }
    request.extensions_mut().insert(Client { address, peer, access });
    Ok(())
}

impl App {
    /// Who sends this.
    fn identify(&self, headers: &HeaderMap, address: IpAddr) -> Result<Access, Refusal> {
        if self.options.authority.is_none() {
            // Where nobody has a token, what stands there is for a proxy.
            return Ok(Access::everything());
        }
        let token = token_of(headers).map_err(|words| denied(Reason::WrongToken, words))?;
        self.known(token.as_deref(), address)
    }

    /// Whose token it is.
    pub(super) fn known(&self, token: Option<&[u8]>, address: IpAddr) -> Result<Access, Refusal> {
        let authority = &self.options.authority;
        authority.admit(token).map_err(|unknown| match unknown {
            Unknown::NoToken => denied(
                Reason::NoToken,
                "a token is asked for: send it as `Authorization: Bearer TOKEN`, or log in at /ui/",
            ),
            Unknown::WrongToken => match authority.wrong_token(address, self.refusals().now_ms()) {
                None => denied(
                    Reason::WrongToken,
                    "nobody has this token (it may have been taken away)",
                ),
                Some(_) => Refusal {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    retry: true,
                    ..denied(Reason::Guessing, "too many wrong tokens came from this address")
                },
            },
        })
    }

    pub(super) fn refusals(&self) -> Told<'_> {
        Told { app: self }
    }
}

/// Where refusals are counted and told.
pub(super) struct Told<'a> {
    app: &'a App,
}

impl Told<'_> {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.app.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self, reason: Reason, address: Option<IpAddr>) {
        let (app, now_ms) = (self.app, self.now_ms());
        app.metrics.access.refused(reason).inc();
        let line = match &app.rates {
            Some(rates) if reason == Reason::Rate => {
                rates.lock().unwrap_or_else(PoisonError::into_inner).refused(address, now_ms)
            }
            _ => app.options.authority.refused(reason, address, now_ms),
        };
        if let Some(line) = line {
            tracing::warn!("{line}");
        }
    }
}

/// On an answer that refuses somebody: why.
#[derive(Debug, Clone, Copy)]
struct Denied(Reason);

fn denied(reason: Reason, words: &str) -> Refusal {
    Refusal { denied: Some(reason), ..Refusal::new(StatusCode::UNAUTHORIZED, words) }
}

impl From<Beyond> for Refusal {
    fn from(beyond: Beyond) -> Self {
        // Who has no token may have one.
        let status =
            if beyond.is_anonymous { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        Self { denied: Some(beyond.reason), ..Self::new(status, beyond.words) }
    }
}

/// What an answer says beside its body that refuses somebody.
pub(super) fn mark(response: &mut Response<Body>, reason: Reason) {
    response.extensions_mut().insert(Denied(reason));
    if response.status() == StatusCode::UNAUTHORIZED {
        // Not Basic, which is taken as well: browsers would ask for it in a window of their own.
        let bearer = HeaderValue::from_static("Bearer realm=\"oklogd\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    }
    if reason == Reason::Guessing {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The cookie in which the page keeps its token.
pub(super) const TOKEN_COOKIE: &str = "oklogd_token";

/// The token of a request, if it has one. An error says what is wrong with how it is given.
fn token_of(headers: &HeaderMap) -> Result<Option<Vec<u8>>, &'static str> {
    const VALID: &str = "Authorization: not understood; valid is `Bearer TOKEN` or `Basic` with the \
                         token as password";
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (given.next(), given.next());
    if second.is_some() {
        return Err("Authorization: given twice; valid is once");
    }
    let Some(first) = first else { return Ok(cookie_of(headers)) };
    let (scheme, rest) = first.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(VALID)?;
    let rest = rest.trim();
    // Nobody hashes what cannot be one.
    if rest.len() > 4 * TOKEN_BYTES_MAX {
        return Err(VALID);
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(rest.as_bytes().to_vec()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(VALID);
    }
    let pair = STANDARD.decode(rest).map_err(|_| VALID)?;
    let colon = pair.iter().position(|&byte| byte == b':').ok_or(VALID)?;
    Ok(Some(pair[colon + 1..].to_vec()))
}

/// What the page has kept; one that cannot be read is a wrong one.
fn cookie_of(headers: &HeaderMap) -> Option<Vec<u8>> {
    // Cookies of others in the same field may be anything.
    let fields = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = fields.flat_map(|field| field.split(|&byte| byte == b';'));
    let value = pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let value = pair.strip_prefix(TOKEN_COOKIE.as_bytes())?.trim_ascii_start();
        value.strip_prefix(b"=").filter(|value| !value.is_empty())
    })?;
    let value = value.trim_ascii();
    let is_short = value.len() <= 2 * TOKEN_BYTES_MAX;
    Some(is_short.then(|| URL_SAFE_NO_PAD.decode(value).ok()).flatten().unwrap_or_default())
}

/// A token as that cookie holds it.
pub(super) fn cookie_value(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(fields: &[(&'static str, &str)]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        token_of(&headers).map(|token| token.map(|token| String::from_utf8(token).unwrap()))
    }

    #[test]
    fn a_token_stands_in_one_of_three_places() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(token(&[]), Ok(None));
        assert_eq!(token(&[("authorization", "Bearer s3cret")]), some("s3cret"));
        assert_eq!(token(&[("authorization", "bearer  s3=cret ")]), some("s3=cret"));
        // "any:s3:cret" and ":x".
        assert_eq!(token(&[("authorization", "Basic YW55OnMzOmNyZXQ=")]), some("s3:cret"));
        assert_eq!(token(&[("authorization", "BASIC Ong=")]), some("x"));
        let kept = format!("a=b; {TOKEN_COOKIE}={}; c=d", cookie_value(b"s3;cret"));
        assert_eq!(token(&[("cookie", &kept)]), some("s3;cret"));
        assert_eq!(
            token(&[("cookie", &format!("name=Zoë; {kept}"))]),
            some("s3;cret"),
            "another's"
        );
        let both = [("cookie", &*kept), ("authorization", "Bearer other")];
        assert_eq!(token(&both), some("other"), "who says it himself means it");
        assert_eq!(token(&[("cookie", "a=b"), ("cookie", &kept)]), some("s3;cret"));
        assert_eq!(token(&[("cookie", "oklogd_token=")]), Ok(None), "logged out");
    }

    #[test]
    fn what_cannot_be_read_is_no_token_and_not_none() {
        let long = format!("Bearer {}", "x".repeat(4 * TOKEN_BYTES_MAX + 1));
        for bad in ["", "Bearer", "Digest x", "Basic !", "Basic eA==", &long] {
            assert!(token(&[("authorization", bad)]).unwrap_err().contains("valid"), "{bad}");
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert!(token(&twice).is_err());
        for bad in ["oklogd_token=!", &format!("oklogd_token={}", "A".repeat(9_000))] {
            assert_eq!(token(&[("cookie", bad)]), Ok(Some(String::new())), "a wrong one");
        }
    }
}
