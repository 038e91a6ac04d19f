//! Commands that change a repository: at once, or staged in a file.

use std::path::PathBuf;

use formats::tuf::{Role, UnixTime};

use super::args::{self, ChangeCommand, RecoveryArgs, RepoArgs, SigningArgs};
use super::channel::preview;
use super::opened;
use super::output;
use super::signing::{self, Which, declared, key_ids, public_keys, role};
use crate::attachment;
use crate::commands::{self, Answer, Delivery, Edit, EditOptions, Report, Rotation, Signing};
use crate::error::SignerError;
use crate::image;
use crate::plan::{Delegation, Expiry, RoleKeySet, Rollout, parse_duration};
use crate::progress::Show;
use crate::repository::{Access, Registry};

/// Runs a command that changes a repository.
pub(super) fn run(
    command: ChangeCommand,
    delivery: Delivery<'_>,
    now: UnixTime,
    show: Show,
    json: bool,
) -> Result<(), SignerError> {
    match command {
        ChangeCommand::Init {
            repo,
            signing,
            root_threshold,
            root_keys,
            targets_threshold,
            targets_keys,
            id,
            passphrase,
            expires,
        } => {
            let missing = || SignerError::Usage("give --keys DIR: where keys are made".to_owned());
            let request = commands::InitRequest {
                keys: signing.keys.clone().ok_or_else(missing)?,
                root_threshold,
                root_keys,
                targets_threshold,
                targets_keys,
                id,
                expiry: Expiry::parse(&expires)?,
                passphrase,
            };
            let (mut signing, registry) = both(&signing, &repo, Access::Write, delivery, now)?;
            let registry = registry.as_ref();
            finish(commands::init(registry, &mut signing, &request, delivery, now)?, json);
        }
        ChangeCommand::Publish {
            repo,
            signing,
            release,
            channel,
            rollout,
            role: by,
            level,
            expires,
        } => {
            let rollout = rollout.read(now)?;
            if channel.is_none() && rollout != Rollout::default() {
                let text = "waves and windows belong to a channel: give --channel, too";
                return Err(SignerError::Usage(text.to_owned()));
            }
            let options = image::Options { level, ..image::Options::default() };
            let request = commands::PublishRequest {
                product: release.product,
                version: release.version,
                components: args::components(
                    release.component,
                    &release.hw,
                    &release.verity,
                    &release.raw,
                )?,
                security_version: release.security_version,
                channel,
                rollout,
                role: by.as_deref().map(role).transpose()?,
                options,
                attachments: attachment::Wanted {
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
            let (mut signing, registry) = both(&signing, &repo, Access::Update, delivery, now)?;
            signing.preview = preview(json, true);
            let registry = registry.as_ref();
            let answer = commands::publish(registry, &mut signing, &request, delivery, now, show)?;
            finish(answer, json);
        }
        ChangeCommand::Delegate {
            repo,
            signing,
            role: name,
            path,
            role_keys,
            threshold,
            remove,
            terminating,
            by,
            period,
        } => {
            let delegated = delegated(&name)?;
            let edit = if remove {
                Edit::Undelegate(delegated.clone())
            } else if role_keys.is_empty() {
                Edit::Repath(delegated.clone(), path, terminating)
            } else {
                let (role, keys) = (delegated.clone(), public_keys(&role_keys)?);
                Edit::Delegate(Delegation {
                    by: self::role(&by)?,
                    keys: RoleKeySet { role, keys, threshold },
                    paths: path,
                    terminating,
                })
            };
            let mut expiry = Expiry::default();
            if let Some(period) = period {
                expiry = expiry.with(delegated, parse_duration(&period)?)?;
            }
            make(&repo, &signing, expiry, None, delivery, now, json, |_| Ok(edit))?;
        }
        ChangeCommand::Rotate {
            repo,
            signing,
            role: roles,
            add,
            remove,
            threshold,
            recovery,
            expires,
        } => {
            let expiry = Expiry::parse(&expires)?;
            make(&repo, &signing, expiry, Some(&recovery), delivery, now, json, |signing| {
                if roles.is_empty() {
                    let (roles, delegations) = declared(&signing.policy)?;
                    return Ok(Edit::Declared(roles, delegations));
                }
                rotations(&roles, &add, &remove, threshold).map(Edit::Rotate)
            })?;
        }
        ChangeCommand::Revoke { revoked, repo, signing, replace, recovery } => {
            let replacement = replace.map(|path| public_keys(&[path])).transpose()?;
            let replacement = replacement.and_then(|keys| keys.into_iter().next());
            let edit = Edit::Revoke(key_ids(&revoked)?, replacement);
            let expiry = Expiry::default();
            make(&repo, &signing, expiry, Some(&recovery), delivery, now, json, |_| Ok(edit))?;
        }
        ChangeCommand::Renew { roles, repo, signing, expires } => {
            let expiry = Expiry::parse(&expires)?;
            let edit = Edit::Renew(roles.iter().map(|name| role(name)).collect::<Result<_, _>>()?);
            make(&repo, &signing, expiry, None, delivery, now, json, |_| Ok(edit))?;
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "what all changes of the arguments above share")]
fn make(
    repo: &RepoArgs,
    signing: &SigningArgs,
    expiry: Expiry,
    recovery: Option<&RecoveryArgs>,
    delivery: Delivery<'_>,
    now: UnixTime,
    json: bool,
    edit: impl FnOnce(&Signing) -> Result<Edit, SignerError>,
) -> Result<(), SignerError> {
    let (mut signing, registry) = both(signing, repo, Access::Update, delivery, now)?;
    let edit = edit(&signing)?;
    let base = recovery.and_then(|recovery| recovery.base.as_deref());
    let options = EditOptions { expiry, base };
    let registry = registry.as_ref();
    finish(commands::edit(registry, &mut signing, &edit, &options, delivery, now)?, json);
    Ok(())
}

/// The signer and the repository. Who stages needs no key, only something to trust.
pub(super) fn both(
    arguments: &SigningArgs,
    repo: &RepoArgs,
    access: Access,
    delivery: Delivery<'_>,
    now: UnixTime,
) -> Result<(Signing, Box<dyn Registry>), SignerError> {
    let which = if delivery == Delivery::Publish { Which::All } else { Which::None };
    let signing = signing::signing(arguments, which, Some(&repo.repo))?;
    // A wrong clock is a reason of its own, before TLS fails for it or a directory is made.
    signing.check_clock(None, None, now)?;
    Ok((signing, opened(&repo.repo, &repo.registry, access)?))
}

pub(super) fn finish<T: Report>(answer: Answer<T>, json: bool) {
    match answer {
        Answer::Done(report) => output::success(&report, json),
        Answer::Staged(report) => output::success(&report, json),
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
