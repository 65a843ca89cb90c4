//! Every system call that reads, on a mount and on the tree that was committed.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, RawDir, StatxFlags};

use super::{View, can_mount_all, names};
use crate::env::{Env, have};

const LARGE: usize = 700_001;
/// Offsets and lengths around the borders of pages, blocks and the file itself.
const PLACES: [(u64, usize); 12] = [
    (0, 1),
    (0, 4096),
    (4095, 2),
    (4096, 4096),
    (131_071, 2),
    (131_072, 131_072),
    (262_143, 300_000),
    (LARGE as u64 - 1, 1),
    (LARGE as u64 - 1, 10),
    (LARGE as u64 - 4097, 8192),
    (LARGE as u64, 1),
    (LARGE as u64 + 5000, 10),
];

/// Bytes in which every place is different.
fn content(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at * 31) ^ (at >> 8) ^ (at >> 16)) as u8)
        .collect()
}

fn mounted() -> (Env, View) {
    let env = Env::new();
    fs::create_dir_all(env.path("tree/dir")).expect("a directory");
    fs::write(env.path("tree/dir/large"), content(LARGE)).expect("a file");
    fs::write(env.path("tree/dir/empty"), b"").expect("a file");
    for number in 0..500 {
        let name = format!("tree/many/{number:03}-{}", "n".repeat(number % 200));
        env.file(&name, "", 0o644);
    }
    symlink("dir/large", env.path("tree/link")).expect("a link");
    symlink("l".repeat(4095), env.path("tree/longest")).expect("a link");
    for name in ["sh", "cat"] {
        let program = Path::new("/bin").join(name);
        fs::copy(program, env.path("tree").join(name)).expect("a program");
    }
    env.ok(&["commit", "-q", "-b", "calls", "--tree=dir=tree"]);
    let view = View::commit(&env, "calls", "mnt");
    (env, view)
}

#[test]
fn bytes_are_the_same_by_every_way_to_read_them() {
    if !can_mount_all() {
        return;
    }
    let (env, view) = mounted();
    let (ours, wanted) = (view.path().join("dir/large"), content(LARGE));
    let file = File::open(&ours).expect("a file");
    for (offset, len) in PLACES {
        let start = (offset as usize).min(LARGE);
        let wanted = &wanted[start..(start + len).min(LARGE)];
        let mut bytes = vec![0; len];
        let read = file.read_at(&mut bytes, offset).expect("pread");
        assert!(&bytes[..read] == wanted, "pread of {len} at {offset}");
        let (mut one, mut two) = (vec![0; len / 2], vec![0; len - len / 2]);
        let mut slices = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        let read = rustix::io::preadv(&file, &mut slices, offset).expect("preadv");
        assert!(
            [one, two].concat()[..read] == *wanted,
            "preadv of {len} at {offset}"
        );
    }
    // sendfile, copy_file_range, splice, and the pages by execution and mapping.
    let out = env.path("out");
    let mut target = File::create(&out).expect("a file");
    let mut sent = 0;
    while rustix::fs::sendfile(&target, &file, None, LARGE - sent).expect("sendfile") > 0 {
        sent = target.stream_position().expect("a position") as usize;
    }
    assert!(fs::read(&out).expect("a file") == wanted, "sendfile");
    let mut target = File::create(&out).expect("a file");
    let (mut from, mut to) = (0, 0);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &target, Some(&mut to), LARGE);
    match copied {
        Ok(copied) => assert!(
            fs::read(&out).expect("a file") == wanted[..copied],
            "copy_file_range"
        ),
        Err(error) => assert_eq!(error, rustix::io::Errno::XDEV),
    }
    target.seek(SeekFrom::Start(0)).expect("a seek");
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let mut offset = 4000;
    let moved = rustix::pipe::splice(
        file.as_fd(),
        Some(&mut offset),
        writer.as_fd(),
        None,
        10_000,
        rustix::pipe::SpliceFlags::empty(),
    );
    let mut bytes = vec![0; moved.expect("splice")];
    File::from(reader).read_exact(&mut bytes).expect("a pipe");
    assert!(
        !bytes.is_empty() && bytes == wanted[4000..4000 + bytes.len()],
        "splice"
    );
}

#[test]
fn seeks_find_the_data_and_its_end() {
    if !can_mount_all() {
        return;
    }
    let (_env, view) = mounted();
    let mut file = File::open(view.path().join("dir/large")).expect("a file");
    assert_eq!(
        file.seek(SeekFrom::End(-1)).expect("a seek"),
        LARGE as u64 - 1
    );
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(5));
    assert_eq!(data, Ok(5));
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(5)).expect("a hole");
    assert!(hole <= LARGE as u64, "the end is a hole");
    let past = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(LARGE as u64));
    assert_eq!(past, Err(rustix::io::Errno::NXIO));
}

