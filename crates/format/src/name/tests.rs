use proptest::prelude::*;

use super::*;

const T: i64 = 1_795_350_374; // 2026-11-22T12:26:14Z
const S: i64 = T - 3600;

fn full() -> SetTimes {
    SetTimes { start: None, end: BackupTime(T) }
}

fn inc() -> SetTimes {
    SetTimes { start: Some(BackupTime(S)), end: BackupTime(T) }
}

fn volume(number: u32) -> FileRole {
    FileRole::Volume(VolumeNumber(number))
}

fn set_and_role(name: &str) -> Option<(SetTimes, FileRole)> {
    parse_name(name).map(|found| (found.set, found.role))
}

fn end_of(name: &str) -> Option<i64> {
    parse_name(name).map(|found| found.set.end.0)
}

#[test]
fn long_names_of_every_kind_and_suffix() {
    let cases = [
        ("duplicity-full.20261122T122614Z.vol1.difftar", (full(), volume(1))),
        ("duplicity-full.20261122T122614Z.manifest", (full(), FileRole::Manifest)),
        ("duplicity-full-signatures.20261122T122614Z.sigtar", (full(), FileRole::Signature)),
        ("duplicity-inc.20261122T112614Z.to.20261122T122614Z.vol10.difftar", (inc(), volume(10))),
        ("duplicity-inc.20261122T112614Z.to.20261122T122614Z.manifest", (inc(), FileRole::Manifest)),
        ("duplicity-new-signatures.20261122T112614Z.to.20261122T122614Z.sigtar", (inc(), FileRole::Signature)),
    ];
    let suffixes =
        [("", NameSuffix::None), (".gz", NameSuffix::Gzip), (".gpg", NameSuffix::OpenPgp), (".p7m", NameSuffix::Cms)];
    for (name, (set, role)) in cases {
        for (text, suffix) in suffixes {
            let name = format!("{name}{text}");
            let expected = FileName { set, role, prefix: "", suffix, style: NameStyle::Long };
            assert_eq!(parse_name(&name), Some(expected), "{name}");
            assert_eq!(parse_name_with_prefix(&name, ""), Some(expected), "{name}");
            assert_eq!(parse_name(&name.to_uppercase()), Some(expected), "{name} in upper case");
            assert_eq!(parse_name(&name.to_lowercase()), Some(expected), "{name} in lower case");
        }
    }
}

#[test]
fn short_names_are_base_36() {
    // docs/FORMAT.md section 1: towm5d = 1795351585
    let set = SetTimes { start: Some(BackupTime(1_795_351_585)), end: BackupTime(1_795_351_588) };
    let expected = FileName { set, role: volume(1), prefix: "", suffix: NameSuffix::OpenPgp, style: NameStyle::Short };
    assert_eq!(parse_name("di.towm5d.towm5g.1.dt.g"), Some(expected));
    assert_eq!(parse_name("DI.TOWM5D.TOWM5G.1.DT.G"), Some(expected));
    let only = SetTimes { start: None, end: set.start.unwrap() };
    assert_eq!(set_and_role("df.towm5d.10.dt"), Some((only, volume(36))));
    assert_eq!(set_and_role("df.towm5d.m"), Some((only, FileRole::Manifest)));
    assert_eq!(set_and_role("di.towm5d.towm5g.m.g"), Some((set, FileRole::Manifest)));
    assert_eq!(set_and_role("dfs.towm5d.st.z"), Some((only, FileRole::Signature)));
    assert_eq!(set_and_role("dns.towm5d.towm5g.st.z"), Some((set, FileRole::Signature)));
    assert_eq!(parse_name("df.towm5d.m.z").unwrap().suffix, NameSuffix::Gzip);
}

