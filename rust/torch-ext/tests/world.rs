//! What processes exchange, shown on threads that meet in a file.
#![allow(clippy::unwrap_used)] // a test may panic

use hlrp_torch::{Meeting, Note, Reducer, Store, TorchError, Verdict, World};
use std::{
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use tch::{Device, Kind, Tensor};

fn meeting(folder: &Path, rank: usize, size: usize) -> Meeting {
    Meeting {
        rank,
        size,
        store: Store::File(folder.join("store")),
        prefix: "test".to_owned(),
        interface: None,
        is_local: true,
        timeout: Duration::from_secs(5),
    }
}

fn note_of(priority: u8, text: &str) -> Note {
    Note { priority, code: 1, can_continue: false, checkpoint: "none yet".to_owned(), text: text.to_owned() }
}

/// Runs `work` in `size` worlds that meet in a file and returns what each found.
fn in_worlds<T: Send + 'static>(size: usize, work: fn(World) -> T) -> Vec<T> {
    let folder = tempfile::tempdir().unwrap();
    in_worlds_of(size, |rank| meeting(folder.path(), rank, size), work)
}

/// Those that meet at a port of rank 0.
fn in_worlds_at_a_port<T: Send + 'static>(size: usize, timeout: Duration, work: fn(World) -> T) -> Vec<T> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = Store::Tcp { host: "127.0.0.1".to_owned(), port, is_of_rank_0: true };
    let meeting_of = |rank| Meeting { store: store.clone(), timeout, ..meeting(Path::new(""), rank, size) };
    in_worlds_of(size, meeting_of, work)
}

fn in_worlds_of<T: Send + 'static>(size: usize, meeting: impl Fn(usize) -> Meeting, work: fn(World) -> T) -> Vec<T> {
    let start = |rank| {
        let meeting = meeting(rank);
        thread::spawn(move || {
            let world = World::open(meeting).unwrap();
            world.connect().unwrap();
            world.barrier().unwrap(); // one that ends at once would disturb others that still connect
            work(world)
        })
    };
    let threads: Vec<_> = (0..size).map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn sums_copies_and_lists() {
    let found = in_worlds(3, |world| {
        let rank = world.rank() as i64;
        let (sum, copy) = (Tensor::from_slice(&[rank, 1]), Tensor::from_slice(&[rank as f32 + 7.0]));
        world.all_reduce(&sum).unwrap();
        world.broadcast(&copy).unwrap();
        let texts = world.all_gather_text(&"x".repeat(world.rank())).unwrap();
        let rows = world.all_gather_rows(&Tensor::from_slice(&[rank, rank + 10])).unwrap();
        let own = world.own_rows(2, |num_rows| Tensor::arange(num_rows, (Kind::Int64, Device::Cpu)));
        world.barrier().unwrap();
        let list = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
        (list(&sum), copy.double_value(&[0]), texts, list(&rows), list(&own))
    });
    for (rank, (sum, copy, texts, rows, own)) in found.into_iter().enumerate() {
        assert_eq!((sum, copy), (vec![3, 3], 7.0));
        assert_eq!(texts, ["", "x", "xx"]);
        assert_eq!(rows, [0, 1, 2, 10, 11, 12], "as one process alone would have them");
        assert_eq!(own, [rank as i64, rank as i64 + 3]);
    }
}

#[test]
fn a_part_of_a_tensor_is_exchanged_in_place() {
    let found = in_worlds(2, |world| {
        let whole = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        world.all_reduce(&(whole.select(1, 0) + 1.0)).unwrap();
        let column = whole.select(1, 1);
        let _ = column.shallow_clone().fill_(1.0);
        world.all_reduce(&column).unwrap();
        Vec::<f32>::try_from(whole.reshape([-1])).unwrap()
    });
    assert_eq!(found, [[0.0, 2.0, 0.0, 2.0], [0.0, 2.0, 0.0, 2.0]]);
}

#[test]
fn a_gradient_of_one_process_is_one_of_all() {
    let found = in_worlds(2, |world| {
        let parameter = |value: f32| Tensor::from(value).set_requires_grad(true);
        let [both, one, none] = [parameter(2.0), parameter(3.0), parameter(4.0)];
        let list = [both.shallow_clone(), one.shallow_clone(), none.shallow_clone()];
        let reducer = Reducer::new(&world, &list, 1 << 20).unwrap();
        for _ in 0..2 {
            list.iter().for_each(|parameter| parameter.shallow_clone().zero_grad());
            let factor = world.rank() as f64 + 1.0;
            let loss = &both * factor;
            let loss = if world.rank() == 1 { loss + &one * 8.0 } else { loss };
            reducer.begin();
            loss.backward();
            reducer.finish().unwrap();
        }
        (both.grad().double_value(&[]), one.grad().double_value(&[]), none.grad().defined())
    });
    assert_eq!(found, [(1.5, 4.0, false); 2]);
}

