//! Docker Hub, which is one registry with three names (as in skopeo and docker).

/// What people call it.
pub const NAME: &str = "docker.io";
/// What is asked over HTTP.
pub const REGISTRY: &str = "registry-1.docker.io";
/// What `docker login` writes its entry under, and what credential helpers are asked for.
pub const SERVER: &str = "https://index.docker.io/v1/";
/// The namespace of repositories that are named without one.
pub const LIBRARY: &str = "library";

/// Whether a host, in any case, is Docker Hub.
pub fn is_hub(host: &str) -> bool {
    [NAME, REGISTRY, "index.docker.io"].iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// The host to ask for `authority`.
pub fn host(authority: &str) -> &str {
    if is_hub(authority) { REGISTRY } else { authority }
}

/// The namespace at `authority`: none at Docker Hub is [`LIBRARY`].
pub fn namespace<'a>(authority: &str, namespace: &'a str) -> &'a str {
    if namespace.is_empty() && is_hub(authority) { LIBRARY } else { namespace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_names_are_one_registry() {
        for name in ["docker.io", "Docker.IO", "index.docker.io", "registry-1.docker.io"] {
            assert_eq!(host(name), "registry-1.docker.io", "{name}");
            assert_eq!(namespace(name, ""), "library", "{name}");
            assert_eq!(namespace(name, "acme"), "acme", "{name}");
        }
        for other in ["docker.io.example", "auth.docker.io", "docker.io:5000", "r.example"] {
            assert_eq!(host(other), other);
            assert_eq!(namespace(other, ""), "", "{other}");
        }
    }
}
