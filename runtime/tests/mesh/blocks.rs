//! Blocks from store to store.

use starling_core::ids::{JobId, NodeId, TaskId};
use starling_runtime::mesh::{Mesh, MeshError, MeshLimits};
use starling_runtime::value::Encoded;

use crate::common::{Setup, cluster, task, value, within};

pub(crate) async fn fetch(
    mesh: &Mesh,
    from: NodeId,
    tasks: &[TaskId],
) -> Result<Vec<(TaskId, Option<Encoded>)>, MeshError> {
    let mut blocks = Vec::new();
    within("the blocks", mesh.fetch(from, tasks, &mut |task, block| blocks.push((task, block)))).await?;
    Ok(blocks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_blocks_come_in_order_and_absent_ones_as_absent() {
    let nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    for index in 0..10_000 {
        let block = value(index, (index % 50) as usize, &[(index % 7) as usize * 10]);
        nodes[1].store.blocks.lock().unwrap().insert(task(index), block);
    }
    let tasks: Vec<_> = (0..12_000).map(task).collect();
    let blocks = fetch(&nodes[0].mesh, nodes[1].id(), &tasks).await.unwrap();
    assert_eq!(blocks.len(), tasks.len());
    let held = nodes[1].store.blocks.lock().unwrap();
    for (at, (task, block)) in blocks.iter().enumerate() {
        assert_eq!(*task, tasks[at]);
        // One panics in the store; the others are as they are there.
        let expected = if task.index == 666 { None } else { held.get(task) };
        assert_eq!(block.as_ref(), expected, "task {task}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_of_64_mib_goes_and_comes_back_whole() {
    let nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    let big = value(77, 1000, &[64 << 20, 3, 0, 100_000]);
    nodes[0].mesh.put(nodes[1].id(), task(1), big.clone()).await.unwrap();
    assert_eq!(nodes[1].store.blocks.lock().unwrap().get(&task(1)), Some(&big));
    let blocks = fetch(&nodes[0].mesh, nodes[1].id(), &[task(1)]).await.unwrap();
    assert!(blocks == [(task(1), Some(big))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_fetches_and_puts_at_once_do_not_mix() {
    let nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    let (mesh, to) = (&nodes[0].mesh, nodes[1].id());
    let rounds = (0..50).map(|index| async move {
        let block = value(index, 10, &[(index as usize + 1) * 5000]);
        mesh.put(to, task(index), block.clone()).await.unwrap();
        assert!(
            fetch(mesh, to, &[task(index), task(9999)]).await.unwrap()
                == [(task(index), Some(block)), (task(9999), None)]
        );
    });
    within("all", futures::future::join_all(rounds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_or_too_large_put_says_so_and_the_next_one_works() {
    let limits = MeshLimits { block_bytes_max: 1000, ..MeshLimits::default() };
    let small = || Setup { limits: limits.clone(), ..Setup::default() };
    let nodes = cluster(vec![small(), small(), Setup::default()]).await;
    let to = nodes[1].id();
    let error = nodes[0].mesh.put(to, TaskId::new(JobId(13), 1), value(1, 1, &[])).await.unwrap_err();
    assert!(matches!(&error, MeshError::PutRefused { why, .. } if why == "job 13 is not taken"), "{error:?}");
    let error = nodes[0].mesh.put(to, task(1), value(1, 1001, &[])).await.unwrap_err();
    assert!(matches!(error, MeshError::TooLarge { size: 1001, max: 1000, .. }), "{error:?}");
    // A node with other limits sends it all the same: the receiver hangs up, and nothing is kept.
    let error = within("an error", nodes[2].mesh.put(to, task(1), value(1, 1001, &[]))).await.unwrap_err();
    assert!(matches!(error, MeshError::Broken { .. }), "{error:?}");
    assert!(nodes[1].store.blocks.lock().unwrap().is_empty());
    nodes[2].mesh.put(to, task(1), value(1, 1000, &[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_fetches_from_and_puts_to_itself() {
    let node = Setup::dial_out_only().start().await;
    node.mesh.put(node.id(), task(1), value(1, 5, &[6])).await.unwrap();
    let blocks = fetch(&node.mesh, node.id(), &[task(1), task(2)]).await.unwrap();
    assert!(blocks == [(task(1), Some(value(1, 5, &[6]))), (task(2), None)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_from_a_node_that_dies_fails_and_does_not_hang() {
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    let dying = nodes.remove(1);
    let id = dying.id();
    // Given a pooled stream to it, unused now.
    assert!(fetch(&nodes[0].mesh, id, &[task(1)]).await.unwrap() == [(task(1), None)]);
    drop(dying);
    let error = fetch(&nodes[0].mesh, id, &[task(1)]).await.unwrap_err();
    assert!(matches!(error, MeshError::NoRoute { .. } | MeshError::Broken { .. }), "{error:?}");
}