#[test]
fn links_tell_their_targets_and_statx_what_stat_tells() {
    if !can_mount_all() {
        return;
    }
    let (env, view) = mounted();
    let (ours, tree) = (view.path(), env.path("tree"));
    for name in ["link", "longest"] {
        let read = |root: &Path| fs::read_link(root.join(name)).expect("a link");
        assert_eq!(read(ours), read(&tree));
        assert_eq!(
            fs::symlink_metadata(ours.join(name))
                .expect("a link")
                .size(),
            read(&tree).as_os_str().len() as u64
        );
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    for name in names(&tree) {
        let path = ours.join(&name);
        let stat = fs::symlink_metadata(&path).expect("metadata");
        let statx = rustix::fs::statx(CWD, &path, flags, StatxFlags::ALL).expect("statx");
        let kind = u32::from(statx.stx_mode);
        assert_eq!(
            (kind, statx.stx_size, statx.stx_ino),
            (stat.mode(), stat.size(), stat.ino())
        );
        assert_eq!((statx.stx_uid, statx.stx_gid), (stat.uid(), stat.gid()));
        assert!(
            statx.stx_nlink > 0 && statx.stx_blksize > 0,
            "{}",
            name.display()
        );
    }
}

#[test]
fn a_listing_goes_on_from_every_place_it_was_left_at() {
    if !can_mount_all() {
        return;
    }
    let (_env, view) = mounted();
    let dir = File::open(view.path().join("many")).expect("a directory");
    let whole = list(&dir, 0);
    let mut sorted: Vec<_> = whole.iter().map(|(name, _)| name.clone()).collect();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 502, "each name once, and the two dots");
    for (at, (name, cookie)) in whole.iter().enumerate().step_by(7) {
        let rest = list(&dir, *cookie);
        assert_eq!(rest, whole[at + 1..], "after {name:?}");
    }
}

/// Names from a position on, each with the position behind it.
fn list(dir: &File, from: u64) -> Vec<(Vec<u8>, u64)> {
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(from)).expect("a seek");
    // Small enough for many calls.
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut listing = RawDir::new(dir, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry.expect("an entry");
        found.push((
            entry.file_name().to_bytes().to_vec(),
            entry.next_entry_cookie(),
        ));
    }
    found
}

#[test]
fn programs_run_from_a_mount_that_nothing_else_has_looked_at() {
    if !can_mount_all() {
        return;
    }
    let (env, view) = mounted();
    // Execution maps the program: its pages are read by faults only.
    let output = Command::new(view.path().join("sh"))
        .args(["-c", "exec ./cat dir/large"])
        .current_dir(view.path())
        .output()
        .expect("a program");
    assert!(output.status.success() && output.stdout == content(LARGE));
    let interpreted = env.path("tree/script");
    assert!(
        !interpreted.exists(),
        "what is new in the tree is not in the commit"
    );
}

/// The numbers of `name_to_handle_at` and `open_by_handle_at`.
const HANDLES: Option<(u32, u32)> = if cfg!(target_arch = "x86_64") {
    Some((303, 304))
} else if cfg!(target_arch = "aarch64") {
    Some((264, 265))
} else {
    None
};

#[test]
fn files_open_by_their_handles() {
    let Some((name_to_handle, open_by_handle)) = HANDLES else {
        println!("skipped: the numbers of the system calls are not known here");
        return;
    };
    if !can_mount_all() || !have("perl") {
        return;
    }
    let (_env, view) = mounted();
    let script = format!(
        "my ($mount, $path) = @ARGV; my $handle = pack('Ii', 128, 0) . chr(0) x 128; \
         my $id = pack('i', 0); my $name = $path . chr(0); \
         syscall({name_to_handle}, -100, $name, $handle, $id, 0) == 0 or die \"name: $!\"; \
         open(my $root, '<', $mount) or die \"mount: $!\"; \
         my $fd = syscall({open_by_handle}, fileno($root), $handle, 0); \
         $fd >= 0 or die \"open: $!\"; open(my $file, '<&=', $fd) or die; binmode($file); \
         print while <$file>;"
    );
    let path = view.path().join("dir/large");
    let output = Command::new("perl")
        .args(["-e", &script])
        .arg(view.path())
        .arg(&path)
        .output();
    let output = output.expect("perl");
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Operation not supported") {
        println!("skipped: this mount gives no handles: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    assert!(output.stdout == content(LARGE));
}

#[test]
fn blocks_that_fio_wrote_before_the_commit_are_verified_by_it_read_and_mapped() {
    if !can_mount_all() || !have("fio") {
        return;
    }
    let env = Env::new();
    fs::create_dir(env.path("tree")).expect("a directory");
    let fio = |file: &Path, args: &[&str]| {
        let mut command = Command::new("fio");
        command.args(["--name=blocks", "--size=8M", "--bs=4k", "--verify=crc32c"]);
        command
            .args(["--randseed=7", "--thread", "--minimal"])
            .args(args);
        command.arg(format!("--filename={}", file.display()));
        let output = command.current_dir(env.path(".")).output().expect("fio");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
    };
    fio(
        &env.path("tree/blocks"),
        &["--rw=randwrite", "--do_verify=0", "--ioengine=psync"],
    );
    env.ok(&["commit", "-q", "-b", "fio", "--tree=dir=tree"]);
    for engine in ["--ioengine=mmap", "--ioengine=psync"] {
        // Each engine meets a mount of which nothing is cached.
        let view = View::commit(&env, "fio", "mnt");
        fio(
            &view.path().join("blocks"),
            &["--rw=randread", "--readonly", engine],
        );
    }
}
