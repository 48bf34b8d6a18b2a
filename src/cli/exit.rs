//! Exit codes, and the last words of a run that went wrong.
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use planish::app::AppError;

use super::output::{StdoutClosed, note};

/// The input cannot be used.
const BAD_INPUT: u8 = 1;

/// The program is wrong: `EX_SOFTWARE` of BSD's sysexits.
const BUG: u8 = 70;

/// Makes every panic, on any thread, print one line and end the process with code 70.
pub(super) fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        note(&bug(&panic_message(info)));
        std::process::exit(BUG.into());
    }));
}

fn panic_message(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let payload = text.unwrap_or("unknown panic");
    match info.location() {
        Some(location) => format!("{payload} ({}:{})", location.file(), location.line()),
        None => payload.to_owned(),
    }
}

fn bug(what: &str) -> String {
    format!("this is a bug in planish: {}; please report it", one_line(what))
}

/// Names in a damaged file may hold anything: nothing of it may steer the terminal.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace(char::is_control, "\u{FFFD}")
}

/// Reports an error, if there is one, and chooses the exit code.
pub(super) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let (code, message) = judge(&error);
    if let Some(message) = message {
        note(&message);
    }
    ExitCode::from(code)
}

/// The exit code of an error, and what to say about it.
fn judge(error: &anyhow::Error) -> (u8, Option<String>) {
    if error.downcast_ref::<StdoutClosed>().is_some() {
        return (0, None);
    }
    if let Some(AppError::Internal(what)) = error.downcast_ref() {
        return (BUG, Some(bug(what)));
    }
    (BAD_INPUT, Some(format!("error: {}", one_line(&sentence(error)))))
}

/// An error and its causes. Some errors tell their cause themselves: it is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.ends_with(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn errors_are_one_line_with_their_causes() {
        let error = anyhow::anyhow!("no such\nthing").context("cannot read a.txt");
        assert_eq!(judge(&error), (1, Some("error: cannot read a.txt: no such thing".into())));
    }

    #[test]
    fn control_characters_are_not_passed_on() {
        assert_eq!(one_line("a\x1b[2J\tb\0"), "a\u{FFFD}[2J b\u{FFFD}");
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let error =
            anyhow::anyhow!("disk full").context("cannot write: disk full").context("a.txt");
        assert_eq!(sentence(&error), "a.txt: cannot write: disk full");
    }

    #[test]
    fn a_closed_stdout_is_no_error() {
        assert_eq!(judge(&StdoutClosed.into()), (0, None));
    }

    #[test]
    fn broken_invariants_are_bugs_whatever_context_they_have() {
        let error: anyhow::Result<()> = Err(AppError::Internal("a = b".into()).into());
        let error = error.context("while working").unwrap_err();
        let line = "this is a bug in planish: a = b; please report it";
        assert_eq!(judge(&error), (70, Some(line.into())));
    }
}
