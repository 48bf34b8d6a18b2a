//! Dates for chat templates: C's `strftime` in English, in UTC.
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The present time in `format`.
pub(super) fn now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    strftime(format, seconds)
}

/// Seconds since 1970 in `format`. Fields that are not known stay as they are written.
fn strftime(format: &str, seconds: u64) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        // "%-d" is "%d" without its leading zero.
        let (bare, field) = match after.strip_prefix('-') {
            Some(field) => (true, field),
            None => (false, after),
        };
        let mut chars = field.chars();
        match chars.next().and_then(|code| expand(code, seconds)) {
            Some(text) if bare => out.push_str(text.strip_prefix('0').unwrap_or(&text)),
            Some(text) => out.push_str(&text),
            None => {
                out.push('%');
                rest = after;
                continue;
            }
        }
        rest = chars.as_str();
    }
    out + rest
}

/// The text of one field, or nothing when the code is not known.
fn expand(code: char, seconds: u64) -> Option<String> {
    let days = seconds / 86400;
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[((days + 4) % 7) as usize];
    let month_name = MONTHS[(month - 1) as usize];
    Some(match code {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year % 100),
        'm' => format!("{month:02}"),
        'B' => month_name.to_owned(),
        'b' | 'h' => month_name[..3].to_owned(),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'j' => format!("{:03}", days - days_before(year) + 1),
        'A' => weekday.to_owned(),
        'a' => weekday[..3].to_owned(),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{second:02}"),
        'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        'Z' => "UTC".to_owned(),
        'z' => "+0000".to_owned(),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'T' => format!("{hour:02}:{minute:02}:{second:02}"),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

/// Days from the beginning of 1970 to the beginning of `year`, by the Gregorian calendar.
fn days_before(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap = days_before(year + 1) - days_before(year) == 366;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut day = days - days_before(year);
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_a_thursday() {
        assert_eq!(
            strftime("%A %d %B %Y, %H:%M:%S %p", 0),
            "Thursday 01 January 1970, 00:00:00 AM"
        );
    }

    #[test]
    fn leap_days_count() {
        // 2000-02-29 and 2024-02-29, 12:34:56.
        assert_eq!(strftime("%F %T %j", 951_827_696), "2000-02-29 12:34:56 060");
        assert_eq!(strftime("%d %b %Y %a", 1_709_210_096), "29 Feb 2024 Thu");
        assert_eq!(strftime("%F %j", 1_735_603_200), "2024-12-31 366");
        assert_eq!(strftime("%F", 4_107_542_400), "2100-03-01");
    }

    #[test]
    fn fields_may_drop_their_zero_and_unknown_ones_stay() {
        assert_eq!(strftime("%-d %-m %e %y %I%%", 951_827_696 - 86400 * 24), "5 2  5 00 12%");
        assert_eq!(strftime("%Q %", 0), "%Q %");
        assert_eq!(strftime("%-Q", 0), "%-Q");
    }
}
