//! Numbers as people read them.

/// `n` things: `1 volume`, `2 volumes`.
pub(super) fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `512 B`, `1.5 KiB`, `25.0 MiB`.
pub(super) fn human_bytes(n: u64) -> String {
    let mut unit = 1u64;
    let mut name = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if n / unit < 1024 {
            break;
        }
        unit *= 1024;
        name = next;
    }
    if unit == 1 {
        return format!("{n} B");
    }
    let tenths = u128::from(n) * 10 / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_greatest_unit_that_fits() {
        let texts = [0, 1023, 1536, 25 << 20, u64::MAX].map(human_bytes);
        assert_eq!(texts, ["0 B", "1023 B", "1.5 KiB", "25.0 MiB", "16383.9 PiB"]);
    }
}
