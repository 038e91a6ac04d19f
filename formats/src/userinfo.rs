//! Addresses without what people write into them to log in: messages end in journals that many read.

/// An address as it may be shown: `https://user:password@host/path` becomes `https://…@host/path`, and the value of a
/// parameter `password=` becomes `…`. What is no address, or holds no secret, stays as it is.
///
/// What people mistype is hidden, too: a password with a `/` or an `@` in it reaches to the last `@`.
pub fn hidden(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (before, parameters) = match rest.split_once('?') {
        // A `?` in a password ends nothing.
        Some((before, after)) if !after.contains('@') || before.contains('@') => {
            (before, Some(after))
        }
        _ => (rest, None),
    };
    let place = match before.rsplit_once('@') {
        Some((_, place)) if logs_in(before) => format!("…@{place}"),
        _ => before.to_owned(),
    };
    let parameters =
        parameters.map_or_else(String::new, |all| format!("?{}", without_passwords(all)));
    format!("{scheme}://{place}{parameters}")
}

/// Whether the `@` of an address without its scheme ends a name: in `host:5000/name@sha256:…` it does not.
fn logs_in(address: &str) -> bool {
    let authority = address.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    // An IPv6 address is in brackets.
    let is_place = port
        .is_none_or(|port| port.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit()));
    authority.contains('@') || !is_place
}

fn without_passwords(parameters: &str) -> String {
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=…"),
        _ => pair.to_owned(),
    };
    parameters.split('&').map(hide).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::hidden;

    #[test]
    fn nothing_that_logs_in_is_shown() {
        for (address, shown) in [
            ("postgresql://fleet:hidden@db.example/fleet", "postgresql://…@db.example/fleet"),
            ("postgresql://fleet:hid/den@db.example/fleet", "postgresql://…@db.example/fleet"),
            ("postgresql://fleet:hid@den@db.example", "postgresql://…@db.example"),
            ("postgresql://fleet:hid?den@db.example", "postgresql://…@db.example"),
            ("postgresql://fleet:hid/d@en@db.example", "postgresql://…@db.example"),
            (
                "postgresql:///fleet?user=x&password=hidden&host=/run",
                "postgresql:///fleet?user=x&password=…&host=/run",
            ),
            ("https://hidden@host:5443/x?y=z", "https://…@host:5443/x?y=z"),
            ("https://u:hidden@[::1]:5443/", "https://…@[::1]:5443/"),
            ("docker://u:hidden@host/ns:latest", "docker://…@host/ns:latest"),
        ] {
            assert_eq!(hidden(address), shown, "{address}");
        }
    }

    #[test]
    fn what_holds_no_secret_stays() {
        for address in [
            "",
            "/var/lib/fleet",
            "postgresql:///fleet?host=/run/postgresql",
            "https://host:5443/fleet/",
            "https://[::1]/x",
            "docker://host:5000/ns@sha256:0a1b",
            "docker://host/ns@sha256:0a1b",
            "oci:directory",
            "user@host",
        ] {
            assert_eq!(hidden(address), address);
        }
    }
}
