//! What the demo prints: a line for each point, and below it the evidence.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use anyhow::Result;
use gateway_tests::sluice::Sluice;

use crate::stage::Stage;

/// The width of a rule across the page.
const WIDTH: usize = 78;

/// How much of an error is shown.
const MOST_LINES: usize = 12;

/// Prints and keeps count.
pub struct Show {
    colours: bool,
    started: Instant,
    points: u32,
    failed: u32,
}

/// What a point has to show for itself.
#[derive(Default)]
pub struct Evidence {
    lines: Vec<Line>,
}

enum Line {
    Typed { prompt: String, command: String },
    Came(String),
}

impl Evidence {
    /// A command as one could type it.
    pub fn typed(&mut self, prompt: &str, command: &str) {
        self.lines.push(Line::Typed {
            prompt: prompt.to_owned(),
            command: command.to_owned(),
        });
    }

    /// What came of it.
    pub fn came(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Came(text.into()));
    }
}

impl Show {
    pub fn new() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            colours,
            started: Instant::now(),
            points: 0,
            failed: 0,
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn cyan(&self, text: &str) -> String {
        self.paint("36", text)
    }

    /// The title and a map of the stage.
    pub fn opening(&self, stage: &Stage) {
        println!(
            "\n  {}  {}",
            self.bold("Sluice"),
            self.dim("from the wire to a backend")
        );
        println!("  {}\n", self.dim(&"─".repeat(WIDTH)));
        for line in stage.map() {
            println!("  {}", self.cyan(&line));
        }
        let file = stage.curl_file().display().to_string();
        let shorthand = format!("curl stands for `curl -K {file}`: addresses and CA of this demo");
        println!("\n  {}\n", self.dim(&shorthand));
    }

    /// Runs one point and prints it with its evidence. Gives what the point made.
    pub fn point<T>(
        &mut self,
        title: &str,
        act: impl FnOnce(&mut Evidence) -> Result<T>,
    ) -> Option<T> {
        self.points += 1;
        self.pending(title);
        let mut evidence = Evidence::default();
        let outcome = act(&mut evidence);
        if self.colours {
            print!("\r\x1b[2K");
        }
        let mark = match &outcome {
            Ok(_) => self.paint("1;32", "✓"),
            Err(_) => self.paint("1;31", "✗"),
        };
        println!("  {mark} {}", self.bold(title));
        for line in &evidence.lines {
            match line {
                Line::Typed { prompt, command } => {
                    println!("      {} {command}", self.dim(&format!("{prompt}$")));
                }
                Line::Came(text) => println!("      {}", self.paint("33", text)),
            }
        }
        match outcome {
            Ok(value) => {
                println!();
                Some(value)
            }
            Err(error) => {
                self.failed += 1;
                for line in format!("{error:#}").lines().take(MOST_LINES) {
                    println!("      {}", self.paint("31", line));
                }
                println!();
                None
            }
        }
    }

    /// On a terminal, what is under way stands there until it is done.
    fn pending(&self, title: &str) {
        if self.colours {
            print!("  {} {}", self.paint("2", "…"), self.dim(title));
            // A terminal that takes no output takes none of what follows either.
            let _ = std::io::stdout().flush();
        }
    }

    /// The count; whether every point so far held.
    pub fn closing(&self) -> bool {
        println!("  {}", self.dim(&"─".repeat(WIDTH)));
        let took = format!("in {:.1} s", self.started.elapsed().as_secs_f64());
        let (held, points) = (self.points - self.failed, self.points);
        let text = format!("{held} of {points} points held");
        let text = if self.failed == 0 {
            self.paint("1;32", &text)
        } else {
            self.paint("1;31", &text)
        };
        println!("  {text} {}", self.dim(&took));
        self.failed == 0
    }

    /// Whether nothing failed since.
    pub fn closing_of_stop(&self) -> bool {
        self.failed == 0
    }

    /// One quiet line.
    pub fn aside(&self, text: &str) {
        println!("  {}\n", self.dim(text));
    }

    /// Commands to play with while all is running.
    pub fn invitation(&self, stage: &Stage, sluice: &Sluice) {
        let binary = gateway_tests::sluice::binary();
        let binary = binary.display();
        let state = sluice.state_dir();
        println!(
            "\n  {}",
            self.bold("It is still running. Ctrl-C ends it and cleans up.")
        );
        println!(
            "  {}\n",
            self.dim("Edit the routes; what you save is served at once.")
        );
        println!("  export SLUICE_STATE_DIR={}", state.display());
        println!(
            "  curl() {{ {} -K {} \"$@\"; }}",
            stage.in_client("curl"),
            stage.curl_file().display()
        );
        println!("  curl {}", stage.https("/"));
        println!("  curl -H 'X-Canary: true' {}", stage.https("/"));
        println!(
            "  $EDITOR {}",
            stage.manifests.path("routes.yaml").display()
        );
        println!("  {binary} status");
        println!(
            "  {binary} explain {} -H 'X-Canary: true'",
            stage.https("/")
        );
        println!("  {binary} l4");
        println!("  {binary} l4 trace --peer {}", stage.client_address());
        println!("  {}\n", stage.upgrade_command(&binary.to_string()));
    }
}
