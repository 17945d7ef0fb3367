//! The protocol, with real sockets between two threads.

use std::net::TcpListener;
use std::sync::{Mutex, mpsc};

use super::*;

/// A process that listens, and tells when a successor has left.
struct Listening {
    listeners: Vec<TcpListener>,
    steered: Vec<TcpListener>,
    left: mpsc::Sender<()>,
}

impl Old for Listening {
    fn estate(&self) -> io::Result<Estate> {
        let socket =
            |listener: &TcpListener| Ok((listener.local_addr()?, listener.try_clone()?.into()));
        Ok(Estate {
            revision: Revision(7),
            sockets: self
                .listeners
                .iter()
                .map(socket)
                .collect::<io::Result<_>>()?,
            steering: self.steered.iter().map(socket).collect::<io::Result<_>>()?,
        })
    }

    fn leave(&self) {}

    fn resume(&self) {
        let _ = self.left.send(());
    }
}

fn listeners(count: usize) -> Vec<TcpListener> {
    (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("bind"))
        .collect()
}

struct Process {
    path: std::path::PathBuf,
    _file: SocketFile,
    _dir: tempfile::TempDir,
    left: mpsc::Receiver<()>,
    ended: mpsc::Receiver<TakenOver>,
}

impl Process {
    fn predecessor(&self) -> Predecessor {
        let found = Predecessor::connect(&self.path).expect("connects");
        found.expect("is there")
    }
}

fn old(count: usize) -> (Process, Vec<SocketAddr>) {
    old_that_steers(count, 0)
}

fn old_that_steers(count: usize, steered: usize) -> (Process, Vec<SocketAddr>) {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("handover.sock");
    let (server, mut file) = Server::bind(&path).expect("bind");
    file.publish().expect("published");
    let listeners = listeners(count);
    let steered = self::listeners(steered);
    let addresses = listeners
        .iter()
        .chain(&steered)
        .map(|l| l.local_addr().expect("address"))
        .collect();
    let (sender, ended) = mpsc::channel();
    let (leaving, left) = mpsc::channel();
    let listening = Listening {
        listeners,
        steered,
        left: leaving,
    };
    std::thread::spawn(move || {
        let (taken_over, moving) = server.serve(&listening);
        let _ = sender.send(taken_over);
        moving.wait();
    });
    (
        Process {
            path,
            _file: file,
            _dir: dir,
            left,
            ended,
        },
        addresses,
    )
}

#[test]
fn every_socket_arrives_and_the_old_process_ends_when_told() {
    let (old, addresses) = old(SOCKETS_PER_MESSAGE + 3);
    let predecessor = old.predecessor();
    assert_eq!(predecessor.revision, Revision(7));
    assert_eq!(
        predecessor
            .sockets
            .iter()
            .map(|(a, _)| *a)
            .collect::<Vec<_>>(),
        addresses
    );
    for (address, fd) in &predecessor.sockets {
        let socket = TcpListener::from(fd.try_clone().expect("dup"));
        assert_eq!(socket.local_addr().expect("address"), *address);
    }
    assert!(old.ended.try_recv().is_err());
    assert!(!predecessor.is_gone());
    predecessor.taken_over(true, false).expect("heard");
    let taken_over = old.ended.recv_timeout(PATIENCE).expect("ended");
    assert_eq!(
        taken_over,
        TakenOver {
            pid: std::process::id(),
            l4: true,
            shares: false,
        }
    );
}

#[test]
fn sockets_that_are_steered_to_are_told_from_the_others() {
    let (old, addresses) = old_that_steers(SOCKETS_PER_MESSAGE, 3);
    let predecessor = old.predecessor();
    let told: Vec<_> = predecessor.sockets.iter().map(|(a, _)| *a).collect();
    assert_eq!(told, addresses[..SOCKETS_PER_MESSAGE]);
    let steering = predecessor.steering.iter().map(|fd| {
        let address = SockRef::from(fd).local_addr().expect("address");
        address.as_socket().expect("of IP")
    });
    assert_eq!(
        steering.collect::<Vec<_>>(),
        addresses[SOCKETS_PER_MESSAGE..]
    );
    predecessor.taken_over(true, true).expect("heard");
    assert!(old.ended.recv_timeout(PATIENCE).expect("ended").shares);
}