#[test]
fn gradients_are_exchanged_before_the_backward_pass_ends() {
    let found = in_worlds(2, |world| {
        let layers: Vec<Tensor> = (0..4i64)
            .map(|index| {
                (Tensor::ones([8, 8], (Kind::Float, Device::Cpu)) * (index + 1)).detach().set_requires_grad(true)
            })
            .collect();
        // Two layers to a bucket. The last parameter of the list, and with it the first bucket, has no gradient.
        let unused = Tensor::zeros([16, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut list: Vec<Tensor> = layers.iter().map(Tensor::shallow_clone).collect();
        list.push(unused.shallow_clone());
        let reducer = Reducer::new(&world, &list, 2 * 8 * 8 * 4).unwrap();
        let input = Tensor::ones([1, 8], (Kind::Float, Device::Cpu)) * (world.rank() as i64 + 1);
        let mut begun = Vec::new();
        // A step of two backward passes, the second of which is the last, then two steps of one.
        for (step, num_passes) in [2, 1, 1].into_iter().enumerate() {
            hlrp_torch::clear_grads(&list).unwrap();
            for pass in 0..num_passes {
                let output = layers.iter().fold(input.shallow_clone(), |hidden, layer| hidden.matmul(layer) / 100.0);
                if pass + 1 == num_passes {
                    reducer.begin();
                }
                output.sum(Kind::Float).backward();
            }
            begun.push(reducer.num_begun());
            reducer.finish().unwrap();
            let scale = layers[0].grad().double_value(&[0, 0]) / f64::from(num_passes);
            let of_one = 1.5 * 8.0f64.powi(3) * 24.0 / 1e8; // the mean input, and the paths through the other layers
            assert!((scale / of_one - 1.0).abs() < 1e-5, "step {step}: {scale} instead of {of_one}");
            assert!(!unused.grad().defined());
        }
        begun
    });
    // In the first step the bucket without a gradient holds up the others; then they go first.
    assert_eq!(found, [[0, 2, 2], [0, 2, 2]]);
}

#[test]
fn processes_of_gpus_are_connected_where_there_are_gpus() {
    assert!(World::single().prepare(Device::Cuda(0)).is_ok(), "one process exchanges nothing");
    let found = in_worlds(2, |world| {
        world.prepare(Device::Cpu).unwrap();
        world.prepare(Device::Cuda(world.rank())).unwrap_err().to_string()
    });
    for error in found {
        assert!(error.contains("2 processes cannot train on GPUs: this libtorch has no NCCL"), "{error}");
    }
}

#[test]
fn the_process_with_the_error_reports_it_and_the_others_know() {
    let found = in_worlds(2, |world| {
        let note = |priority, text: &str| Note { code: 65, ..note_of(priority, text) };
        if world.rank() == 1 {
            return world.conclude(note(Note::OWN, "no data")).unwrap();
        }
        let error = world.barrier().unwrap_err();
        assert!(matches!(error, TorchError::Exchange { .. }), "{error}");
        world.conclude(note(Note::LOST, "gone")).unwrap()
    });
    for verdict in &found {
        assert_eq!((verdict.rank, verdict.note.text.as_str(), verdict.note.code), (1, "no data", 65));
    }
    assert!(!found[0].is_reporter && found[1].is_reporter);
}

#[test]
fn a_process_that_does_not_answer_is_named() {
    let found = in_worlds(3, |world| {
        if world.rank() == 1 {
            thread::sleep(Duration::from_secs(14)); // beyond the time of the others and their farewell
            return None;
        }
        world.barrier().unwrap_err();
        world.conclude(note_of(Note::LOST, "gone"))
    });
    for verdict in [&found[0], &found[2]] {
        let verdict = verdict.as_ref().unwrap();
        assert_eq!((verdict.rank, verdict.missing.as_slice()), (0, &[1][..]));
    }
}

#[test]
fn a_process_that_computes_for_long_hears_of_the_error_of_the_first() {
    const COMPUTES: Duration = Duration::from_secs(6); // longer than a process without a sign is waited for
    let found = in_worlds_at_a_port(2, Duration::from_secs(60), |world| {
        if world.rank() == 1 {
            thread::sleep(COMPUTES);
            world.barrier().unwrap_err();
            let verdict = world.conclude(note_of(Note::LOST, "gone")).unwrap();
            world.leave();
            return (verdict, Duration::ZERO);
        }
        let began = Instant::now();
        let verdict = world.conclude(note_of(Note::OWN, "no data")).unwrap();
        let waited = began.elapsed();
        world.leave();
        assert!(began.elapsed() < COMPUTES + Duration::from_secs(4), "it left when the other one had");
        (verdict, waited)
    });
    let [(first, waited), (second, _)] = found.try_into().unwrap();
    assert!(first.is_reporter && waited < Duration::from_secs(2), "nothing can change the verdict: {waited:?}");
    assert!(!second.is_reporter && second.note.text == "no data", "{second:?}");
}

#[test]
fn a_process_that_computes_for_long_is_not_missing() {
    let found = in_worlds_at_a_port(3, Duration::from_secs(60), |world| {
        match world.rank() {
            1 => return None, // it is gone
            2 => thread::sleep(Duration::from_secs(6)),
            _ => {}
        }
        world.barrier().unwrap_err();
        let verdict = world.conclude(note_of(Note::LOST, "gone"));
        world.leave();
        verdict
    });
    for verdict in [&found[0], &found[2]] {
        let verdict = verdict.as_ref().unwrap();
        assert_eq!((verdict.rank, verdict.missing.as_slice()), (0, &[1][..]));
    }
}

#[test]
fn the_checkpoint_of_the_first_process_is_that_of_all() {
    let found = in_worlds_at_a_port(3, Duration::from_secs(60), |world| {
        if world.rank() == 1 {
            return None;
        }
        world.barrier().unwrap_err();
        world.begin_end();
        if world.rank() == 0 {
            thread::sleep(Duration::from_secs(6)); // it writes a checkpoint
        }
        let checkpoint = format!("step-{}", world.rank());
        let note = Note { can_continue: world.is_main(), checkpoint, ..note_of(Note::LOST, "gone") };
        let verdict = world.conclude(note);
        world.leave();
        verdict
    });
    for verdict in [&found[0], &found[2]] {
        let Verdict { note, missing, .. } = verdict.as_ref().unwrap();
        assert_eq!((note.can_continue, note.checkpoint.as_str(), missing.as_slice()), (true, "step-0", &[1][..]));
    }
}

#[test]
fn a_process_without_a_network_ends_the_others_before_they_connect() {
    let folder = tempfile::tempdir().unwrap();
    let meeting_of = |rank| Meeting {
        interface: (rank == 1).then(|| "nosuch".to_owned()),
        timeout: Duration::from_secs(60),
        ..meeting(folder.path(), rank, 2)
    };
    let threads = [0, 1].map(|rank| {
        let meeting = meeting_of(rank);
        thread::spawn(move || {
            let world = World::open(meeting).unwrap();
            let error = world.connect().unwrap_err();
            let priority = if matches!(error, TorchError::Exchange { .. }) { Note::LOST } else { Note::OWN };
            world.conclude(note_of(priority, &error.to_string())).unwrap()
        })
    });
    let began = Instant::now();
    for verdict in threads.map(|thread| thread.join().unwrap()) {
        assert!(verdict.rank == 1 && verdict.note.text.contains("GLOO_SOCKET_IFNAME=nosuch"), "{verdict:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_process_that_does_not_come_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let meeting = Meeting { timeout: Duration::from_millis(200), ..meeting(folder.path(), 0, 2) };
    let error = World::open(meeting).unwrap().connect().unwrap_err().to_string();
    assert!(error.starts_with("rank 1 did not join the run within"), "{error}");
}

#[test]
fn the_note_of_a_process_that_ends_at_once_is_that_of_all() {
    // Also where the store ends with it.
    for (at_a_port, ending) in [(false, 1), (true, 1), (true, 0)] {
        let work: fn(World) -> Option<Verdict> =
            if ending == 0 { |world| end_of(&world, 0) } else { |world| end_of(&world, 1) };
        let found = if at_a_port { in_worlds_at_a_port(2, Duration::from_secs(60), work) } else { in_worlds(2, work) };
        let verdict = found[1 - ending].as_ref().unwrap();
        assert!(!verdict.is_reporter && verdict.missing.is_empty(), "{verdict:?}");
        assert_eq!((verdict.rank, verdict.note.code, verdict.note.text.as_str()), (ending, 75, "a signal"));
    }
}

/// The verdict of a process where the one of rank `ending` ends at once; none there.
fn end_of(world: &World, ending: usize) -> Option<Verdict> {
    if world.rank() == ending {
        world.end_at_once(&Note { code: 75, ..note_of(Note::OWN, "a signal") });
        return None; // what follows cuts the connections
    }
    world.barrier().unwrap_err();
    let verdict = world.conclude(note_of(Note::LOST, "gone"));
    world.leave();
    verdict
}
