//! The bodies of the fuzz targets on inputs from a generator with fixed seeds, so that they run
//! with every toolchain.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use grove_engine::ObjectId;
use grove_engine::object::{
    Commit, DirEntry, DirMeta, Dirtree, FileHeader, Metadata, Variant, Xattrs,
};

const ROUNDS: usize = 20_000;

/// Xorshift: small and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 8] = [0, 1, 2, 8, 0x20, 0x7f, 0x80, 0xff];
        match self.below(2) {
            0 => TELLING[self.below(TELLING.len())],
            _ => self.below(256) as u8,
        }
    }

    /// Changes, inserts, removes and repeats some bytes.
    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 | 1 if !bytes.is_empty() => bytes[at] = self.byte(),
                2 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                4 => {
                    let end = at + self.below(bytes.len() - at);
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                5 if self.below(4) == 0 => bytes.truncate(at),
                _ => bytes.insert(at, self.byte()),
            }
        }
        bytes
    }
}

fn run(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    run_rounds(target, seeds, ROUNDS);
}

fn run_rounds(target: impl Fn(&[u8]), seeds: &[Vec<u8>], rounds: usize) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in seeds {
        target(seed);
        for _ in 0..rounds / seeds.len() {
            let mut input = random.mutate(seed);
            target(&input);
            // A second step keeps inputs that are nearly right in play.
            input = random.mutate(&input);
            target(&input);
        }
    }
}

fn id(byte: u8) -> ObjectId {
    ObjectId::from_bytes([byte; 32])
}

fn xattrs() -> Xattrs {
    let label = b"system_u:object_r:usr_t:s0\0".to_vec();
    Xattrs::from_unsorted(vec![
        (b"user.a".to_vec(), b"1".to_vec()),
        (b"security.selinux".to_vec(), label),
    ])
}

const TEXTS: [&str; 6] = [
    "{'a': <1>, \"b\": <@as []>, 'c': <[uint64 5, 0x10]>}",
    "[('a', 'b\\n\\u00e9'), (\"c\", '')]",
    "(true, b'x\\377', 1.5e10, nothing, just -3)",
    "[[], [byte 1, 2]]",
    "@a{sv} {}",
    "objectpath '/a/b'",
];

#[test]
fn fuzz_commit() {
    let mut metadata = Metadata::default();
    metadata.push("version", Variant::string("1.0"));
    metadata.push("flag", Variant::bool(true));
    metadata.push("number", Variant::u64(5));
    metadata.push("rows", Variant::string_tuples([["a", "b"], ["c", ""]]));
    for text in &TEXTS[..2] {
        metadata.push(
            "text",
            Variant::from_text(text).expect("because the text is well-formed"),
        );
    }
    let commit = Commit {
        metadata,
        parent: Some(id(1)),
        subject: "subject".into(),
        body: String::new(),
        timestamp: 1_700_000_000,
        tree: id(2),
        meta: id(3),
    };
    let small = Commit {
        metadata: Metadata::default(),
        parent: None,
        ..commit.clone()
    };
    run(targets::commit, &[commit.to_bytes(), small.to_bytes()]);
}

#[test]
fn fuzz_dirtree() {
    let files = |count: u32| (0..count).map(|n| (format!("f{n:03}"), id(7))).collect();
    let dirs = vec![DirEntry {
        name: "d".into(),
        tree: id(8),
        meta: id(9),
    }];
    let tree = Dirtree {
        files: files(3),
        dirs,
    };
    let large = Dirtree {
        files: files(20),
        dirs: vec![],
    };
    run(
        targets::dirtree,
        &[tree.to_bytes(), large.to_bytes(), vec![]],
    );
}

#[test]
fn fuzz_dirmeta() {
    let meta = DirMeta {
        uid: 0,
        gid: 1,
        mode: 0o040755,
        xattrs: xattrs(),
    };
    let plain = DirMeta {
        xattrs: Xattrs::default(),
        ..meta.clone()
    };
    run(targets::dirmeta, &[meta.to_bytes(), plain.to_bytes()]);
}