#[test]
fn a_predecessor_and_a_successor_from_before_sockets_were_shared_are_understood() {
    let welcome = r#"{"welcome":{"protocol":1,"pid":2,"revision":3,"sockets":4}}"#;
    let welcome: Message = serde_json::from_str(welcome).expect("read");
    assert!(matches!(welcome, Message::Welcome { steering: 0, .. }));
    let taken_over = r#"{"taken-over":{"l4":true}}"#;
    let taken_over: Message = serde_json::from_str(taken_over).expect("read");
    let alone = Message::TakenOver {
        l4: true,
        shares: false,
    };
    assert_eq!(taken_over, alone);
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let (old, addresses) = old(1);
    drop(Predecessor::connect(&old.path).expect("connects"));
    let second = old.predecessor();
    assert_eq!(second.sockets[0].0, addresses[0]);
    second.taken_over(false, false).expect("heard");
    assert!(!old.ended.recv_timeout(PATIENCE).expect("ended").l4);
}

/// A process that hears of its successor late.
struct Late {
    successor_is_gone: Mutex<mpsc::Receiver<()>>,
    resumed: mpsc::Sender<()>,
}

impl Old for Late {
    fn estate(&self) -> io::Result<Estate> {
        Ok(Estate {
            revision: Revision(7),
            sockets: Sockets::new(),
            steering: Sockets::new(),
        })
    }

    fn leave(&self) {
        let gone = self.successor_is_gone.lock().expect("no panic");
        let _ = gone.recv();
    }

    fn resume(&self) {
        let _ = self.resumed.send(());
    }
}

#[test]
fn a_successor_that_is_dead_when_it_is_heard_has_not_taken_over() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("handover.sock");
    let (server, mut file) = Server::bind(&path).expect("bind");
    file.publish().expect("published");
    let (gone, successor_is_gone) = mpsc::channel();
    let (resumed, has_resumed) = mpsc::channel();
    let late = Late {
        successor_is_gone: Mutex::new(successor_is_gone),
        resumed,
    };
    let old = std::thread::spawn(move || server.serve(&late).0);
    let connect = || Predecessor::connect(&path).expect("connects");
    let killed = connect().expect("is there");
    let last_word = Message::TakenOver {
        l4: true,
        shares: false,
    };
    killed.channel.send(&last_word, &[]).expect("sent");
    drop(killed);
    gone.send(()).expect("waits");
    has_resumed.recv_timeout(PATIENCE).expect("takes back");
    drop(gone);
    let next = connect().expect("is there");
    next.taken_over(false, false).expect("heard");
    assert!(!old.join().expect("ended").l4);
}

#[test]
fn a_successor_killed_before_it_took_over_leaves_the_name_where_it_was() {
    let (old, addresses) = old(1);
    let killed = old.predecessor();
    let (server, file) = Server::bind(&old.path).expect("bind");
    // A kill closes descriptors and leaves files.
    std::mem::forget(file);
    drop((server, killed));
    let next = old.predecessor();
    assert_eq!(next.sockets[0].0, addresses[0]);
    old.left.recv_timeout(PATIENCE).expect("takes back");
    next.taken_over(false, false).expect("heard");
    old.ended.recv_timeout(PATIENCE).expect("ended");
}

#[test]
fn nobody_is_refused_before_the_successor_has_its_names() {
    let (old, _) = old(1);
    let predecessor = old.predecessor();
    predecessor.taken_over(true, false).expect("heard");
    old.ended.recv_timeout(PATIENCE).expect("drains");
    let third = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("socket");
    third
        .connect(&SockAddr::unix(&old.path).expect("address"))
        .expect("not refused");
    drop(predecessor);
    assert_eq!(
        old.ended.recv_timeout(PATIENCE),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
    assert!(Predecessor::connect(&old.path).expect("no error").is_none());
}

#[test]
fn nobody_there_is_no_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("handover.sock");
    assert!(Predecessor::connect(&path).expect("no error").is_none());
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    assert!(Predecessor::connect(&path).expect("no error").is_none());
}

#[test]
fn nonsense_is_an_error_and_no_end() {
    let (old, _) = old(1);
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("socket");
    socket
        .connect(&SockAddr::unix(&old.path).expect("address"))
        .expect("connect");
    socket.send(b"\x00not json").expect("send");
    let predecessor = old.predecessor();
    assert_eq!(predecessor.pid, std::process::id());
}
