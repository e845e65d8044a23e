//! Which proxy to use for a URL, according to the environment.
//!
//! The variables are read like in Python's clients: `https_proxy`, `http_proxy` and `all_proxy`, lower case before
//! upper case, and `no_proxy`, a list of hosts to reach directly, including their subdomains. ureq's own reading of the
//! environment applies `ALL_PROXY` and `HTTPS_PROXY` to every scheme, and `no_proxy` to single hosts.

use super::Environment;
use ureq::Proxy;

/// The proxies for `http` and `https` URLs; `Err` if the address is invalid. `Debug` hides their passwords.
#[derive(Clone, Debug, Default)]
pub struct ProxyRules {
    http: Option<Result<Proxy, ()>>,
    https: Option<Result<Proxy, ()>>,
}

impl ProxyRules {
    /// Reads the rules from an environment.
    pub(super) fn from_env(env: &Environment) -> ProxyRules {
        let read = |name: &str| {
            let value = env.text(&[name, &name.to_uppercase()])?;
            Some(value.trim().to_string()).filter(|value| !value.is_empty())
        };
        let direct = read("no_proxy").unwrap_or_default();
        let every = read("all_proxy");
        let proxy = |url: String| parse(&url, &direct);
        ProxyRules {
            http: read("http_proxy").or_else(|| every.clone()).map(proxy),
            https: read("https_proxy").or(every).map(proxy),
        }
    }

    /// The proxy for URLs of one scheme, which also knows the hosts that bypass it.
    pub(super) fn proxy(&self, is_https: bool) -> Result<Option<Proxy>, ()> {
        if is_https { self.https.clone() } else { self.http.clone() }.transpose()
    }
}

/// The proxy at `url`, except for the hosts in the list `direct`.
fn parse(url: &str, direct: &str) -> Result<Proxy, ()> {
    let proxy = Proxy::new(url).map_err(drop)?;
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(name) = proxy.username() {
        builder = builder.username(name);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    for entry in direct.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        // ureq takes a leading dot for subdomains, and a plain name for that host only.
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        builder = match domain {
            "" => builder.no_proxy("*"),
            _ => builder.no_proxy(domain).no_proxy(&format!(".{domain}")),
        };
    }
    builder.build().map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn rules(variables: &[(&str, &str)]) -> ProxyRules {
        ProxyRules::from_env(&Environment(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        }))
    }

    /// The proxy's address for a URL, or `None` if it is reached directly.
    fn proxy(rules: &ProxyRules, url: &str) -> Option<String> {
        let proxy = rules.proxy(url.starts_with("https:")).unwrap()?;
        (!proxy.is_no_proxy(&url.parse().unwrap())).then(|| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let only_http = rules(&[("HTTP_PROXY", "http://p:1")]);
        assert_eq!(proxy(&only_http, "http://hub.example"), Some("p:1".into()));
        assert_eq!(proxy(&only_http, "https://hub.example"), None);
        let both = rules(&[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:1")]);
        assert_eq!(proxy(&both, "https://hub.example"), Some("lower:1".into()));
        let all = rules(&[("ALL_PROXY", "socks5h://s"), ("https_proxy", "")]);
        assert_eq!(proxy(&all, "https://hub.example"), Some("s:1080".into()));
        assert_eq!(proxy(&rules(&[]), "https://hub.example"), None);
        assert!(rules(&[("ALL_PROXY", "gopher://p")]).proxy(true).is_err());
    }

    #[test]
    fn a_password_is_decoded_and_hidden() {
        let rules = rules(&[("https_proxy", "http://user:p%40ss%25w+%3a@p:1"), ("no_proxy", "other")]);
        assert_eq!(rules.proxy(true).unwrap().unwrap().password(), Some("p@ss%w+:"));
        assert!(!format!("{rules:?}").contains("ss"), "{rules:?}");
    }

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        let direct =
            |entry: &str, url: &str| proxy(&rules(&[("all_proxy", "http://p:1"), ("NO_PROXY", entry)]), url).is_none();
        for (entry, url) in [
            ("*", "https://anything.example"),
            ("hub.example", "https://hub.example/x"),
            ("example", "https://hub.example"),
            (".example", "https://hub.example"),
            ("*.example", "https://hub.example"),
            ("other, HUB.example ,", "https://hub.example"),
            ("127.0.0.1", "http://127.0.0.1:9"),
        ] {
            assert!(direct(entry, url), "{entry} {url}");
        }
        for (entry, url) in [
            ("", "https://hub.example"),
            ("ample", "https://hub.example"),
            ("ub.example", "https://hub.example"),
            ("hub.example.org", "https://hub.example"),
            ("127.0.0.1", "http://127.0.0.2"),
            ("10.1.2.3", "http://hub.example"),
        ] {
            assert!(!direct(entry, url), "{entry} {url}");
        }
    }
}
