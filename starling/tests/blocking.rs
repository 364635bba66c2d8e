//! The client that waits, in programs without a runtime.

use std::time::{Duration, Instant};

use starling::blocking::{BlockingError, Cluster};
use starling::{ClientError, FailureCause};

#[starling::task]
fn double(value: u64) -> Result<u64, String> {
    if value == 13 { Err("unlucky".to_owned()) } else { Ok(2 * value) }
}

#[starling::task]
fn total(values: &[u64]) -> u64 {
    values.iter().sum()
}

/// Uses the client that waits where it may not.
#[starling::task]
fn nested() -> String {
    match Cluster::local(1) {
        Ok(_) => "started".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_program_without_a_runtime_submits_gathers_scatters_and_cancels() {
    let cluster = Cluster::local(2).unwrap();
    assert_eq!((cluster.workers(), cluster.nthreads() > 0), (2, true));
    let futures = cluster.map((0..10).map(double::task));
    cluster.wait(&futures).unwrap();
    assert_eq!(cluster.gather(&futures).unwrap()[9], 18);
    let mut completed: Vec<(usize, u64)> =
        cluster.as_completed(futures.clone()).map(|(number, result)| (number, result.unwrap())).collect();
    completed.sort_unstable();
    assert_eq!(completed, (0..10).map(|number| (number, 2 * number as u64)).collect::<Vec<_>>());
    let scattered = cluster.scatter(20_u64).unwrap();
    let sum = total::task(vec![futures[4].clone(), scattered]);
    let sum = cluster.submit(sum).unwrap();
    assert_eq!((cluster.result(&sum).unwrap(), *cluster.shared(&sum).unwrap()), (28, 28));
    let delayed = total::task(vec![double::task(3_u64).delayed(), double::task(4_u64).delayed()]).delayed();
    assert_eq!(cluster.compute(&delayed).unwrap(), 14);
    assert_eq!(cluster.compute_all([&delayed, &delayed]).unwrap(), [14, 14]);

    let failed = cluster.submit(double::task(13_u64)).unwrap();
    let error = cluster.result(&failed).unwrap_err();
    assert!(error.to_string().contains("unlucky"), "{error}");
    let never = cluster.submit(double::task(1_u64).resource("moon", 1.0)).unwrap();
    cluster.cancel([&never]);
    let Err(BlockingError::Client(ClientError::Failed(failure))) = cluster.result(&never) else {
        panic!("it was not cancelled")
    };
    assert_eq!(failure.cause, FailureCause::Cancelled);

    let name = cluster.run(|cluster| async move { cluster.worker_infos().len() }).unwrap();
    assert_eq!(name, 2);
    let refused = cluster.submit(nested::task()).unwrap();
    assert!(cluster.result(&refused).unwrap().contains("inside of an asynchronous runtime"));
}

#[tokio::test]
async fn inside_of_a_runtime_it_is_refused_and_does_not_panic() {
    assert!(matches!(Cluster::local(1), Err(BlockingError::InsideRuntime)));
    // Made on a thread of its own, used and dropped here.
    let cluster = tokio::task::spawn_blocking(|| std::thread::spawn(|| Cluster::local(1).unwrap()).join().unwrap());
    let cluster = cluster.await.unwrap();
    let future = cluster.submit(double::task(4_u64)).unwrap();
    assert!(matches!(cluster.result(&future), Err(BlockingError::InsideRuntime)));
    let refused: Vec<_> = cluster.as_completed([future.clone()]).collect();
    assert!(matches!(refused[..], [(1, Err(BlockingError::InsideRuntime))]));
    assert!(matches!(cluster.run(|_| async {}), Err(BlockingError::InsideRuntime)));
    // The future itself may be awaited.
    assert_eq!(future.result().await.unwrap(), 8);
    drop(cluster);
    // Its scheduler is gone sooner or later, which the future tells.
    let deadline = Instant::now() + Duration::from_secs(60);
    assert!(tokio::time::timeout_at(deadline.into(), future.wait()).await.is_ok());
}
