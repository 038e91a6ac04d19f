//! The form that a token is given to.

use maud::{Markup, html};

use super::bare;

/// `next` is where it leads; `wrong`, what was wrong with what was given.
pub(in super::super) fn login(next: &str, wrong: Option<&str>) -> String {
    let content = html! {
        h1 { "Log in" }
        p { "The pages of the fleet are for those who have a token of this server." }
        form class="login" method="post" action="/fleet/login" {
            input type="hidden" name="next" value=(next);
            // Password managers keep a password beside a name.
            input type="text" name="name" value="fleet" autocomplete="username" hidden;
            label for="token" { "Token" }
            // With a wrong one, what is wrong is read with the field.
            input id="token" name="token" type="password" required autocomplete="current-password"
                aria-describedby=[wrong.map(|_| "wrong")] aria-invalid=[wrong.map(|_| "true")];
            @if let Some(wrong) = wrong {
                p id="wrong" class="bad" role="alert" { (wrong) }
            }
            button type="submit" { "Log in" }
        }
        p class="made" { "A cookie stands for the token, for 12 hours, or until you log out." }
    };
    bare("Log in", &Markup::default(), &content)
}

/// For who is logged in.
pub(super) fn log_out() -> Markup {
    html! {
        form class="logout" method="post" action="/fleet/logout" {
            button type="submit" { "Log out" }
        }
    }
}
