//! Addresses of ingesters as people write them.

use super::Target;
use crate::units::Address;

/// Reads `host`, `host:port`, `:port`, each with or without `tcp://`, `tcp+dns://name[:port]` or
/// `tcp+dnssrv://name`; the error says what is valid.
pub(super) fn read(text: &str, default_port: u16) -> Result<Target, String> {
    let refused = |why: &str| {
        format!(
            "{text:?} is not an ingester's address: {why}; valid are HOST, HOST:PORT, \
             tcp://HOST[:PORT], tcp+dns://NAME[:PORT] and tcp+dnssrv://NAME"
        )
    };
    let parse = |rest| Address::parse(rest).map_err(refused);
    if let Some(rest) = text.strip_prefix("tcp+dns://") {
        let Address { host, port } = parse(rest)?;
        let name = host.ok_or_else(|| refused("it has no name"))?;
        return Ok(Target::Dns { name, port: port.unwrap_or(default_port) });
    }
    if let Some(rest) = text.strip_prefix("tcp+dnssrv://") {
        let Address { host, port } = parse(rest)?;
        return match (host, port) {
            (Some(name), None) => Ok(Target::Srv { name }),
            (_, Some(_)) => Err(refused("the port comes from the SRV record")),
            (None, None) => Err(refused("it has no name")),
        };
    }
    let endpoint = parse(text)?.or("localhost", default_port);
    if endpoint.port == 0 {
        return Err(refused("port 0 cannot be connected to"));
    }
    Ok(Target::Host { host: endpoint.host, port: endpoint.port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown_again() {
        for (text, shown) in [
            ("web", "web:7651"),
            ("web:1", "web:1"),
            (":1", "localhost:1"),
            ("tcp://10.0.0.1", "10.0.0.1:7651"),
            ("[::1]:9", "[::1]:9"),
            ("tcp+dns://web", "tcp+dns://web:7651"),
            ("tcp+dns://web:5", "tcp+dns://web:5"),
            ("tcp+dnssrv://_oklog._tcp.example.org", "tcp+dnssrv://_oklog._tcp.example.org"),
        ] {
            assert_eq!(read(text, 7651).map(|t| t.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_what_is() {
        for text in [
            "",
            "udp://x",
            "tcp+dns://",
            "tcp+dns://:1",
            "tcp+dnssrv://x:1",
            "a b",
            "x:0",
            "tcp+srv://x",
        ] {
            let error = read(text, 7651).unwrap_err();
            assert!(error.contains("tcp+dnssrv://NAME"), "{text}: {error}");
        }
    }
}
