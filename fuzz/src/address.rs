//! The address parser, with any text. What it takes comes back as the same from the text that it
//! gives itself.

use sim::cluster::address::{Gateway, parse, parse_unix};
use sim::net::Endpoint;

pub fn run(data: &[u8]) {
    let _ = parse_unix(data);
    let Ok(gateways) = parse(data) else { return };
    assert!(!gateways.is_empty(), "no gateway");
    for (at, gateway) in gateways.iter().enumerate() {
        assert!(!gateways[..at].contains(gateway), "{gateway} twice");
        let text = match gateway {
            // Not in the form that the parser reads: a path may have anything in it.
            Gateway::At(Endpoint::Unix(path)) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                assert!((1..=107).contains(&bytes.len()) && !bytes.contains(&0));
                let hex = |byte: &u8| format!("%{byte:02x}");
                format!("sheepdog+unix:{}", bytes.iter().map(hex).collect::<String>())
            }
            gateway => gateway.to_string(),
        };
        let again = parse(text.as_bytes());
        let again = again.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(again, std::slice::from_ref(gateway), "{text}");
    }
}
