//! `fleet`: what nodes report of themselves, asked of the server that collects it.

use formats::reference::Reference;
use formats::userinfo::hidden;

use super::args::{FleetAffectedArgs, FleetCommand, FleetStatusArgs, RegistryArgs, TrustArgs};
use super::place::Place;
use super::run::Run;
use super::{output, trust_root_of};
use crate::commands::{self, AffectedRequest};
use crate::error::SignerError;
use crate::repository::Access;

/// Runs `fleet`.
pub(super) fn run(command: FleetCommand, run: Run<'_>) -> Result<(), SignerError> {
    match command {
        FleetCommand::Status(arguments) => status(&arguments, &run),
        FleetCommand::Affected(arguments) => affected(arguments, &run),
    }
}

fn status(arguments: &FleetStatusArgs, run: &Run<'_>) -> Result<(), SignerError> {
    let FleetStatusArgs { server, registry } = arguments;
    let usual = Place::to_read(None, registry, &TrustArgs::default(), None)?;
    let (server, place) = self::server(server.as_deref(), registry, usual)?;
    let width = if run.json { None } else { output::columns() };
    let report = commands::fleet_status(&server, &place.registry.options(), width)?;
    output::success(&report, run.json);
    Ok(())
}

fn affected(arguments: FleetAffectedArgs, run: &Run<'_>) -> Result<(), SignerError> {
    let FleetAffectedArgs { vulnerability, osv, vex, distro, server, repo, trust } = arguments;
    let place = Place::to_read(repo.repo.as_deref(), &repo.registry, &trust, None)?;
    let root = trust_root_of(&place.trust())?;
    let registry = place.open(Access::Read)?;
    let (server, of_server) = self::server(server.as_deref(), &repo.registry, place)?;
    let request = AffectedRequest { vulnerability, root, osv, vex, distro };
    let options = of_server.registry.options();
    let report = commands::fleet_affected(&server, &options, registry.as_ref(), &request, run.now)?;
    output::success(&report, run.json);
    Ok(())
}

/// The server, and what it is reached with. Credentials of `signer.toml` are for its repository's server alone.
fn server(
    server: Option<&str>,
    registry: &RegistryArgs,
    usual: Place,
) -> Result<(Reference, Place), SignerError> {
    let own = usual.repo.as_deref().and_then(|text| text.parse().ok()).and_then(|it| at(&it));
    let Some(text) = server else {
        let missing = || {
            let text = "name the server: --server https://HOST[:PORT]; the repository of this command is on none";
            SignerError::Usage(text.to_owned())
        };
        return Ok((own.ok_or_else(missing)?, usual));
    };
    let (named, plain_http) = address(text)?;
    let mut place = match own == Some(named.clone()) {
        true => usual,
        false => Place::to_read(Some(&named.to_string()), registry, &TrustArgs::default(), None)?,
    };
    place.registry.plain_http |= plain_http;
    Ok((named, place))
}

/// The server of a repository, without a namespace.
fn at(reference: &Reference) -> Option<Reference> {
    match reference {
        Reference::Registry { authority, .. } => format!("docker://{authority}").parse().ok(),
        _ => None,
    }
}

/// A server as people write it, and whether without TLS.
fn address(text: &str) -> Result<(Reference, bool), SignerError> {
    let (rest, plain_http) = match text.split_once("://") {
        Some(("https" | "docker", rest)) => (rest, false),
        Some(("http", rest)) => (rest, true),
        Some(_) => ("", false),
        None => (text, false),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let reference = format!("docker://{authority}").parse().ok();
    let odd = || {
        let text = hidden(text);
        SignerError::Usage(format!("{text:?} is no server: give https://HOST[:PORT]"))
    };
    let reference = reference.filter(|_| !authority.is_empty()).ok_or_else(odd)?;
    Ok((reference, plain_http))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_as_people_write_them() {
        for (text, wanted) in [
            ("https://updates.example:5443", Some(("docker://updates.example:5443", false))),
            ("https://updates.example/fleet/", Some(("docker://updates.example", false))),
            ("docker://updates.example/racklet", Some(("docker://updates.example", false))),
            ("updates.example:5443", Some(("docker://updates.example:5443", false))),
            ("http://127.0.0.1:5000", Some(("docker://127.0.0.1:5000", true))),
            ("ftp://updates.example", None),
            ("oci:directory", None),
            ("https://", None),
            ("https://user:password@updates.example", None),
            ("", None),
        ] {
            let error = address(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.contains("password"), "{error}");
            let found = address(text).ok().map(|(server, plain)| (server.to_string(), plain));
            let wanted = wanted.map(|(server, plain)| (server.to_owned(), plain));
            assert_eq!(found, wanted, "{text}");
        }
    }
}