#[test]
fn old_names_have_any_separator_and_zones_as_duplicity_writes_them() {
    // docs/FORMAT.md section 1: local time with an offset, `Z` when the zone is UTC, any separator
    let noon = 1_795_351_592; // 2026-11-22T12:46:32Z
    for time in [
        "2026-11-22T07:46:32-05:00",
        "2026-11-22T07_46_32-05_00",
        "2026-11-22t07_46_32-05_00",
        "2026-11-22T12:46:32Z",
        "2026-11-22T12:46:32z",
        "2026-11-22T12.46.32Z",
        "2026-11-22T13+46+32+01+00",
        "2026-11-22T13-46-32+01-00",
        "2026-11-22T18\u{b7}16\u{b7}32+05\u{b7}30",
    ] {
        assert_eq!(end_of(&format!("duplicity-full.{time}.vol1.difftar.gpg")), Some(noon), "{time}");
        let inc = format!("duplicity-inc.{time}.to.{time}.manifest");
        assert_eq!(parse_name(&inc).map(|found| found.set.start), Some(Some(BackupTime(noon))), "{inc}");
    }
    // docs/FORMAT.md section 1, the trap: St John's writes -03:30 as -04:30
    assert_eq!(
        end_of("duplicity-full.2026-11-22T18:43:20-04:30.manifest"),
        end_of("duplicity-full.20261122T221320Z.manifest"),
    );
    for wrong in [
        "2026-11-22T07:46_32-05:00",
        "2026-11-22T07:46:32-05_00",
        "2026-11-22T07:46:32",
        "2026-11-22T07046032Z",
        "2026-13-22T07:46:32Z",
        "2026-11-22 07:46:32Z",
        "20261122T122614",
    ] {
        assert_eq!(set_and_role(&format!("duplicity-full.{wrong}.manifest")), None, "{wrong}");
    }
}

#[test]
fn prefixes_are_split_off_and_may_contain_slashes() {
    for prefix in ["all_arc_", "backups/site-", "old.", "duplicity-", "duplicity-full.", "pr\u{e9}fix/", "d", "df."] {
        let name = format!("{prefix}duplicity-full.20261122T122614Z.vol3.difftar.gpg");
        let found = parse_name(&name).unwrap();
        assert_eq!((found.prefix, found.set, found.role), (prefix, full(), volume(3)));
        assert_eq!(parse_name_with_prefix(&name, prefix), Some(found));
        assert_eq!(parse_name_with_prefix(&name, "other_"), None);
        assert_eq!(parse_name_with_prefix(&name, &name), None);
    }
    let folded = parse_name_with_prefix("ALL_DUPLICITY-FULL.20261122T122614Z.MANIFEST", "all_").unwrap();
    assert_eq!(folded.prefix, "ALL_");
}

#[test]
fn short_names_after_an_unknown_prefix_need_a_boundary_and_plausible_times() {
    assert_eq!(parse_name("site/df.towm5d.m").unwrap().prefix, "site/");
    assert_eq!(parse_name("all_man_df.towm5d.m").unwrap().prefix, "all_man_");
    for foreign in ["my.pdf.reader.m", "pdf.towm5d.m", "x/df.1.m", "all-df.zzzzzzz.m", "x.df.towm5d.0.dt"] {
        assert_eq!(parse_name(foreign), None, "{foreign}");
    }
    // with a known prefix, any prefix and time is accepted
    assert_eq!(parse_name_with_prefix("pdf.1.m", "p").unwrap().set.end, BackupTime(1));
    assert_eq!(end_of("df.a.m"), Some(10));
    // a full set with the prefix `di.`, not an increment that starts in 1970
    let found = parse_name("di.df.towm5d.1.dt").unwrap();
    assert_eq!((found.prefix, found.set.start), ("di.", None));
    assert_eq!(parse_name_with_prefix("di.df.towm5d.1.dt", "").unwrap().set.start, Some(BackupTime(483)));
}

