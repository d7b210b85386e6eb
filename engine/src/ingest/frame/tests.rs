//! Frames as the format page shows them, flipped, cut and shared.

use super::*;
use crate::run_table::Run;
use crate::topic::Topic;
use proptest::prelude::*;

fn frame(lines: &[u8]) -> FrameBuffer {
    let mut frame = FrameBuffer::new(1000);
    let topic = frame.add_topic(&Topic::new(b"web").unwrap());
    let count = memchr::memchr_iter(b'\n', lines).count() as u32;
    let first = Ulid::from_parts(1_700_000_000_000, 0x0A_0B0C_0D0E, 7);
    frame.push(lines, Run { first, count, text_len: lines.len() as u32, topic });
    frame
}

const PLACE: FramePlace = FramePlace {
    incarnation: 0x1122_3344_5566_7788,
    number: 3,
    is_last: true,
    alignment_bytes: 512,
};

/// Sixteen bytes a line, as the worked examples of the format page show them.
fn dump(bytes: &[u8]) -> String {
    let line = |(i, row): (usize, &[u8])| {
        let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
        format!("{:04x}  {}\n", i * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

#[test]
fn the_worked_examples_of_the_format_page_are_what_is_written() {
    const PAGE: &str = include_str!("../../../../docs/format-ingest.md");
    let mut frame = frame(b"GET /\n\n");
    frame.finish(PLACE);
    let bytes = frame.as_bytes();
    assert_eq!((bytes.len(), &bytes[128..]), (512, &[0; 384][..]));
    assert!(PAGE.contains(&dump(&bytes[..128])), "frame:\n{}", dump(&bytes[..128]));
    let mut mark = FrameBuffer::end_mark(512);
    mark.finish(FramePlace { number: 4, ..PLACE });
    let mark = &mark.as_bytes()[..HEADER_BYTES];
    assert!(PAGE.contains(&dump(mark)), "end mark:\n{}", dump(mark));
    let place = crate::ingest::tail::ChunkPlace {
        incarnation: PLACE.incarnation,
        frame_number: 3,
        chunk_number: 0,
    };
    let mut chunk = crate::ingest::tail::encode_chunk(&place, frame.table(), frame.text());
    let (incarnation, frame_number) = (PLACE.incarnation, 3);
    let end = crate::ingest::tail::EndMark { incarnation, frame_number, chunk_count: 1 };
    chunk.extend_from_slice(&end.encode());
    let empty = dump(&crate::ingest::tail::EndMark::EMPTY.encode());
    assert!(PAGE.contains(&empty), "empty slot:\n{empty}");
    assert!(PAGE.contains(&dump(&chunk)), "tail chunk:\n{}", dump(&chunk));
}

#[test]
fn a_buffer_shared_with_a_reader_is_copied_before_it_changes() {
    let mut frame = frame(b"one\n");
    let (shared, span) = frame.shared_text();
    frame.clear();
    let topic = frame.add_topic(&Topic::new(b"t").unwrap());
    let first = Ulid::from_parts(1, 1, 1);
    frame.push(b"two\n", Run { first, count: 1, text_len: 4, topic });
    assert_eq!(&shared[span], b"one\n");
    assert_eq!(frame.text(), b"two\n");
    let (shared, span) = frame.shared_text();
    frame.finish(PLACE);
    assert_eq!(&shared[span], b"two\n");
    assert_eq!(frame.as_bytes().as_ptr().align_offset(512), 0);
    let header = FrameHeader::decode(frame.as_bytes()).unwrap();
    assert_eq!(header.check_payload(frame.as_bytes()).as_ref(), Ok(frame.table()));
}

#[test]
fn an_end_mark_is_a_frame_without_records() {
    let mut mark = FrameBuffer::end_mark(4096);
    mark.finish(FramePlace { alignment_bytes: 4096, ..PLACE });
    assert_eq!(mark.as_bytes().len(), 4096);
    let header = FrameHeader::decode(mark.as_bytes()).unwrap();
    assert_eq!((header.record_count, header.is_last), (0, true));
    assert_eq!(header.check_payload(mark.as_bytes()), Ok(RunTable::default()));
    let open = FrameHeader { is_last: false, ..header };
    assert!(matches!(FrameHeader::decode(&open.encode()), Err(NotAFrame::Malformed(_))));
}

#[test]
fn every_flipped_bit_of_a_frame_is_found() {
    let mut frame = frame(b"GET /\n\n");
    frame.finish(PLACE);
    for bit in 0..128 * 8 {
        let mut bytes = frame.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let checked = FrameHeader::decode(&bytes).and_then(|h| h.check_payload(&bytes));
        assert!(checked.is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn no_header_with_a_good_checksum_is_a_panic(
        fields in proptest::array::uniform32(any::<u8>()), tail in proptest::collection::vec(any::<u8>(), 0..200), wild: bool,
    ) {
        let mut frame = frame(b"GET /\n\n");
        frame.finish(PLACE);
        let mut bytes = frame.as_bytes().to_vec();
        for (i, field) in fields.into_iter().enumerate() {
            if wild || field < 60 {
                bytes[6 + i * 2] = field;
            }
        }
        let crc = crc32fast::hash(&bytes[..92]);
        bytes[92..96].copy_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&tail);
        if let Ok(header) = FrameHeader::decode(&bytes) {
            let _ = header.check_payload(&bytes);
            prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }
    }
}
