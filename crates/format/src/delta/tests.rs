use super::*;

fn literal(header_len: usize, len: u64) -> Option<DeltaCommand> {
    Some(DeltaCommand::Literal { header_len, len })
}

fn copy(header_len: usize, offset: u64, len: u64) -> Option<DeltaCommand> {
    Some(DeltaCommand::Copy { header_len, offset, len })
}

#[test]
fn the_worked_examples_are_parsed() {
    // docs/FORMAT.md section 6: `touch` of a 200000-byte file, and a file truncated to nothing
    let touched = [0x72, 0x73, 0x02, 0x36, 0x47, 0x00, 0x00, 0x03, 0x0d, 0x40, 0x00];
    check_magic(&touched).unwrap();
    assert_eq!(parse_command(&touched[4..]).unwrap(), copy(6, 0, 200_000));
    assert_eq!(parse_command(&touched[10..]).unwrap(), Some(DeltaCommand::End));
    let emptied = [0x72, 0x73, 0x02, 0x36, 0x00];
    check_magic(&emptied).unwrap();
    assert_eq!(parse_command(&emptied[4..]).unwrap(), Some(DeltaCommand::End));
    for wrong in [&b""[..], b"rs\x02", b"rs\x016", b"xx\x026"] {
        assert!(check_magic(wrong).is_err());
    }
}

#[test]
fn every_opcode_has_its_widths() {
    let args = [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9];
    for op in 0..=0xff_u8 {
        let bytes = [&[op][..], &args].concat();
        let parsed = parse_command(&bytes).ok();
        match op {
            0 => assert_eq!(parsed, Some(Some(DeltaCommand::End))),
            1..=0x40 => assert_eq!(parsed, Some(literal(1, u64::from(op)))),
            0x41..=0x44 => assert_eq!(parsed, Some(literal(1 + (1 << (op - 0x41)), if op == 0x44 { 9 } else { 0 }))),
            0x45..=0x54 => {
                let (a, b) = ((op - 0x45) / 4, (op - 0x45) % 4);
                let Some(Some(DeltaCommand::Copy { header_len, .. })) = parsed else { panic!("{op:#x} is a copy") };
                assert_eq!(header_len, 1 + (1 << a) + (1 << b));
                for cut in 0..header_len {
                    assert_eq!(parse_command(&bytes[..cut]).unwrap(), None);
                }
            }
            0x55..=0xff => assert!(parsed.is_none(), "{op:#x} is reserved"),
        }
    }
    assert_eq!(parse_command(&[0x46, 5, 1, 2]).unwrap(), copy(4, 5, 0x0102));
    assert_eq!(parse_command(&[0x4f, 0, 1, 0, 0, 2, 0, 0]).unwrap(), None);
    assert_eq!(parse_command(&[0x4f, 0, 1, 0, 0, 0, 0, 2, 0]).unwrap(), copy(9, 0x0001_0000, 0x0200));
    assert_eq!(parse_command(&[0x42, 1, 0]).unwrap(), literal(3, 256));
    assert_eq!(parse_command(&[0x43, 0, 1, 0, 0]).unwrap(), literal(5, 65_536));
    assert_eq!(parse_command(&[]).unwrap(), None);
}

#[test]
fn offsets_and_lengths_out_of_range_are_refused() {
    let huge = [0xff; 16];
    assert!(parse_command(&[&[0x44][..], &huge].concat()).is_err());
    assert!(parse_command(&[&[0x54][..], &huge].concat()).is_err());
    // 2^63 - 1 is the last offset that fits
    let edge = [&[0x51][..], &i64::MAX.to_be_bytes(), &[0]].concat();
    assert_eq!(parse_command(&edge).unwrap(), copy(10, i64::MAX.unsigned_abs(), 0));
    let over = [&[0x51][..], &i64::MAX.to_be_bytes(), &[1]].concat();
    let error = parse_command(&over).unwrap_err().at(70);
    assert!(error.to_string().contains("byte 70"), "{error}");
}
