//! Which proxy stands between this machine and a URL, as the environment says it.
//!
//! The variables are read as Python's clients read them: `https_proxy`, `http_proxy` and `all_proxy`, lower case
//! before upper case, and `no_proxy`, a list of hosts that are reached directly. ureq's own reading knows
//! no `no_proxy` and takes `HTTP_PROXY` for HTTPS, too.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use url::{Host, Url};

/// The proxies for `http` and `https` URLs, and the hosts that need none.
#[derive(Clone, Default)]
pub struct ProxyRules {
    http: Option<String>,
    https: Option<String>,
    direct: Vec<String>,
}

impl ProxyRules {
    /// Reads the rules from an environment, given as a lookup by name.
    pub fn from_env(env: &dyn Fn(&str) -> Option<OsString>) -> ProxyRules {
        let read = |name: &str| {
            [name.to_string(), name.to_uppercase()]
                .iter()
                .find_map(|name| env(name)?.into_string().ok().filter(|value| !value.trim().is_empty()))
        };
        let every = read("all_proxy");
        ProxyRules {
            http: read("http_proxy").or_else(|| every.clone()),
            https: read("https_proxy").or(every),
            direct: read("no_proxy")
                .unwrap_or_default()
                .split(',')
                .map(|entry| entry.trim().to_lowercase())
                .filter(|entry| !entry.is_empty())
                .collect(),
        }
    }

    /// The proxy for `url`, or `None` where it is reached directly.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<&str> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_deref().filter(|_| !self.direct.iter().any(|entry| covers(entry, url)))
    }
}

/// Hides everything: a proxy's URL may carry a password.
impl fmt::Debug for ProxyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyRules(hidden)")
    }
}

/// Whether an entry of `no_proxy` covers the host of `url`: `*`, a host with or without a port, a domain
/// (with or without a leading dot, its subdomains included), an address or a block of addresses.
fn covers(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let (entry, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if port.is_some() && port != url.port_or_known_default() {
        return false;
    }
    let entry = entry.trim_start_matches('[').trim_end_matches(']');
    match url.host() {
        Some(Host::Domain(host)) => {
            let domain = entry.trim_start_matches("*.").trim_start_matches('.');
            let host = host.trim_end_matches('.');
            host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        }
        Some(Host::Ipv4(address)) => block_contains(entry, IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => block_contains(entry, IpAddr::V6(address)),
        None => false,
    }
}

/// Whether `block`, an address or `ADDRESS/BITS`, contains `address`.
fn block_contains(block: &str, address: IpAddr) -> bool {
    let (network, bits) = match block.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().ok()),
        None => (block, Some(128)),
    };
    let same_prefix = |a: u128, b: u128, width: u32, bits: u32| {
        let shift = width.saturating_sub(bits);
        shift >= width || a >> shift == b >> shift
    };
    match (network.parse::<IpAddr>(), address, bits) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address), Some(bits)) => {
            same_prefix(network.to_bits().into(), address.to_bits().into(), 32, bits)
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(address), Some(bits)) => {
            same_prefix(network.to_bits(), address.to_bits(), 128, bits)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(variables: &[(&str, &str)]) -> ProxyRules {
        ProxyRules::from_env(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn proxy(rules: &ProxyRules, url: &str) -> Option<String> {
        rules.proxy_for(&Url::parse(url).unwrap()).map(str::to_string)
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let only_http = rules(&[("HTTP_PROXY", "http://p:1")]);
        assert_eq!(proxy(&only_http, "http://hub.example"), Some("http://p:1".into()));
        assert_eq!(proxy(&only_http, "https://hub.example"), None);
        let both = rules(&[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:1")]);
        assert_eq!(proxy(&both, "https://hub.example"), Some("http://lower:1".into()));
        let all = rules(&[("ALL_PROXY", "socks5://s:1"), ("https_proxy", "")]);
        assert_eq!(proxy(&all, "https://hub.example"), Some("socks5://s:1".into()));
        assert_eq!(proxy(&rules(&[]), "https://hub.example"), None);
    }

    #[test]
    fn no_proxy_names_hosts_domains_ports_and_blocks() {
        let direct =
            |entry: &str, url: &str| proxy(&rules(&[("all_proxy", "http://p:1"), ("NO_PROXY", entry)]), url).is_none();
        for (entry, url) in [
            ("*", "https://anything.example"),
            ("hub.example", "https://hub.example/x"),
            ("example", "https://hub.example"),
            (".example", "https://hub.example"),
            ("*.example", "https://hub.example"),
            ("other, HUB.example ,", "https://hub.example"),
            ("hub.example:8080", "http://hub.example:8080"),
            ("hub.example:443", "https://hub.example"),
            ("127.0.0.1", "http://127.0.0.1:9"),
            ("10.0.0.0/8", "http://10.1.2.3"),
            ("::1", "http://[::1]:9"),
            ("[::1]:9", "http://[::1]:9"),
            ("fd00::/8", "http://[fd12::1]"),
            ("0.0.0.0/0", "http://10.1.2.3"),
        ] {
            assert!(direct(entry, url), "{entry} {url}");
        }
        for (entry, url) in [
            ("", "https://hub.example"),
            ("ample", "https://hub.example"),
            ("ub.example", "https://hub.example"),
            ("hub.example:8080", "https://hub.example"),
            ("hub.example.org", "https://hub.example"),
            ("10.0.0.0/8", "http://11.1.2.3"),
            ("127.0.0.1", "http://127.0.0.2"),
            ("10.0.0.0/x", "http://10.1.2.3"),
            ("10.1.2.3", "http://hub.example"),
        ] {
            assert!(!direct(entry, url), "{entry} {url}");
        }
    }
}
