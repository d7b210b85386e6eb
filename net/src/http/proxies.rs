//! For whom a proxy asks.
//!
//! A node behind a proxy sees the proxy's address on every connection. Of proxies that it is told to trust
//! (`--http.trusted-proxy`) it takes from `X-Forwarded-For` for whom they ask: shares, limits and the log then
//! have that address. Each proxy appends where it got the request from, so the field is read from its end, and
//! only as far as proxies are trusted: what stands before was written by anybody.
//!
//! `Forwarded` (RFC 7239) is not read: a proxy that writes one of the two passes on what clients say in the
//! other.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;
use ipnet::IpNet;

/// Most networks of proxies.
const NETWORKS_MAX: usize = 256;
/// Most addresses of a request that are looked at: more proxies stand nowhere in a row.
const HOPS_MAX: usize = 64;
const FIELD: &str = "x-forwarded-for";

/// The networks of proxies that are trusted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Of `--http.trusted-proxy`: addresses, or networks as `ADDRESS/BITS`. An error names the value and what
    /// is valid.
    pub fn new(texts: &[String]) -> Result<Self, String> {
        if texts.len() > NETWORKS_MAX {
            return Err(format!(
                "--http.trusted-proxy: given {} times; valid is at most {NETWORKS_MAX} times",
                texts.len()
            ));
        }
        let network = |text: &String| {
            let alone = || text.parse::<IpAddr>().ok().map(|address| address.to_canonical().into());
            let network = text.parse::<IpNet>().ok().or_else(alone);
            network.filter(is_some_proxies).ok_or_else(|| {
                let shown: String = text.chars().take(80).collect();
                format!(
                    "--http.trusted-proxy: {shown:?} is no network of proxies; valid is an address, or one with \
                     the bits that count, as in 10.1.2.0/28 or fd00::/64"
                )
            })
        };
        texts.iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether it is one of them.
    fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Who asks on a connection from `peer`.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trust(peer) {
            return peer;
        }
        let fields = headers.get_all(FIELD).iter().rev();
        let hops = fields.flat_map(|field| field.as_bytes().rsplit(|&byte| byte == b','));
        let mut client = peer;
        for hop in hops.take(HOPS_MAX) {
            // Beyond what cannot be read nothing is known.
            let Some(address) = address_of(hop) else { break };
            client = address;
            if !self.trust(address) {
                break;
            }
        }
        client
    }
}

/// Not everybody, and not addresses in a form that none is compared in.
fn is_some_proxies(network: &IpNet) -> bool {
    network.prefix_len() > 0 && network.addr().to_canonical() == network.addr()
}

/// Whether a request comes from this host, and for nobody else: a proxy that stands here says for whom, whether
/// it is trusted or not. What stands in the field is asked by none: anybody may have written it.
pub(super) fn is_local(peer: IpAddr, headers: &HeaderMap) -> bool {
    peer.to_canonical().is_loopback() && !headers.contains_key(FIELD)
}

/// An address, as some write it with the port.
fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(bare).or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn proxies(texts: &[&str]) -> Proxies {
        Proxies::new(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn asked(proxies: &Proxies, peer: &str, fields: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FIELD, HeaderValue::from_bytes(field).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_trusted_proxy_says_for_whom_it_asks() {
        let trusted = proxies(&["10.0.0.0/8", "fd00::/8", "192.0.2.7"]);
        for (peer, fields, client) in [
            ("10.0.0.1", &["198.51.100.4"][..], "198.51.100.4"),
            ("::ffff:10.0.0.1", &["198.51.100.4"], "198.51.100.4"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            ("192.0.2.7", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("192.0.2.7", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.4:80"], "198.51.100.4"),
            // What a client wrote itself stands before.
            ("10.0.0.1", &["127.0.0.1, 198.51.100.4"], "198.51.100.4"),
            ("10.0.0.1", &["127.0.0.1", "198.51.100.4 , 10.9.9.9"], "198.51.100.4"),
            ("10.0.0.1", &["<script>, 198.51.100.4"], "198.51.100.4"),
            // As far as it can be read.
            ("10.0.0.1", &["198.51.100.4, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            let fields: Vec<_> = fields.iter().map(|field| field.as_bytes()).collect();
            assert_eq!(asked(&trusted, peer, &fields), client, "{peer} {fields:?}");
        }
        let bytes = [&b"198.51.100.4, \xff"[..]];
        assert_eq!(asked(&trusted, "10.0.0.1", &bytes), "10.0.0.1");
        let long = vec!["10.0.0.2"; 10_000].join(",");
        let fields = [b"198.51.100.4".as_slice(), long.as_bytes()];
        assert_eq!(asked(&trusted, "10.0.0.1", &fields), "10.0.0.2", "as many as are looked at");
    }

    #[test]
    fn nobody_else_is_believed() {
        for peer in ["192.0.2.8", "::1", "127.0.0.1"] {
            let fields = [b"198.51.100.4".as_slice()];
            assert_eq!(asked(&proxies(&["10.0.0.0/8", "192.0.2.7"]), peer, &fields), peer);
            assert_eq!(asked(&Proxies::default(), peer, &fields), peer);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.1:80",
            "::/129",
            "*",
            "0.0.0.0/0",
            "::/0",
            "::ffff:10.0.0.0/104",
        ] {
            let error = Proxies::new(&[bad.to_owned()]).unwrap_err();
            assert!(
                error.starts_with("--http.trusted-proxy: ") && error.contains("valid"),
                "{error}"
            );
        }
        assert!(Proxies::new(&vec!["10.0.0.1".to_owned(); NETWORKS_MAX + 1]).is_err());
    }
}
