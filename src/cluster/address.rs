//! The addresses that C programs give: `host[:port]`, `[v6]:port`, several separated by commas.

use std::net::{Ipv6Addr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sheepdog_proto::DEFAULT_PORT;

use crate::error::{Error, Result};
use crate::net::Endpoint;

/// Longest path of a unix socket, the NUL not counted.
const MAX_UNIX_PATH: usize = 107;

/// The gateways that `text` names, in its order; a host with several addresses gives several.
///
/// Looks names up, which can take a while where `text` holds any.
pub fn parse(text: &[u8]) -> Result<Vec<Endpoint>> {
    if text.is_empty() {
        return parse(b"127.0.0.1");
    }
    let text = std::str::from_utf8(text).map_err(|_| Error::Invalid("the address is not UTF-8"))?;
    let mut endpoints = Vec::new();
    let mut unresolved = None;
    for part in text.split(',') {
        let (host, port) = split(part.trim())?;
        match (host, port).to_socket_addrs() {
            Ok(addrs) => {
                for endpoint in addrs.map(Endpoint::Tcp) {
                    if !endpoints.contains(&endpoint) {
                        endpoints.push(endpoint);
                    }
                }
            }
            Err(e) => unresolved = Some(format!("{host}: {e}")),
        }
    }
    match unresolved {
        // As long as some gateway is known, an unknown one is no worse than one that is down.
        Some(why) if endpoints.is_empty() => Err(Error::NotConnected(why.into())),
        _ => Ok(endpoints),
    }
}

/// The gateway that listens on the unix socket `path`.
pub fn parse_unix(path: &[u8]) -> Result<Vec<Endpoint>> {
    if path.is_empty() || path.len() > MAX_UNIX_PATH {
        return Err(Error::Invalid("the path of a unix socket has 1 to 107 bytes"));
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    Ok(vec![Endpoint::Unix(path.to_owned())])
}

fn split(part: &str) -> Result<(&str, u16)> {
    const MALFORMED: Error = Error::Invalid("an address is host[:port] or [v6-address][:port]");
    let (host, port) = if let Some(rest) = part.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(MALFORMED)?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':').ok_or(MALFORMED)?),
        };
        (host, port)
    } else if part.parse::<Ipv6Addr>().is_ok() {
        (part, None)
    } else {
        match part.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (part, None),
        }
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(MALFORMED);
    }
    let port = match port {
        None => DEFAULT_PORT,
        // No sign, unlike u16::from_str; and 0 is no port to connect to.
        Some(p) if !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) => {
            p.parse().map_err(|_| MALFORMED)?
        }
        Some(_) => return Err(MALFORMED),
    };
    if port == 0 { Err(MALFORMED) } else { Ok((host, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        parse(text.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_documented_form_is_understood() {
        assert_eq!(texts(""), ["127.0.0.1:7000"]);
        assert_eq!(texts("127.0.0.1"), ["127.0.0.1:7000"]);
        assert_eq!(texts("127.0.0.1:7001"), ["127.0.0.1:7001"]);
        assert_eq!(texts("[::1]:7001"), ["[::1]:7001"]);
        assert_eq!(texts("[::1]"), ["[::1]:7000"]);
        assert_eq!(texts("::1"), ["[::1]:7000"]);
        assert_eq!(
            texts("127.0.0.1:1, 127.0.0.2:2,127.0.0.1:1"),
            ["127.0.0.1:1", "127.0.0.2:2"],
            "in order, each once"
        );
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in [":7000", "h:", "h:x", "h:70000", "h:0", "h:+1", "[::1", "[::1]x", ",", "a b"] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{text}: {error}");
        }
        assert!(parse_unix(b"").is_err());
        assert!(parse_unix(&[b'a'; 108]).is_err());
    }
}
