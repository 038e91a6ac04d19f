//! A sign of life of long work: a line whenever nothing was said for a while.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::show;

/// Beats until it is dropped.
pub struct Pulse {
    tell: Option<Sender<News>>,
    thread: Option<JoinHandle<()>>,
}

enum News {
    /// Printed now.
    Line(String),
    /// Printed with the next beat: what the work is at.
    At(String),
}

impl Pulse {
    /// Says something at the latest every `every`, through `print`.
    pub fn new(every: Duration, print: impl Fn(&str) + Send + 'static) -> Self {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let started = Instant::now();
            let (mut next, mut at) = (started + every, String::new());
            loop {
                match told.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(News::At(what)) => at = what,
                    Ok(News::Line(line)) => {
                        print(&line);
                        next = Instant::now() + every;
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        print(&beat(started.elapsed(), &at));
                        next = Instant::now() + every;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { tell: Some(tell), thread: Some(thread) }
    }

    /// Prints a line, in order with the beats.
    pub fn say(&self, line: impl Into<String>) {
        self.send(News::Line(line.into()));
    }

    /// What the next beat tells.
    pub fn at(&self, what: impl Into<String>) {
        self.send(News::At(what.into()));
    }

    fn send(&self, news: News) {
        if let Some(tell) = &self.tell {
            // Nobody listens only after a panic in `print`.
            drop(tell.send(news));
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        drop(self.tell.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn beat(since: Duration, at: &str) -> String {
    let time = show::time(since);
    if at.is_empty() { format!("   … {time}") } else { format!("   … {time}: {at}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_step_gives_a_sign_of_life_and_says_what_it_is_at() {
        let (tell, told) = mpsc::channel();
        let pulse = Pulse::new(Duration::from_millis(1), move |line| {
            drop(tell.send(line.to_owned()));
        });
        pulse.say("begun");
        pulse.at("Compiling formats");
        let lines: Vec<String> =
            told.iter().take_while(|line| !line.ends_with(": Compiling formats")).collect();
        assert!(lines.iter().any(|line| line == "begun"), "{lines:?}");
        drop(pulse);
        // Nothing beats after its end: the sender is gone.
        for _ in told.iter() {}
    }

    #[test]
    fn one_who_speaks_is_not_interrupted() {
        let (tell, told) = mpsc::channel();
        let pulse = Pulse::new(Duration::from_secs(3600), move |line| {
            drop(tell.send(line.to_owned()));
        });
        for number in 0..3 {
            pulse.say(number.to_string());
        }
        drop(pulse);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["0", "1", "2"]);
    }
}
