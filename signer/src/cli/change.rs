//! Commands that change a repository: at once, or staged for others to sign.

use std::path::PathBuf;
use std::time::Duration;

use formats::tuf::Role;

use super::args::{
    self, ChangeCommand, DelegateArgs, InitArgs, PruneArgs, PublishArgs, RecoveryArgs, RenewArgs,
    RepoArgs, RevokeArgs, RotateArgs, SigningArgs,
};
use super::channel::preview;
use super::place::Place;
use super::run::Run;
use super::signing::{declared, key_ids, public_keys, role};
use crate::attachment;
use crate::commands::{self, ChangeOptions, Signing};
use crate::error::SignerError;
use crate::image;
use crate::key;
use crate::plan::{
    Change, Delegation, Expiry, Retention, RoleKeySet, Rollout, Rotation, Unlisting, parse_duration,
};
use crate::repository::Access;

/// Runs a command that changes a repository.
pub(super) fn run(command: ChangeCommand, run: Run<'_>) -> Result<(), SignerError> {
    match command {
        ChangeCommand::Init(arguments) => init(arguments, run),
        ChangeCommand::Publish(arguments) => publish(arguments, run),
        ChangeCommand::Delegate(arguments) => delegate(arguments, run),
        ChangeCommand::Rotate(arguments) => rotate(arguments, run),
        ChangeCommand::Revoke(arguments) => revoke(arguments, run),
        ChangeCommand::Renew(arguments) => renew(arguments, run),
        ChangeCommand::Prune(arguments) => prune(arguments, run),
    }
}

fn init(arguments: InitArgs, run: Run<'_>) -> Result<(), SignerError> {
    let InitArgs { repo, signing, .. } = &arguments;
    let place = Place::of(repo.repo.as_deref(), &repo.registry, signing)?;
    let missing = || SignerError::Usage("give --keys DIR: where keys are made".to_owned());
    let request = commands::InitRequest {
        keys: place.signing.keys.ok_or_else(missing)?,
        root_threshold: arguments.root_threshold,
        root_keys: arguments.root_keys,
        targets_threshold: arguments.targets_threshold,
        targets_keys: arguments.targets_keys,
        id: arguments.id,
        expiry: Expiry::parse(&arguments.expires)?,
        passphrase: arguments.passphrase,
    };
    let (mut signing, registry) = run.open(&arguments.signing, &arguments.repo, Access::Write)?;
    let (registry, delivery) = (registry.as_ref(), run.delivery);
    run.finish(commands::init(registry, &mut signing, &request, delivery, run.now)?);
    Ok(())
}

fn publish(arguments: PublishArgs, run: Run<'_>) -> Result<(), SignerError> {
    let PublishArgs { repo, signing, release, channel, rollout, role: by, level, expires, dry } =
        arguments;
    let run = run.dry(&dry);
    let rollout = rollout.read(run.now)?;
    if channel.is_none() && rollout != Rollout::default() {
        let text = "waves and windows belong to a channel: give --channel, too";
        return Err(SignerError::Usage(text.to_owned()));
    }
    let (hw, verity, raw) = (&release.hw, &release.verity, &release.raw);
    let request = commands::PublishRequest {
        product: release.product,
        version: release.version,
        components: args::components(release.component, hw, verity, raw)?,
        security_version: release.security_version,
        channel,
        rollout,
        role: by.as_deref().map(role).transpose()?,
        options: image::Options { level, ..image::Options::default() },
        attachments: attachment::AttachmentRequest {
            sbom: release.sbom,
            provenance: release.provenance,
            from_images: release.sbom_from_image,
            dpkg_status: release.dpkg_status,
        },
        delta_from: release.delta_from,
        mixed: args::mixtures(&release.mixed)?,
        order: release.order,
        expiry: Expiry::parse(&expires)?,
    };
    let (mut signing, registry) = run.open(&signing, &repo, Access::Update)?;
    signing.preview = preview(run.json, true);
    let (registry, delivery) = (registry.as_ref(), run.delivery);
    run.finish(commands::publish(registry, &mut signing, &request, delivery, run.now, run.show)?);
    Ok(())
}

