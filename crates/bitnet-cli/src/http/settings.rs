//! How the server listens and what it allows.

use std::net::IpAddr;
use std::time::Duration;

/// The options of the server that do not concern the model.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Names beside the host under which clients may reach the server.
    pub(crate) allowed_hosts: Vec<String>,
    /// BLAKE3 of each key; without any, the server asks for none.
    pub(crate) keys: Vec<blake3::Hash>,
    pub(crate) max_body_bytes: usize,
    /// Most tokens of an answer.
    pub(crate) max_tokens: usize,
    /// Longest time of a request.
    pub(crate) request_time: Duration,
    /// The time that running requests get after SIGTERM.
    pub(crate) drain_time: Duration,
    pub(crate) vllm_names: bool,
    /// Whether `/slots` and `/props` exist.
    pub(crate) debug_endpoints: bool,
    /// Whether thoughts stand in the content of chats, between `<think>` and `</think>`.
    pub(crate) thoughts_in_content: bool,
}

impl Settings {
    /// Whether a client may send requests to this value of `Host`: a loopback name, the host of the server, an allowed one,
    /// or, where the server listens on all addresses, any address without a name. A page of a foreign site that was made to
    /// resolve to this machine has a name of its own.
    pub(crate) fn allows_host(&self, authority: &str) -> bool {
        let Some(name) = host_of(authority) else { return false };
        let address = name.parse::<IpAddr>().ok();
        let is_everywhere = self.host.parse::<IpAddr>().is_ok_and(|host| host.is_unspecified());
        name.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|address| address.is_loopback() || is_everywhere)
            || self.allowed_hosts.iter().chain([&self.host]).any(|host| host.eq_ignore_ascii_case(name))
    }

    /// Whether a page of `origin` may send requests to `authority`: only this server's own page.
    pub(crate) fn allows_origin(&self, origin: &str, authority: &str) -> bool {
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        own.is_some_and(|own| own.eq_ignore_ascii_case(authority))
    }

    /// The number of the key that `candidate` is. The comparison takes the same time for every candidate.
    pub(crate) fn key_number(&self, candidate: &str) -> Option<usize> {
        let hash = blake3::hash(candidate.as_bytes());
        let mut found = None;
        for (number, key) in self.keys.iter().enumerate() {
            // `blake3::Hash` compares in constant time.
            if *key == hash {
                found = Some(number);
            }
        }
        found
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address; `None` for a text that is none.
fn host_of(authority: &str) -> Option<&str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host);
    }
    match authority.split_once(':') {
        None => Some(authority),
        Some((host, port)) => is_port(port).then_some(host),
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(host: &str) -> Settings {
        Settings {
            host: host.to_owned(),
            port: 0,
            allowed_hosts: vec!["models.example".to_owned()],
            keys: [b"one", b"two"].map(|key| blake3::hash(key)).to_vec(),
            max_body_bytes: 0,
            max_tokens: 0,
            request_time: Duration::ZERO,
            drain_time: Duration::ZERO,
            vllm_names: false,
            debug_endpoints: false,
            thoughts_in_content: false,
        }
    }

    #[test]
    fn hosts_are_loopback_own_or_allowed() {
        let local = settings("127.0.0.1");
        for host in
            ["127.0.0.1:80", "localhost", "LOCALHOST:8080", "[::1]:8080", "[::1]", "127.9.9.9", "models.example"]
        {
            assert!(local.allows_host(host), "{host}");
        }
        for host in ["evil.example", "192.168.0.7:80", "localhost.evil.example", "", "[::1", "localhost:x", "[::2]:80"]
        {
            assert!(!local.allows_host(host), "{host}");
        }
        let all = settings("0.0.0.0");
        assert!(
            all.allows_host("192.168.0.7:80") && all.allows_host("[fe80::1]:80") && !all.allows_host("evil.example")
        );
    }

    #[test]
    fn only_the_own_page_is_an_origin() {
        let settings = settings("127.0.0.1");
        assert!(settings.allows_origin("http://127.0.0.1:80", "127.0.0.1:80"));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:81", "file://127.0.0.1:80", ""] {
            assert!(!settings.allows_origin(origin, "127.0.0.1:80"), "{origin}");
        }
    }

    #[test]
    fn keys_are_numbered() {
        let settings = settings("x");
        assert_eq!(["one", "two", "on", ""].map(|key| settings.key_number(key)), [Some(0), Some(1), None, None]);
    }
}