#[test]
fn foreign_names_are_refused() {
    for foreign in [
        "",
        "lockfile",
        "lockfile.lock",
        "duplicity-",
        "duplicity-full.20261122T122614Z.vol1.difftar.gpg.par2",
        "duplicity-full.20261122T122614Z.vol1.difftar.gpg.vol000+01.par2",
        "duplicity-full.20261122T122614Z.manifest.gpg.par2",
        "duplicity-full.20261122T122614Z.manifest.part",
        "duplicity-full-signatures.20261122T122614Z.sigtar.part",
        "duplicity-full-signatures.20261122T122614Z.sigtar.part.gz",
        "df.towm5d.m.p",
        "dfs.towm5d.st.p",
        "duplicity-full.20261122T122614Z.jsonstat",
        "duplicity-inc.20261122T112614Z.to.20261122T122614Z.jsonstat.gpg",
        "duplicity-full.20261122T122614Z.vol0.difftar",
        "duplicity-full.20261122T122614Z.vol.difftar",
        "duplicity-full.20261122T122614Z.vol+1.difftar",
        "duplicity-full.20261122T122614Z.vol99999999999.difftar",
        "duplicity-full.20261122T122614Z.vol1.difftar.gpg.tmp",
        "duplicity-full.20261122T122614Z.vol1.difftar.gz.gpg",
        "duplicity-full.20261122T122614Z.vol1.difftargpg",
        ".duplicity-full.20261122T122614Z.manifest.aB3dEf",
        "duplicity-full.20261122T122614Z.to.20261122T122614Z.manifest",
        "duplicity-inc.20261122T122614Z.manifest",
        "duplicity-full.20261322T122614Z.manifest",
        "duplicity-full.20261122T252614Z.manifest",
        "duplicity-full.now.manifest",
        "duplicity-full.1795350374.manifest",
        "duplicity-full-signatures.20261122T122614Z.manifest",
        "df.towm5d.1.difftar",
        "df.zzzzzzzzzzzzzzzz.m",
        "df.+towm.m",
        "df..m",
        "di.towm5d.m",
        "readme.txt",
    ] {
        assert_eq!(parse_name(foreign), None, "{foreign}");
        assert_eq!(parse_name_with_prefix(foreign, ""), None, "{foreign}");
    }
}

#[test]
fn prefixes_must_fit_the_kind_of_file() {
    let prefixes =
        NamePrefixes { archive: "all_arc_".into(), manifest: "all_man_".into(), signature: "all_sig_".into() };
    let full = "duplicity-full.20261122T122614Z";
    assert_eq!(prefixes.parse(&format!("all_arc_{full}.vol1.difftar")).unwrap().prefix, "all_arc_");
    assert!(prefixes.parse(&format!("all_man_{full}.manifest")).is_some());
    assert!(prefixes.parse("all_sig_dfs.towm5d.st").is_some());
    assert!(prefixes.parse(&format!("all_arc_{full}.manifest")).is_none());
    assert!(prefixes.parse(&format!("{full}.manifest")).is_none());
    assert!(NamePrefixes::default().parse(&format!("{full}.manifest")).is_some());
}

#[test]
fn p7m_is_refused_by_name() {
    let name = "duplicity-full.20261122T122614Z.manifest.p7m";
    let error = parse_name(name).unwrap().check_supported(name).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert!(parse_name("df.towm5d.m").unwrap().check_supported("df.towm5d.m").is_ok());
}

proptest! {
    #[test]
    fn written_names_parse_to_the_same_parts(
        start in proptest::option::of(0_i64..4_000_000_000),
        end in 0_i64..4_000_000_000,
        number in 1_u32..,
        prefix in "[a-z_./]{0,8}",
        short in any::<bool>(),
    ) {
        let set = SetTimes { start: start.map(BackupTime), end: BackupTime(end) };
        let name = if short {
            let times = start.map_or(base36(end), |start| format!("{}.{}", base36(start), base36(end)));
            format!("{prefix}d{}.{times}.{}.dt", if set.is_full() { "f" } else { "i" }, base36(i64::from(number)))
        } else {
            let times = set.start.map_or(set.end.to_string(), |start| format!("{start}.to.{}", set.end));
            format!("{prefix}duplicity-{}.{times}.vol{number}.difftar", if set.is_full() { "full" } else { "inc" })
        };
        let found = parse_name_with_prefix(&name, &prefix);
        prop_assert_eq!(found.map(|found| (found.set, found.role)), Some((set, volume(number))));
        if !short {
            prop_assert_eq!(parse_name(&name), found);
        }
    }
}

fn base36(mut n: i64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(u32::try_from(n % 36).unwrap(), 36).unwrap());
        n /= 36;
        if n == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}
