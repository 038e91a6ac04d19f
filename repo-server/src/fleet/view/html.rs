//! The pages as HTML: templates that are checked when they are compiled, and escape every text.

mod locks;
mod login;
mod node;
mod nodes;
mod overview;
mod rollout;
mod words;

use maud::{DOCTYPE, Markup, html};

pub(super) use self::login::login;
pub(super) use self::node::node;
pub(super) use self::nodes::nodes;
pub(super) use self::overview::overview;

/// Who reads a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Nobody had to log in, or each request does.
    Any,
    /// Somebody who is logged in, and may log out.
    InSession,
}

fn page(title: &str, reader: Reader, content: &Markup) -> String {
    let above = html! {
        a class="skip" href="#main" { "Skip to the content" }
        nav aria-label="Pages" {
            a href="/fleet/" { "Fleet" }
            a href="/fleet/nodes" { "Nodes" }
            a href="/fleet/nodes?state=silent" { "Silent" }
            a href="/fleet/nodes?state=waiting-for-approval" { "Waiting for approval" }
            @if reader == Reader::InSession { (login::log_out()) }
        }
    };
    bare(title, &above, content)
}

fn bare(title: &str, above: &Markup, content: &Markup) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · fleet" }
                link rel="stylesheet" href="/fleet/style.css";
            }
            body {
                (above)
                main id="main" { (content) }
            }
        }
    };
    markup.into_string()
}

/// A table: its name for who does not see it, the names of its columns, and its rows.
fn table(class: &str, name: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        table class=(class) aria-label=(name) {
            thead { tr { @for column in columns { th scope="col" { (column) } } } }
            tbody { (rows) }
        }
    }
}

/// A line to copy.
fn command(line: &str) -> Markup {
    html! { pre { code { (line) } } }
}
