//! How a boot passes by the boot loader's choice, by boot loader: for people who wonder why their update
//! did not start.

use formats::boot_record::Slot;

use crate::config::{Backend, BootConfig};

/// What may have started the other slot.
pub(crate) fn causes(backend: Backend) -> &'static str {
    match backend {
        Backend::GptAttributes => {
            "kexec, a wake from hibernation, or an entry of the firmware's boot menu other than the \
             chooser"
        }
        Backend::UbootEnv => "kexec, a wake from hibernation, or a command at U-Boot's prompt",
        Backend::GrubEnv => "kexec, a wake from hibernation, or an entry chosen in GRUB's menu",
        Backend::SystemdBoot => {
            "kexec, a wake from hibernation, an entry chosen in the menu, or `bootctl set-oneshot` \
             or `set-default`"
        }
        Backend::RpiTryboot => "a power cut, or a restart without the argument \"0 tryboot\"",
    }
}

/// What happened to the slot that is next, and what ends it.
pub(crate) fn sentence(boot: &BootConfig, next: Slot) -> String {
    let causes = causes(boot.backend);
    if boot.backend.has_to_be_asked() {
        return format!(
            "slot {next} is next, but this boot started slot {} ({causes}): {} to try it, or give it up with \
             `update-agent revert`",
            next.other(),
            boot.how_to_try()
        );
    }
    format!(
        "slot {next} is next, but this boot started slot {} without spending a try ({causes}): reboot \
         through the boot loader to try it, or give it up with `update-agent revert`; a second such \
         boot in a row means that the boot loader does not count",
        next.other()
    )
}
