//! Load on a server, by `wrk`.

use anyhow::{Context, Result, bail};
use racklet_tools::cmd::Cmd;

use super::rig::Bench;
use super::run::limited;

/// What `wrk` found, per second.
pub(super) struct Rates {
    pub(super) requests: f64,
    pub(super) bytes: f64,
}

/// One thread asks over so many connections again and again.
pub(super) fn wrk(
    bench: &Bench,
    url: &str,
    connections: u32,
    seconds: u32,
    headers: &[String],
) -> Result<Rates> {
    let mut cmd = Cmd::new("wrk").args(["-t1", "--timeout", "10s"]);
    cmd = cmd.args([format!("-c{connections}"), format!("-d{seconds}s")]);
    for header in headers {
        cmd = cmd.args(["-H", header]);
    }
    let done = limited(cmd.arg(url), bench.limit(60)).run()?;
    if done.stdout.contains("Non-2xx") {
        bail!("`{}` got errors:\n{}", done.shown, done.stdout);
    }
    let value = |name: &str| {
        let line = done.stdout.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("wrk prints {name}:\n{}", done.stdout))
    };
    let requests = value("Requests/sec:")?.parse().context("a number of requests")?;
    Ok(Rates { requests, bytes: size(value("Transfer/sec:")?)? })
}

/// `1.58GB` as bytes; wrk's units are powers of 1024.
fn size(text: &str) -> Result<f64> {
    let at = text.find(char::is_alphabetic).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => bail!("wrk's unit {unit}"),
    };
    Ok(number.parse::<f64>()? * f64::from(1u32 << factor))
}

/// The headers that ask whether what is there has changed, of this media type; the answer to them is 304. A
/// certificate is not verified, as `wrk` verifies none.
pub(super) fn unchanged(url: &str, media_type: &str) -> Result<Vec<String>> {
    let accept = format!("Accept: {media_type}");
    let curl = || Cmd::new("curl").args(["-sS", "--insecure", "-H", &accept]);
    let head = curl().args(["-fI", url]).read()?;
    let etag = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("etag").then(|| value.trim().to_string())
    });
    let etag = etag.with_context(|| format!("{url} has no ETag:\n{head}"))?;
    let condition = format!("If-None-Match: {etag}");
    let code = curl().args(["-o", "/dev/null", "-w", "%{http_code}", "-H", &condition, url]);
    match code.read()?.as_str() {
        "304" => Ok(vec![accept, condition]),
        code => bail!("{url} answers {code} to a condition that holds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_wrk() {
        assert_eq!(size("1.50GB").expect("known"), 1.5 * 1073741824.0);
        assert_eq!(size("12.00B").expect("known"), 12.0);
        assert!(size("1XB").is_err());
    }
}