#[test]
fn fuzz_file_header() {
    let file = FileHeader {
        uid: 0,
        gid: 0,
        mode: 0o100644,
        symlink_target: vec![],
        xattrs: xattrs(),
    };
    let link = FileHeader {
        mode: FileHeader::SYMLINK_MODE,
        symlink_target: b"../target".to_vec(),
        ..file.clone()
    };
    run(targets::file_header, &[file.to_bytes(), link.to_bytes()]);
}

#[test]
fn fuzz_variant_text() {
    run(
        targets::variant_text,
        &TEXTS.map(|text| text.as_bytes().to_vec()),
    );
}

/// The files of a small repository, by what they are.
fn repository_files() -> [Vec<Vec<u8>>; 3] {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("text"), "a few words ".repeat(100)).unwrap();
    std::fs::write(tree.join("other"), "more").unwrap();
    let repo = grove_engine::Repository::init(&dir.path().join("repo")).unwrap();
    super::support::commit_dir(&repo, "os/a", &tree).unwrap();
    repo.reindex(&grove_engine::Silent).unwrap();
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let packs = super::support::packs(repo.path())
        .into_iter()
        .map(read)
        .collect();
    let index = read(repo.path().join("index/objects.idx"));
    let doomed = b"grove-doomed 1\n00112233445566778899aabbccddeeff\nend\n".to_vec();
    let refs = read(repo.path().join("refs"));
    [packs, vec![index], vec![refs, doomed, b"GROVEST2".to_vec()]]
}

#[test]
fn fuzz_repository_files() {
    let [packs, index, small] = repository_files();
    run(targets::pack, &packs);
    run(targets::index, &index);
    run(targets::small_files, &small);
    let header = FileHeader {
        uid: 0,
        gid: 0,
        mode: 0o100_644,
        symlink_target: Vec::new(),
        xattrs: xattrs(),
    };
    let record = [[0; 40].to_vec(), header.to_bytes()].concat();
    let import = [1u64.to_le_bytes().to_vec(), vec![7; 32], b"rest".to_vec()].concat();
    run(targets::records, &[record, import]);
}

/// gzip files and zstd frames, one of them with other blocks than our encoder's; each as a payload
/// and as a recipe with its plain bytes. Each round compresses, so there are fewer.
#[test]
fn fuzz_recoding() {
    let text = |i: u32| {
        let i = i.wrapping_mul(2_654_435_761);
        format!("{}{} ", TEXTS[i as usize >> 20 & 3], i >> 27).into_bytes()
    };
    let plain: Vec<u8> = (0..600).flat_map(text).collect();
    let mut payloads = Vec::new();
    for level in [1, 9] {
        let level = flate2::Compression::new(level);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        payloads.push(encoder.finish().unwrap());
    }
    payloads.push(zstd::bulk::compress(&plain, 7).unwrap());
    let mut other = zstd::bulk::Compressor::new(7).unwrap();
    other
        .set_parameter(zstd::zstd_safe::CParameter::TargetCBlockSize(1340))
        .unwrap();
    payloads.push(other.compress(&plain).unwrap());
    let recipes: Vec<_> = payloads
        .iter()
        .filter_map(|payload| grove_engine::fuzz::recoding_seed(payload))
        .collect();
    assert_eq!(recipes.len(), payloads.len());
    assert!(recipes[3].len() > recipes[2].len() + 50, "no corrections");
    run_rounds(targets::recoding, &payloads, 400);
    run_rounds(targets::recoding, &recipes, 4_000);
}

/// A whole delta, and its sections of contents.
#[test]
fn fuzz_own_delta() {
    let scene = super::own_delta::Scene::new(super::own_delta::make_trees);
    let file = std::fs::read(scene.delta("update.delta").0).unwrap();
    let sections = super::own_delta_damage::sections(&file).into_iter();
    let contents = sections.filter(|(kind, _)| *kind == 3);
    let mut seeds: Vec<Vec<u8>> = contents.map(|(_, range)| file[range].to_vec()).collect();
    seeds.push(file);
    run_rounds(targets::own_delta, &seeds, 600);
}

