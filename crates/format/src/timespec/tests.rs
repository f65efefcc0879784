use proptest::prelude::*;

use super::*;

/// 2024-07-03T09:46:40Z.
const NOW: i64 = 1_720_000_000;
const DAY: i64 = 86_400;

fn berlin(text: &str) -> Option<i64> {
    parse_time(text, BackupTime(NOW), 3600).ok().map(|time| time.0)
}

fn stamp(text: &str) -> i64 {
    parse_time(text, BackupTime(0), 0).unwrap().0
}

#[test]
fn accepted_forms_have_duplicitys_meaning() {
    assert_eq!(berlin("now"), Some(NOW));
    assert_eq!(berlin("1700000000"), Some(1_700_000_000));
    assert_eq!(berlin("5"), Some(5));
    assert_eq!(berlin("20240601"), Some(20_240_601));
    assert_eq!(berlin("3D"), Some(NOW - 3 * DAY));
    assert_eq!(berlin("1h78m"), Some(NOW - 3600 - 78 * 60));
    let long = (365 + 60 + 21 + 4) * DAY + 5 * 3600 + 6 * 60 + 7;
    assert_eq!(berlin("1Y2M3W4D5h6m7s"), Some(NOW - long));
    assert_eq!(berlin("2Y6M"), Some(NOW - (730 + 180) * DAY));
    assert_eq!(berlin("0s"), Some(NOW));
    assert_eq!(berlin("20240601T123456Z"), Some(1_717_245_296));
    // local midnight with the offset outside summer time, in summer too: 2024-05-31T23:00Z
    for date in ["2024-06-01", "2024/6/1", "06/01/2024", "6-1-2024", "20240601Z", "2024-6/01"] {
        assert_eq!(berlin(date), Some(1_717_196_400), "{date}");
    }
    assert_eq!(berlin("2024-06-01T12:00:00"), Some(stamp("2024-06-01T11:00:00Z")));
    assert_eq!(berlin("2024-06-01T12:00:00+02:00"), Some(stamp("2024-06-01T10:00:00Z")));
    assert_eq!(berlin("2024-06-01T12:00:00Z"), Some(1_717_243_200));
    // docs/FORMAT.md section 7: New York in summer
    let new_york = parse_time("2023-07-01T12:00:00", BackupTime(NOW), -5 * 3600).unwrap();
    assert_eq!(new_york, BackupTime(stamp("2023-07-01T17:00:00Z")));
    assert_eq!(stamp("2017-01-28T02:15:00+00:00"), stamp("20170128T021500Z"));
}

#[test]
fn zones_with_minutes_are_read_as_duplicity_reads_them() {
    // docs/FORMAT.md section 1: what it writes for St John's, -03:30
    assert_eq!(berlin("2026-11-22T18:43:20-04:30"), Some(stamp("2026-11-22T22:13:20Z")));
    let st_johns = parse_time("2026-11-22T18:43:20", BackupTime(NOW), -12_600).unwrap();
    assert_eq!(st_johns, BackupTime(stamp("2026-11-22T22:13:20Z")));
    assert_eq!(berlin("2026-11-22T18:43:20+05:30"), Some(stamp("2026-11-22T13:13:20Z")));
}

#[test]
fn forms_that_duplicity_refuses_are_refused() {
    for text in [
        "",
        "today",
        "yesterday",
        "latest",
        "NOW",
        "3d",
        "1.5D",
        "D",
        "3D4",
        "-3D",
        "3D 4h",
        "2024-06-01T12:00",
        "2024-06-01T12:00:00+0200",
        "2024-06-01T12:00:00+02",
        "2024-06-01 12:00:00",
        "2024-06-01t12:00:00z",
        "2024-06-01T12:00:00z",
        "2024-06-01T12_00_00Z",
        "20240601t123456z",
        "20240601T123456Z ",
        "T12:00",
        "2024-13-01",
        "2024-00-01",
        "2024-06-32",
        "24-06-01",
        "2024-06",
        "2024-06-01-01",
        "20240601ZZ",
        "1899-06-01",
        "2100-01-01",
        "2024-06-01T24:00:00Z",
        "+5",
        "99999999999999999999",
        "99999999999999999Y",
        "9223372036854775807s9223372036854775807s",
    ] {
        let error = parse_time(text, BackupTime(NOW), 3600).unwrap_err();
        assert!(error.to_string().contains("20170128T021500Z"), "{error}");
    }
}

#[test]
fn a_compact_time_without_z_is_accepted_only_if_local_time_is_utc() {
    assert_eq!(stamp("20240601T123456"), 1_717_245_296);
    assert_eq!(berlin("20240601T123456"), None);
}

#[test]
fn numbers_that_look_like_dates_are_suspicious() {
    for text in ["20240601", "2024", "202406011230", "20240601123000"] {
        assert!(is_suspicious_epoch(text), "{text}");
    }
    for text in ["now", "1700000000", "20241301", "20240632", "20240601Z", "2024-06-01", "5", "0", "99999999"] {
        assert!(!is_suspicious_epoch(text), "{text}");
    }
}

#[test]
fn the_standard_offset_is_the_smaller_of_winter_and_summer() {
    let zone = |rules: &str| jiff::tz::TimeZone::posix(rules).unwrap();
    let now = jiff::Timestamp::from_second(NOW).unwrap();
    assert_eq!(standard_offset(&zone("CET-1CEST,M3.5.0,M10.5.0/3"), now), 3600);
    assert_eq!(standard_offset(&zone("EST5EDT,M3.2.0,M11.1.0"), now), -5 * 3600);
    assert_eq!(standard_offset(&zone("AEST-10AEDT,M10.1.0,M4.1.0/3"), now), 10 * 3600);
    assert_eq!(standard_offset(&zone("NST3:30NDT,M3.2.0,M11.1.0"), now), -12_600);
    assert_eq!(standard_offset(&jiff::tz::TimeZone::UTC, now), 0);
    assert!(local_standard_offset().abs() <= 26 * 3600);
}

#[test]
fn the_local_clock_has_the_time_and_the_zone_of_this_machine() {
    let before = BackupTime::now();
    let now = parse_by_local_clock("now").unwrap();
    assert!(before <= now && now <= BackupTime::now());
    let date = parse_by_local_clock("2024-06-01").unwrap();
    assert_eq!(date, parse_time("2024-06-01", BackupTime(0), local_standard_offset()).unwrap());
    assert!(parse_by_local_clock("3 days").is_err());
}

proptest! {
    #[test]
    fn every_time_of_a_set_is_accepted_in_both_notations(second in -2_000_000_000_i64..4_000_000_000) {
        let time = BackupTime(second);
        prop_assert_eq!(parse_time(&time.to_string(), BackupTime(0), 7200).unwrap(), time);
        let w3 = jiff::Timestamp::from_second(second).unwrap().strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        prop_assert_eq!(parse_time(&w3, BackupTime(0), 7200).unwrap(), time);
    }
}
