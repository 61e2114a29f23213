//! The addresses that C programs give: `host[:port]`, `[v6]:port`, `unix:path`, several separated by
//! commas; and URIs that name the same.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use sheepdog_proto::DEFAULT_PORT;

use crate::error::{Error, Result};
use crate::net::Endpoint;

/// Longest path of a unix socket, the NUL not counted.
const MAX_UNIX_PATH: usize = 107;

/// One of a cluster's gateways, as the program names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gateway {
    At(Endpoint),
    /// Looked up whenever it is connected to.
    Named(Arc<str>, u16),
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gateway::At(endpoint) => endpoint.fmt(f),
            // With a zone: fe80::1%eth0.
            Gateway::Named(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Gateway::Named(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// The gateways that `text` names, in its order, each once.
pub fn parse(text: &[u8]) -> Result<Vec<Gateway>> {
    if let Some(rest) = scheme(text, b"sheepdog+unix:") {
        return parse_unix(&unix_uri(rest)?);
    }
    let uri = scheme(text, b"sheepdog+tcp:").or_else(|| scheme(text, b"sheepdog:"));
    let text = match uri {
        Some(rest) => list_of_uri(rest)?,
        None => text,
    };
    if text.is_empty() {
        return parse(b"127.0.0.1");
    }
    let text = std::str::from_utf8(text).map_err(|_| Error::Invalid("the address is not UTF-8"))?;
    let mut gateways = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let gateway = match scheme(part.as_bytes(), b"unix:") {
            Some(path) => unix(path)?,
            None => {
                let (host, port) = split(part)?;
                match host.parse::<IpAddr>() {
                    Ok(address) => Gateway::At(Endpoint::Tcp((address, port).into())),
                    Err(_) => Gateway::Named(host.into(), port),
                }
            }
        };
        if !gateways.contains(&gateway) {
            gateways.push(gateway);
        }
    }
    Ok(gateways)
}

/// The gateway that listens on the unix socket `path`.
pub fn parse_unix(path: &[u8]) -> Result<Vec<Gateway>> {
    Ok(vec![unix(path)?])
}

fn unix(path: &[u8]) -> Result<Gateway> {
    if path.is_empty() || path.len() > MAX_UNIX_PATH || path.contains(&0) {
        return Err(Error::Invalid("the path of a unix socket has 1 to 107 bytes"));
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    Ok(Gateway::At(Endpoint::Unix(path.to_owned())))
}

/// What follows a scheme; a host of that name may have a port all the same.
fn scheme<'a>(text: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let rest = text.strip_prefix(scheme)?;
    let port = rest.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii_end();
    let is_port = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    if is_port { None } else { Some(rest) }
}

const NO_VDI_HERE: Error = Error::Invalid("a URI names a cluster here, and no VDI");

/// `[//]list[/]`
fn list_of_uri(rest: &[u8]) -> Result<&[u8]> {
    let list = rest.strip_prefix(b"//").unwrap_or(rest);
    let list = list.strip_suffix(b"/").unwrap_or(list);
    if list.iter().any(|byte| b"/?#".contains(byte)) { Err(NO_VDI_HERE) } else { Ok(list) }
}

/// `[//]path`, or `[//][/]?socket=path` as QEMU writes it; bytes may be %xx.
fn unix_uri(rest: &[u8]) -> Result<Vec<u8>> {
    const SOCKET: &[u8] = b"?socket=";
    let rest = rest.strip_prefix(b"//").unwrap_or(rest);
    let at = rest.windows(SOCKET.len()).position(|part| part == SOCKET);
    let path = match at {
        None => rest,
        Some(at) if matches!(&rest[..at], b"" | b"/") => &rest[at + SOCKET.len()..],
        Some(_) => return Err(NO_VDI_HERE),
    };
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                let byte = digit().zip(digit()).map(|(high, low)| (high << 4 | low) as u8);
                byte.ok_or(Error::Invalid("a URI with a % that no two digits follow"))?
            }
            byte => *byte,
        });
    }
    Ok(decoded)
}

/// Whether it is an IPv6 address, maybe with a zone.
fn is_v6(host: &str) -> bool {
    match host.split_once('%') {
        Some((address, zone)) => {
            let is_zone = !zone.is_empty() && !zone.contains(']');
            is_zone && address.parse::<Ipv6Addr>().is_ok()
        }
        None => host.parse::<Ipv6Addr>().is_ok(),
    }
}

fn split(part: &str) -> Result<(&str, u16)> {
    const MALFORMED: Error = Error::Invalid("an address is host[:port] or [v6-address][:port]");
    let (host, port) = if let Some(rest) = part.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(MALFORMED)?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':').ok_or(MALFORMED)?),
        };
        if !is_v6(host) {
            return Err(MALFORMED);
        }
        (host, port)
    } else if is_v6(part) {
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
        assert_eq!(texts("a.example"), ["a.example:7000"]);
        assert_eq!(texts("[fe80::1%eth0]:7001"), ["[fe80::1%eth0]:7001"]);
        assert_eq!(texts("fe80::1%eth0"), ["[fe80::1%eth0]:7000"]);
        assert_eq!(texts("unix:/run/a"), ["/run/a"]);
        assert_eq!(
            texts("127.0.0.1:1, 127.0.0.2:2,unix:b,127.0.0.1:1,c:3"),
            ["127.0.0.1:1", "127.0.0.2:2", "b", "c:3"],
            "in order, each once"
        );
    }

    #[test]
    fn uris_name_clusters() {
        for text in ["sheepdog:", "sheepdog://", "sheepdog+tcp:", "sheepdog+tcp:///"] {
            assert_eq!(texts(text), ["127.0.0.1:7000"], "{text}");
        }
        assert_eq!(texts("sheepdog://a:1,[::1]:2/"), ["a:1", "[::1]:2"]);
        assert_eq!(texts("sheepdog+tcp:127.0.0.1:1"), ["127.0.0.1:1"]);
        for text in [
            "sheepdog+unix:/run/a b",
            "sheepdog+unix:///run/a%20b",
            "sheepdog+unix:///?socket=/run/a%20b",
            "sheepdog+unix://?socket=/run/a b",
        ] {
            assert_eq!(texts(text), ["/run/a b"], "{text}");
        }
        assert_eq!(texts("sheepdog:7001"), ["sheepdog:7001"], "a host");
        assert_eq!(texts("unix:7001"), ["unix:7001"], "a host");
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in [
            ":7000",
            "h:",
            "h:x",
            "h:70000",
            "h:0",
            "h:+1",
            "[::1",
            "[::1]x",
            "[a:1]",
            "[a.example]:1",
            "[127.0.0.1]:1",
            "[::1%]",
            "::1%eth0]",
            ",",
            "a b",
            "unix:",
            "a,unix:",
            "sheepdog://a/vdi",
            "sheepdog:a?b",
            "sheepdog+unix:",
            "sheepdog+unix:/a%2",
            "sheepdog+unix:/a%xx",
            "sheepdog+unix:/a%00",
            "sheepdog+unix:///vdi?socket=/a",
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{text}: {error}");
        }
        assert!(parse_unix(b"").is_err());
        assert!(parse_unix(&[b'a'; 108]).is_err());
    }
}
