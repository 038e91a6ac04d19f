//! Delegations: which roles may sign for a name. The first line is the name, the rest a targets
//! document.
#![no_main]

use formats::json::Value;
use formats::tuf::{
    DelegatedTo, Envelope, Metadata, Role, Targets, check_target_name, url_component,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (name, rest) = data.split_at(end);
    let Ok(name) = str::from_utf8(name) else { return };
    let rest = &rest[1..];
    let signed = match Envelope::parse(rest) {
        Ok(envelope) => envelope.signed().clone(),
        Err(_) => match Value::parse(rest) {
            Ok(value) => value,
            Err(_) => return,
        },
    };
    let safe = check_target_name(name).is_ok();
    assert!(!safe || !name.split('/').any(|part| part == ".." || part == "."));
    let Ok(targets) = Targets::parse(&signed) else { return };
    let Some(delegations) = &targets.delegations else { return };
    let covering = delegations.covering(name);
    match &delegations.to {
        DelegatedTo::Roles(roles) => assert!(covering.len() <= roles.len()),
        DelegatedTo::Succinct(bins) => {
            assert_eq!(covering.len(), 1);
            assert!(bins.bin_of(name).starts_with(&bins.name_prefix));
        }
    }
    for delegated in covering {
        assert!(!Role::TOP_LEVEL.contains(&delegated.role));
        let url = url_component(&delegated.role.meta_name());
        assert!(!url.contains(['/', '?', '#']) && url != "." && url != "..", "{url}");
    }
});
