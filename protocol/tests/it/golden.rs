//! Bytes on the wire, as `docs/protocol.md` shows them: they change only with the version.

use std::time::Duration;

use echobench_protocol::{HEADER_LEN, Header, Limits, Reason, Work, error_frame, error_reason};

const REQUEST: [u8; HEADER_LEN] = [
    0x45, 0x43, 0x48, 0x01, 0x00, 0x00, 0x00, 0x00, // magic, version, flags, work, code
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, // duration, length
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, // sequence
];

const BLOCK: [u8; HEADER_LEN] = [
    0x45, 0x43, 0x48, 0x01, 0x00, 0x01, 0x00, 0x00, //
    0x00, 0x00, 0x13, 0x88, 0x00, 0x00, 0x00, 0x40, //
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x2a,
];

const SPIN: [u8; HEADER_LEN] = [
    0x45, 0x43, 0x48, 0x01, 0x00, 0x02, 0x00, 0x00, //
    0x00, 0x00, 0x00, 0x32, 0x00, 0x10, 0x00, 0x00, //
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];

const ERROR: [u8; HEADER_LEN] = [
    0x45, 0x43, 0x48, 0x01, 0x01, 0x00, 0x00, 0x05, //
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x16, //
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x2a,
];

fn requests() -> [(Header, [u8; HEADER_LEN]); 3] {
    let header = |work, payload_len, sequence| Header {
        work,
        payload_len,
        sequence,
    };
    [
        (header(Work::None, 5, 0x0102_0304_0506_0708), REQUEST),
        (header(Work::Block(Duration::from_millis(5)), 64, 42), BLOCK),
        (
            header(Work::Spin(Duration::from_micros(50)), 1 << 20, u64::MAX),
            SPIN,
        ),
    ]
}

#[test]
fn requests_have_these_bytes() {
    for (header, bytes) in requests() {
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes, &Limits::default()), Ok(header));
    }
}

#[test]
fn an_error_frame_has_these_bytes() {
    let frame = error_frame(Reason::PayloadTooLarge, 42);
    assert_eq!(frame[..HEADER_LEN], ERROR);
    assert_eq!(frame[HEADER_LEN..], *b"payload over the limit");
}

#[test]
fn reasons_keep_their_codes() {
    let codes: Vec<u16> = Reason::ALL.into_iter().map(Reason::code).collect();
    assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7]);
    for reason in Reason::ALL {
        assert_eq!(error_reason(&error_frame(reason, 7)), Some(reason));
    }
}

#[test]
fn only_error_frames_have_a_reason() {
    assert_eq!(error_reason(&REQUEST), None);
    assert_eq!(error_reason(&ERROR[..HEADER_LEN - 1]), None);
    let mut unknown = ERROR;
    unknown[7] = 99;
    assert_eq!(error_reason(&unknown), None);
}

#[test]
fn the_document_shows_these_bytes() {
    let document = include_str!("../../../docs/protocol.md");
    for bytes in [REQUEST, BLOCK, SPIN, ERROR] {
        let words = bytes.as_chunks::<4>().0.iter();
        let line: Vec<_> = words
            .map(|word| format!("{:08x}", u32::from_be_bytes(*word)))
            .collect();
        let line = line.join(" ");
        assert!(document.contains(&line), "docs/protocol.md lacks {line}");
    }

    for reason in Reason::ALL {
        let row = format!("| {} | {reason} |", reason.code());
        assert!(document.contains(&row), "docs/protocol.md lacks {row}");
    }
}

#[test]
fn work_is_cut_to_what_the_header_holds() {
    let header = Header {
        work: Work::Spin(Duration::MAX),
        payload_len: 0,
        sequence: 0,
    };
    assert_eq!(header.encode()[8..12], [0xff; 4]);
}
