//! What the machine's own sockets do: the yardstick beside the figures that depend on them.
//!
//! The other end is this program again, in a process of its own, so that a wake-up costs what it costs a cluster. Left to
//! itself the kernel may put both ends of a ping-pong on one core, where it takes a tenth of the time; so the ends of a
//! ping-pong are pinned, and a figure says on how many cores it was taken.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::measure::median;
use crate::processes::{Process, own_program};

/// The system's name in the lines.
pub(crate) const RAW_TCP: &str = "raw-tcp";
/// What a ping and a pong hold.
const PING_BYTES: usize = 64;
/// What is written and read at once.
const BLOCK_BYTES: usize = 1 << 20;
/// How long the other process may take to begin, or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

const PING_PONG: u8 = b'p';
const STREAM: u8 = b's';

/// The other end's whole life: serves one connection after another until its starter is gone.
pub(crate) fn serve() -> anyhow::Result<()> {
    crate::processes::end_with_starter();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    crate::report::tell(format_args!("listening on {}", listener.local_addr()?));
    for stream in listener.incoming() {
        // A connection that breaks is the other side's end.
        let _ = stream.and_then(answer);
    }
    Ok(())
}

/// Serves one connection. Its first two bytes say what is wanted, and on which core if that matters.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut what = [0; 2];
    stream.read_exact(&mut what)?;
    if what[0] == PING_PONG {
        pin(what[1].into())?;
        let mut ping = [0; PING_BYTES];
        loop {
            match stream.read_exact(&mut ping) {
                Ok(()) => stream.write_all(&ping)?,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
    let block = vec![7_u8; BLOCK_BYTES];
    loop {
        let mut nbytes = [0; 8];
        match stream.read_exact(&mut nbytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut left = u64::from_le_bytes(nbytes);
        while left > 0 {
            let now = left.min(BLOCK_BYTES as u64);
            stream.write_all(&block[..now as usize])?;
            left -= now;
        }
    }
}

/// Where the two ends of a ping-pong run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Both on one core.
    One,
    /// Each on its own, so that every message wakes a core.
    Two,
}

/// The cores that this process may use.
pub(crate) fn available_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps the calling thread on a core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(ErrorKind::InvalidInput, "there is no such core"));
    }
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The other end, started.
pub(crate) struct RawTcp {
    _process: Process,
    address: String,
}

impl RawTcp {
    /// Starts the other process.
    pub(crate) fn start() -> anyhow::Result<RawTcp> {
        let mut command = Command::new(own_program()?);
        command.arg("raw-tcp").stdout(Stdio::null());
        let process = Process::spawn("raw-tcp", command, listening_on)?;
        let address = process.found(PATIENCE)?;
        Ok(RawTcp { _process: process, address })
    }

    /// The median ping-pong of this many, in seconds; `None` if it is to be across two cores and there is only one.
    pub(crate) fn ping_pong(&self, cores: Cores, trips: u32) -> anyhow::Result<Option<f64>> {
        let available = available_cores()?;
        let own = *available.first().context("no core may be used")?;
        let other = match cores {
            Cores::One => own,
            Cores::Two => match available.get(1) {
                Some(other) => *other,
                None => return Ok(None),
            },
        };
        let other = u8::try_from(other).context("the core's number is too large")?;
        let address = self.address.clone();
        // In a thread of its own, which alone is pinned.
        let pinned = std::thread::spawn(move || {
            pin(own)?;
            ping_pong(&mut connect(&address, PING_PONG, other)?, trips)
        });
        let median = pinned.join().map_err(|_| anyhow!("the pinging thread panicked"))?;
        Ok(Some(median.context("the raw TCP process does not answer")?))
    }

    /// A connection on which blocks can be asked for.
    pub(crate) fn stream(&self) -> anyhow::Result<TcpStream> {
        connect(&self.address, STREAM, 0).context("the raw TCP process does not answer")
    }
}

/// What a listening process says, without its words.
pub(crate) fn listening_on(line: &str) -> Option<String> {
    line.split_once("listening on ").map(|(_, address)| address.trim().to_owned())
}

fn connect(address: &str, what: u8, core: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[what, core])?;
    Ok(stream)
}

fn ping_pong(stream: &mut TcpStream, trips: u32) -> io::Result<f64> {
    let mut seconds = Vec::with_capacity(trips as usize);
    let mut pong = [0; PING_BYTES];
    for trip in 0..trips {
        let ping = [trip as u8; PING_BYTES];
        let started = Instant::now();
        stream.write_all(&ping)?;
        stream.read_exact(&mut pong)?;
        seconds.push(started.elapsed().as_secs_f64());
        if pong != ping {
            return Err(io::Error::new(ErrorKind::InvalidData, "the pong is another than the ping"));
        }
    }
    Ok(median(&seconds).unwrap_or(0.0))
}

/// Fills `buffer` from the other end; gives the seconds.
pub(crate) fn receive(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<f64> {
    let started = Instant::now();
    stream.write_all(&(buffer.len() as u64).to_le_bytes())?;
    for block in buffer.chunks_mut(BLOCK_BYTES) {
        stream.read_exact(block)?;
    }
    Ok(started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other end in a thread, which ends with the test.
    fn serve_one() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || answer(listener.accept().unwrap().0));
        address
    }

    #[test]
    fn pings_come_back_as_they_were() {
        let mut stream = connect(&serve_one(), PING_PONG, available_cores().unwrap()[0] as u8).unwrap();
        assert!(ping_pong(&mut stream, 50).unwrap() > 0.0);
    }

    #[test]
    fn a_block_that_is_asked_for_comes_whole_and_again() {
        let mut stream = connect(&serve_one(), STREAM, 0).unwrap();
        for _ in 0..2 {
            let mut buffer = vec![0; 3 * BLOCK_BYTES + 5];
            assert!(receive(&mut stream, &mut buffer).unwrap() > 0.0);
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        assert!(pin(CpuSet::MAX_CPU).is_err());
    }

    #[test]
    fn the_address_is_found_in_what_a_process_says() {
        assert_eq!(listening_on("listening on 127.0.0.1:80\n").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(listening_on("worker is ready"), None);
    }
}
