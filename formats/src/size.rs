//! Sizes as people read them.

/// `1.5 MiB`, `1023 B`: what is less than a tenth of the unit is cut off, so that nothing is shown as more than it is.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, UNITS.iter());
    let mut name = unit.next();
    while whole >= 1024
        && let Some(next) = unit.next()
    {
        (rest, whole, name) = (whole % 1024, whole / 1024, Some(next));
    }
    let name = name.copied().unwrap_or_default();
    if bytes < 1024 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{} {name}", rest * 10 / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (25 << 40, "25.0 TiB"),
            (1 << 50, "1.0 PiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }
}