/// A static delta in a directory, and one with its parts in the superblock; of files that are whole,
/// patched, and spliced.
fn static_deltas(scene: &super::own_delta::Scene) -> [std::path::PathBuf; 2] {
    use grove_engine::ops::static_delta::{DeltaName, GenerateOptions, generate};
    let name = DeltaName {
        from: Some(scene.old),
        to: scene.new,
    };
    [("parts", false), ("inline", true)].map(|(dir, inline)| {
        let dir = scene.path(dir);
        std::fs::create_dir(&dir).unwrap();
        let mut options = GenerateOptions::default();
        options.inline = inline;
        options.big_endian = inline;
        options.output = Some(dir.join("superblock"));
        generate(&scene.repo, name, &options, &grove_engine::Silent).unwrap();
        dir
    })
}

fn small_trees(root: &std::path::Path) {
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let text = super::support::noise(1, 3000);
    let moved = [&text[2000..], &text[..2000]].concat();
    let mut patched = text.clone();
    patched.iter_mut().step_by(100).for_each(|byte| *byte ^= 1);
    write("a/usr/spliced", &text);
    write("b/usr/spliced", &moved);
    write("a/usr/patched", &text);
    write("b/usr/patched", &patched);
    write("b/usr/new", b"a few words");
    std::os::unix::fs::symlink("new", root.join("b/usr/link")).unwrap();
}

#[test]
fn fuzz_static_deltas() {
    let scene = super::own_delta::Scene::new(small_trees);
    let dirs = static_deltas(&scene);
    let read = |dir: &std::path::PathBuf| std::fs::read(dir.join("superblock")).unwrap();
    let mut superblocks = dirs.each_ref().map(read).to_vec();
    // With no signatures around it: a number, the superblock, and where that ends.
    let mut signed = [b"OSTSGNDT".as_slice(), &superblocks[0]].concat();
    let end = u16::try_from(signed.len()).unwrap();
    signed.resize(signed.len().next_multiple_of(8), 0);
    signed.extend_from_slice(&end.to_le_bytes());
    superblocks.push(signed);
    run_rounds(targets::static_superblock, &superblocks, 6_000);
    let parts = dirs.each_ref().map(|dir| {
        let seeds = grove_engine::fuzz::static_part_seeds(dir);
        seeds.unwrap()
    });
    assert_eq!(parts[0], parts[1]);
    let part = |data: &[u8]| targets::static_part(&scene.repo, data);
    run_rounds(part, &parts[0], 6_000);
    // As files.
    let file = std::fs::read(dirs[0].join("0")).unwrap();
    run_rounds(part, &[file], 600);
}

/// Objects of archives, some of their content stored and some compressed, and configurations.
#[test]
fn fuzz_foreign_files() {
    let header = |mode, target: &[u8]| FileHeader {
        uid: 0,
        gid: 0,
        mode,
        symlink_target: target.to_vec(),
        xattrs: xattrs(),
    };
    let content = b"a few words ".repeat(20);
    let filez = |level| {
        let level = flate2::Compression::new(level);
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
        std::io::Write::write_all(&mut encoder, &content).unwrap();
        let prefix = header(0o100_644, b"").archive_prefix(content.len() as u64);
        [prefix, encoder.finish().unwrap()].concat()
    };
    let link = header(FileHeader::SYMLINK_MODE, b"../target").archive_prefix(0);
    let config =
        "# of ours\n[core]\nrepo_version=1\nmode = bare\n\n[remote \"a\"]\nurl=http://x/?a=b\n";
    let seeds = [filez(0), filez(6), link, config.as_bytes().to_vec()];
    run(targets::foreign_files, &seeds);
}
