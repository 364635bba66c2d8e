//! Blocks over an in-memory pipe: whatever their shape they arrive as they were, and damage is seen.

use starling_core::ids::JobId;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;

const STALL: Duration = Duration::from_secs(20);

fn task(index: u32) -> TaskId {
    TaskId::new(JobId(1), index)
}

fn value(head: usize, buffers: &[usize]) -> Encoded {
    let fill = |length: usize| Bytes::from((0..length).map(|at| (at * 31 + length) as u8).collect::<Vec<_>>());
    Encoded { head: fill(head), buffers: buffers.iter().map(|&length| fill(length)).collect() }
}

#[tokio::test]
async fn blocks_of_every_shape_arrive_as_they_were() {
    let (near, far) = tokio::io::duplex(10_000);
    let mut near = BlockStream::new(near.compat(), STALL);
    let mut far = BlockStream::new(far.compat(), STALL);
    let values = vec![
        value(0, &[]),
        value(1, &[0]),
        value(100, &[3, 0, SMALL_BYTES, SMALL_BYTES + 1]),
        value(CHUNK_BYTES * 2 + 5, &[CHUNK_BYTES, 1]),
        value(7, &[1; 5000]),
    ];
    let sent = values.clone();
    let sending = tokio::spawn(async move {
        for (index, value) in sent.iter().enumerate() {
            let header = BlockHeader { task: task(index as u32), shape: Some(Shape::of(value)) };
            near.write_header(&header).await.unwrap();
            near.write_block(value).await.unwrap();
        }
        near.flush().await.unwrap();
    });
    for (index, expected) in values.iter().enumerate() {
        assert!(far.wait().await.unwrap());
        let header: BlockHeader = far.read_header().await.unwrap();
        assert_eq!(header.task, task(index as u32));
        let Received::Sound(value) = far.read_block(&header.shape.unwrap(), u64::MAX).await.unwrap() else {
            panic!("block {index} is damaged");
        };
        assert_eq!(value, *expected);
    }
    sending.await.unwrap();
    assert!(!far.wait().await.unwrap());
}

#[tokio::test]
async fn a_damaged_block_is_seen_and_the_next_is_sound() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut far = BlockStream::new(far.compat(), STALL);
    let (bad, good) = (value(10, &[20]), value(5, &[]));
    let shapes = [Shape::of(&bad), Shape::of(&good)];
    let mut wire = BlockStream::new(futures::io::Cursor::new(Vec::new()), STALL);
    wire.write_block(&bad).await.unwrap();
    wire.write_block(&good).await.unwrap();
    wire.flush().await.unwrap();
    let mut bytes = wire.io.into_inner().into_inner();
    bytes[15] ^= 1;
    let mut near = near.compat();
    near.write_all(&bytes).await.unwrap();
    assert!(matches!(far.read_block(&shapes[0], 1000).await.unwrap(), Received::Damaged));
    assert!(matches!(far.read_block(&shapes[1], 1000).await.unwrap(), Received::Sound(value) if value == good));
}

#[tokio::test]
async fn lengths_beyond_the_limits_are_refused_before_anything_is_read() {
    let (near, far) = tokio::io::duplex(64);
    let mut far = BlockStream::new(far.compat(), STALL);
    let mut near = near.compat();
    near.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    assert!(far.read_header::<BlockHeader>().await.is_err());
    let shape = Shape { head: u64::MAX, buffers: vec![2] };
    assert!(far.read_block(&shape, u64::MAX).await.is_err());
    assert!(far.read_block(&Shape { head: 11, buffers: Vec::new() }, 10).await.is_err());
}