fn delegate(arguments: DelegateArgs, run: Run<'_>) -> Result<(), SignerError> {
    let run = run.dry(&arguments.dry);
    let delegated = delegated(&arguments.role)?;
    let (paths, terminating) = (arguments.path, arguments.terminating);
    let change = if arguments.remove {
        Change::Undelegate(delegated.clone())
    } else if arguments.role_keys.is_empty() {
        Change::Repath { role: delegated.clone(), paths, terminating }
    } else {
        let (keys, threshold) = (public_keys(&arguments.role_keys)?, arguments.threshold);
        Change::Delegate(Delegation {
            by: role(&arguments.by)?,
            keys: RoleKeySet { role: delegated.clone(), keys, threshold },
            paths,
            terminating,
        })
    };
    let mut expiry = Expiry::default();
    if let Some(period) = arguments.period {
        expiry = expiry.with(delegated, parse_duration(&period)?)?;
    }
    let to = Target { repo: &arguments.repo, signing: &arguments.signing, recovery: None };
    run.change(to, expiry, |_| Ok(change))
}

fn rotate(arguments: RotateArgs, run: Run<'_>) -> Result<(), SignerError> {
    let RotateArgs { repo, signing, role: roles, add, remove, threshold, recovery, expires, dry } =
        arguments;
    let run = run.dry(&dry);
    let expiry = Expiry::parse(&expires)?;
    let to = Target { repo: &repo, signing: &signing, recovery: Some(&recovery) };
    run.change(to, expiry, |signing| {
        if roles.is_empty() {
            let (roles, delegations) = declared(&signing.policy)?;
            return Ok(Change::Declared { roles, delegations });
        }
        rotations(&roles, &add, &remove, threshold).map(Change::Rotate)
    })
}

fn revoke(arguments: RevokeArgs, run: Run<'_>) -> Result<(), SignerError> {
    let RevokeArgs { revoked, repo, signing, replace, recovery, dry } = arguments;
    let run = run.dry(&dry);
    let replacement = replace.map(|path| key::read_public(&path)).transpose()?;
    let change = Change::Revoke { keys: key_ids(&revoked)?, replacement };
    let to = Target { repo: &repo, signing: &signing, recovery: Some(&recovery) };
    run.change(to, Expiry::default(), |_| Ok(change))
}

fn renew(arguments: RenewArgs, run: Run<'_>) -> Result<(), SignerError> {
    let RenewArgs { roles, repo, signing, expires, dry } = &arguments;
    let run = run.dry(dry);
    let expiry = Expiry::parse(expires)?;
    let change = Change::Renew(roles.iter().map(|name| role(name)).collect::<Result<_, _>>()?);
    run.change(Target { repo, signing, recovery: None }, expiry, |_| Ok(change))
}

fn prune(arguments: PruneArgs, run: Run<'_>) -> Result<(), SignerError> {
    let PruneArgs { repo, signing, keep, product, states, grace, expires, dry } = arguments;
    let run = run.dry(&dry);
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let request = commands::PruneRequest {
        unlisting: Unlisting { product, keep },
        states: states.and_then(Retention::of),
        grace: Duration::from_secs(parse_duration(&grace)?),
        expiry: Expiry::parse(&expires)?,
    };
    let (mut signing, registry) = run.open(&signing, &repo, Access::Update)?;
    let (registry, delivery) = (registry.as_ref(), run.delivery);
    run.finish(commands::prune(registry, &mut signing, &request, delivery, run.now, run.show)?);
    Ok(())
}

/// What is changed, and who changes it.
struct Target<'a> {
    repo: &'a RepoArgs,
    signing: &'a SigningArgs,
    recovery: Option<&'a RecoveryArgs>,
}

impl Run<'_> {
    fn change(
        self,
        to: Target<'_>,
        expiry: Expiry,
        change: impl FnOnce(&Signing) -> Result<Change, SignerError>,
    ) -> Result<(), SignerError> {
        let (mut signing, registry) = self.open(to.signing, to.repo, Access::Update)?;
        let change = change(&signing)?;
        let base = to.recovery.and_then(|recovery| recovery.base.as_deref());
        let options = ChangeOptions { expiry, base };
        let (registry, delivery) = (registry.as_ref(), self.delivery);
        let answer =
            commands::change(registry, &mut signing, &change, &options, delivery, self.now)?;
        self.finish(answer);
        Ok(())
    }
}

fn rotations(
    roles: &[String],
    add: &[PathBuf],
    remove: &[String],
    threshold: Option<u32>,
) -> Result<Vec<Rotation>, SignerError> {
    let (add, remove) = (public_keys(add)?, key_ids(remove)?);
    let mut rotations = Vec::new();
    for name in roles {
        let (role, add, remove) = (role(name)?, add.clone(), remove.clone());
        rotations.push(Rotation { role, add, remove, threshold });
    }
    Ok(rotations)
}

fn delegated(name: &str) -> Result<Role, SignerError> {
    Role::delegated(name).map_err(|error| SignerError::Usage(error.to_string()))
}
