//! Images against the objects they are made of, and against damage.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use grove_engine::PayloadId;
use grove_engine::object::Dirtree;
use proptest::prelude::*;

use super::build::Built;
use super::format::HEADER_SIZE;
use super::*;
use crate::inode::of_file;
use crate::view::Source;
use crate::view::fake::Fake;

fn build(fake: &Fake, commit: &ObjectId) -> Built {
    Built::new(fake, commit, None, &false.into()).unwrap()
}

fn image(fake: &Fake, commit: &ObjectId) -> Image {
    build(fake, commit).into_image().unwrap()
}

fn bytes(fake: &Fake, commit: &ObjectId) -> Vec<u8> {
    match image(fake, commit).bytes {
        Bytes::Memory(bytes) => bytes,
        Bytes::Mapped(_) => unreachable!(),
    }
}

/// A tree to be made.
#[derive(Debug, Clone, Default)]
struct Tree {
    /// Mode, content and whether it is a link.
    files: BTreeMap<String, (u32, Vec<u8>, bool)>,
    dirs: BTreeMap<String, Self>,
}

impl Tree {
    fn put(&self, fake: &Fake) -> ObjectId {
        let file = |(mode, content, link): &(u32, Vec<u8>, bool)| match link {
            true => fake.symlink(&format!("x{}", content.len())),
            false => fake.file(*mode, content, &[]),
        };
        let files: Vec<_> = self
            .files
            .iter()
            .filter(|(name, _)| !self.dirs.contains_key(*name))
            .map(|(name, described)| (name.as_str(), file(described)))
            .collect();
        let dirs: Vec<_> = self
            .dirs
            .iter()
            .map(|(name, tree)| (name.as_str(), tree.put(fake)))
            .collect();
        fake.dir(&files, &dirs)
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let name = "[a-c]{1,3}|\u{e9}t\u{e9}";
    let file = (
        prop::sample::select(vec![0o644, 0o4755, 0]),
        prop::collection::vec(0..3u8, 0..3),
        any::<bool>(),
    );
    let files = prop::collection::btree_map(name, file, 0..5);
    let leaf = files.clone().prop_map(|files| Tree {
        files,
        ..Tree::default()
    });
    leaf.prop_recursive(5, 60, 4, move |inner| {
        let dirs = prop::collection::btree_map(name, inner, 0..4);
        (files.clone(), dirs).prop_map(|(files, dirs)| Tree { files, dirs })
    })
}

/// Compares a directory and everything below it with the objects; gives back the next index.
fn assert_same(fake: &Fake, image: &Image, tree: &ObjectId, path: &str, index: u32) -> u32 {
    let dir = image.dir(index).unwrap();
    assert_eq!(image.tree(index).unwrap(), *tree);
    assert_eq!(image.dir_path(index).unwrap(), path);
    assert_eq!(image.dir_at(path).unwrap(), Some(index));
    let listing = fake.dirtree(tree).unwrap();
    assert_same_files(fake, image, &listing, index);
    let children: Vec<u32> = (0..dir.child_count())
        .map(|nth| image.child(&dir, nth).unwrap())
        .collect();
    assert_eq!(children.len(), listing.dirs.len());
    let mut next = index + 1;
    for (child, entry) in children.iter().zip(&listing.dirs) {
        assert_eq!(*child, next, "directories are in preorder");
        let found = image.dir(*child).unwrap();
        assert_eq!(found.parent, index);
        assert_eq!(image.dir_name(&found).unwrap(), entry.name);
        let looked_up = image.lookup(&dir, &entry.name).unwrap();
        assert_eq!(looked_up, Some(Child::Dir(*child)));
        let set = image.set(found.set).unwrap();
        let meta = fake.dirmeta(&entry.meta).unwrap();
        assert_eq!(
            (set.mode, set.uid, set.gid, set.meta),
            (meta.mode, meta.uid, meta.gid, entry.meta)
        );
        let below = match path {
            "" => entry.name.clone(),
            _ => format!("{path}/{}", entry.name),
        };
        next = assert_same(fake, image, &entry.tree, &below, *child);
    }
    for missing in ["", "aa0", "zz", "\u{e9}"] {
        assert_eq!(image.lookup(&dir, missing).unwrap(), None);
    }
    next
}

fn assert_same_files(fake: &Fake, image: &Image, listing: &Dirtree, index: u32) {
    let dir = image.dir(index).unwrap();
    assert_eq!(dir.files.len(), listing.files.len());
    for (at, (name, id)) in dir.files.clone().zip(&listing.files) {
        let row = image.file(at).unwrap();
        assert_eq!(image.file_name(&row).unwrap(), name);
        assert_eq!(row.number, of_file(id));
        assert_eq!(image.lookup(&dir, name).unwrap(), Some(Child::File(at)));
        assert_eq!(image.dir_of_file(at).unwrap(), index);
        let object = fake.file_now(id);
        let set = image.set(row.set.unwrap()).unwrap();
        let header = &object.header;
        assert_eq!(
            (set.mode, set.uid, set.gid),
            (header.mode, header.uid, header.gid)
        );
        let size = object.size.max(header.symlink_target.len() as u64);
        assert_eq!(row.size, size);
        let first = image.find(row.number).unwrap().unwrap();
        assert!(first <= at && image.file(first).unwrap().number == row.number);
        if let Some(payload) = &object.payload {
            let mut found = Vec::new();
            image.files_of(payload, |file| found.push(file)).unwrap();
            assert!(found.contains(&at) && found.is_sorted());
        }
    }
}

proptest! {
    #[test]
    fn an_image_says_what_the_objects_say(tree in trees()) {
        let fake = Fake::default();
        let root = tree.put(&fake);
        let commit = fake.commit(root, "");
        let image = image(&fake, &commit);
        prop_assert!(image.is_complete() && image.has_xattrs());
        let dirs = assert_same(&fake, &image, &root, "", 0);
        prop_assert_eq!(dirs, image.dirs());
        prop_assert!(image.find(77).unwrap().is_none());
    }

    #[test]
    fn an_image_made_out_of_another_one_says_the_same(old in trees(), new in trees()) {
        let fake = Fake::default();
        let old = fake.commit(old.put(&fake), "old");
        let base = Some(Arc::new(image(&fake, &old)));
        let root = new.put(&fake);
        let commit = fake.commit(root, "new");
        let built = Built::new(&fake, &commit, base, &false.into()).unwrap();
        let image = built.into_image().unwrap();
        prop_assert!(image.is_complete());
        let dirs = assert_same(&fake, &image, &root, "", 0);
        prop_assert_eq!(dirs, image.dirs());
    }
}

/// A commit whose image has several blocks.
fn sample() -> (Fake, ObjectId) {
    let fake = Fake::default();
    let mut tree = Tree::default();
    for n in 0..700u32 {
        let dir = tree.dirs.entry(format!("dir{}", n % 37)).or_default();
        let dir = dir.dirs.entry(format!("sub{}", n % 5)).or_default();
        let content = n.to_le_bytes()[..n as usize % 4].to_vec();
        dir.files.insert(
            format!("a long name {n}"),
            (0o600 + n % 8, content, n % 9 == 0),
        );
    }
    let root = tree.put(&fake);
    let commit = fake.commit(root, "");
    (fake, commit)
}

/// Everything that an image says, or that it is bad.
fn read_all(image: &Image) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for index in 0..image.dirs() {
        let dir = image.dir(index)?;
        let set = image.set(dir.set)?;
        let path = image.dir_path(index)?;
        said.push(format!("{path} {dir:?} {set:?} {}", image.tree(index)?));
        for nth in 0..dir.child_count().min(10_000) {
            said.push(image.child(&dir, nth)?.to_string());
        }
    }
    for index in 0..image.files() {
        let row = image.file(index)?;
        let name = image.file_name(&row)?;
        let dir = image.dir(image.dir_of_file(index)?)?;
        let set = row.set.map(|set| image.set(set)).transpose()?;
        said.push(format!(
            "{name} {row:?} {set:?} {:?}",
            image.lookup(&dir, name)?
        ));
    }
    for n in 0..50u32 {
        let payload = PayloadId::of(&n.to_le_bytes()[..n as usize % 4]);
        image.files_of(&payload, |file| said.push(file.to_string()))?;
    }
    Ok(said)
}

#[test]
fn any_damage_is_noticed_where_it_is_touched() {
    let (fake, commit) = sample();
    let good = bytes(&fake, &commit);
    assert!(good.len() > 3 * BLOCK_SIZE);
    let expected = read_all(&Image::in_memory(good.clone()).unwrap()).unwrap();
    let head = HEADER_SIZE + 8 * 8;
    for at in (0..head).chain((head..good.len()).step_by(211)) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        if let Ok(image) = Image::in_memory(bad)
            && let Ok(said) = read_all(&image)
        {
            assert_eq!(said, expected, "flipped at {at}");
            panic!("a flipped bit at {at} was not noticed");
        }
    }
    for len in (0..head).chain((head..good.len()).step_by(1013)) {
        assert!(
            Image::in_memory(good[..len].to_vec()).is_err(),
            "cut at {len}"
        );
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(Image::in_memory(longer).is_err());
}

/// An image of the same parts with sound checksums, whatever they say.
fn seal(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut sums = format::BlockSums::default();
    sums.add(body);
    let mut all = header.encode(&sums.finish());
    all.extend_from_slice(body);
    all
}

#[test]
fn a_forged_image_leads_nowhere_outside() {
    let (fake, commit) = sample();
    let good = bytes(&fake, &commit);
    let (header, layout) = Header::decode(&good).unwrap();
    let body = &good[layout.body()..];
    let mut refused = 0;
    let mut tried = 0;
    for at in (0..body.len() - 4).step_by(317) {
        for value in [1, u32::MAX, at as u32] {
            let mut forged = body.to_vec();
            forged[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let image = Image::in_memory(seal(&header, &forged)).unwrap();
            refused += u32::from(read_all(&image).is_err());
            tried += 1;
        }
    }
    assert!(refused * 4 > tried, "{refused} of {tried}");
    for value in [0, 1, 77, u32::MAX / 24, u32::MAX] {
        let fields: [fn(&mut Header) -> &mut u32; 6] = [
            |h| &mut h.dirs,
            |h| &mut h.files,
            |h| &mut h.sets,
            |h| &mut h.payloads,
            |h| &mut h.dir_names,
            |h| &mut h.file_names,
        ];
        for field in fields {
            let mut forged = header.clone();
            *field(&mut forged) = value;
            if let Ok(image) = Image::in_memory(seal(&forged, body)) {
                drop(read_all(&image));
            }
        }
    }
}

#[test]
fn only_a_complete_image_of_the_commit_itself_is_opened() {
    let (fake, commit) = sample();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    assert!(Image::open(&path, &commit).is_none());
    build(&fake, &commit).write(&path).unwrap();
    assert!(Image::open(&path, &commit).is_some());
    assert!(Image::open(&path, &ObjectId::of(b"other")).is_none());
    let tree = fake.commits.lock().unwrap()[&commit].tree;
    fake.dirtrees.lock().unwrap().remove(&tree);
    let built = build(&fake, &commit);
    assert!(!built.is_complete());
    built.write(&path).unwrap();
    assert!(Image::open(&path, &commit).is_none());
    fs::write(&path, b"").unwrap();
    assert!(Image::open(&path, &commit).is_none());
}

#[test]
fn of_a_similar_commit_only_what_has_changed_is_loaded() {
    let (fake, old) = sample();
    let tagged = fake.file(0o644, b"tagged", &[("user.tag", "1")]);
    let with_tag = fake.dir(&[("tagged", tagged)], &[]);
    let root = fake.commits.lock().unwrap()[&old].tree;
    let listing = fake.dirtree(&root).unwrap();
    let mut dirs: Vec<_> = listing
        .dirs
        .iter()
        .map(|d| (d.name.as_str(), d.tree))
        .collect();
    dirs.push(("tagged", with_tag));
    let tree = fake.dir(&[], &dirs);
    let (tagged, untagged) = (fake.bare_commit(tree), fake.bare_commit(root));
    let base = Arc::new(image(&fake, &old));
    let from = |base: &Arc<Image>, commit: &ObjectId| {
        fake.loads.lock().unwrap().clear();
        let base = Some(Arc::clone(base));
        let built = Built::new(&fake, commit, base, &false.into()).unwrap();
        let loads = fake.loads.lock().unwrap().len();
        (Arc::new(built.into_image().unwrap()), loads)
    };
    let (with, loads) = from(&base, &tagged);
    // Commit, two listings, one kind of directory, one file.
    assert_eq!(loads, 1 + 2 + 1 + 1);
    assert!(with.has_xattrs());
    assert_same(&fake, &with, &tree, "", 0);
    let (without, loads) = from(&with, &untagged);
    assert_eq!(loads, 1 + 1 + 1);
    assert!(!without.has_xattrs(), "what had them is gone");
    let (same, loads) = from(&without, &untagged);
    assert_eq!(loads, 1 + 1, "the commit and its root's metadata");
    assert_eq!(read_all(&same), read_all(&without));
}

#[test]
fn a_damaged_image_of_a_similar_commit_does_no_harm() {
    let (fake, commit) = sample();
    let tree = fake.commits.lock().unwrap()[&commit].tree;
    let good = bytes(&fake, &commit);
    let (header, layout) = Header::decode(&good).unwrap();
    let body = &good[layout.body()..];
    for at in (layout.dirs.start..layout.trees.start).step_by(1009) {
        let mut forged = body.to_vec();
        let at = at - layout.body();
        forged[at..at + 4].copy_from_slice(&[0xff; 4]);
        let sealed = Image::in_memory(seal(&header, &forged)).unwrap();
        let mut torn = good.clone();
        torn[layout.body() + at] ^= 1;
        let torn = Image::in_memory(torn).unwrap();
        for (base, is_sound) in [(sealed, false), (torn, true)] {
            let built = Built::new(&fake, &commit, Some(Arc::new(base)), &false.into()).unwrap();
            let image = built.into_image().unwrap();
            // A forged one may lie, but lead nowhere.
            match is_sound {
                true => drop(assert_same(&fake, &image, &tree, "", 0)),
                false => drop(read_all(&image)),
            }
        }
    }
}

#[test]
fn parts_that_cannot_be_read_are_marked_and_the_rest_is_there() {
    let fake = Fake::default();
    let (good, bad) = (fake.file(0o644, b"x", &[]), fake.file(0o600, b"y", &[]));
    let lost = fake.dir(&[("inside", good)], &[]);
    let kept = fake.dir(&[("bad", bad), ("good", good)], &[]);
    let root = fake.dir(
        &[("top", good)],
        &[("kept", kept), ("lost", lost), ("z", kept)],
    );
    let commit = fake.commit(root, "");
    fake.dirtrees.lock().unwrap().remove(&lost);
    fake.files.lock().unwrap().remove(&bad);
    let image = image(&fake, &commit);
    assert!(!image.is_complete());
    let at = |path: &str| image.dir(image.dir_at(path).unwrap().unwrap()).unwrap();
    assert!(!at("lost").is_known() && at("lost").files.is_empty());
    assert!(at("z").is_known());
    let sets: Vec<bool> = at("z")
        .files
        .map(|index| image.file(index).unwrap().set.is_some())
        .collect();
    assert_eq!(sets, [false, true]);
}

#[test]
fn two_files_whose_names_begin_alike_are_both_left_out() {
    let fake = Fake::default();
    let first = fake.file(0o644, b"x", &[]);
    let second = fake.alike(&first);
    let root = fake.dir(&[("first", first), ("second", second)], &[]);
    let image = image(&fake, &fake.commit(root, ""));
    assert!(!image.is_complete());
    let rows = (0..2).map(|index| image.file(index).unwrap());
    assert!(rows.into_iter().all(|row| row.set.is_none()));
}

#[test]
fn what_is_touched_does_not_grow_with_the_commit() {
    // The same 10^5 files in each of ten directories.
    let fake = Fake::default();
    let file = fake.file(0o644, b"x", &[]);
    let names: Vec<String> = (0..100_000).map(|n| format!("{n:06}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), file)).collect();
    let wide = fake.dir(&files, &[]);
    let dirs: Vec<_> = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
        .map(|name| (name, wide))
        .into();
    let commit = fake.commit(fake.dir(&[], &dirs), "");
    let built = build(&fake, &commit);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    built.write(&path).unwrap();
    let image = Image::open(&path, &commit).unwrap();
    assert_eq!((image.files(), image.dirs()), (1_000_000, 11));
    assert!(image.weight() < 1 << 14, "{}", image.weight());
    let touched = || -> u32 {
        let words = image.sound.iter();
        words
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum()
    };
    assert_eq!(touched(), 0);
    let wide = image.dir(image.dir_at("7").unwrap().unwrap()).unwrap();
    assert!(touched() <= 3, "{}", touched());
    for name in ["000000", "077777", "099999", "0"] {
        let found = image.lookup(&wide, name).unwrap();
        assert_eq!(found.is_some(), name.len() == 6, "{name}");
    }
    // A path through rows and one through names for each, most of it the same.
    assert!(touched() <= 3 + 4 * 2 * 17, "{}", touched());
}

/// The text of docs/format.md.
fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format.md");
    fs::read_to_string(path).unwrap()
}

#[test]
fn constants_are_as_documented() {
    let document = document();
    for (name, value) in [
        ("DIR_SIZE", DIR_SIZE),
        ("CHILD_SIZE", CHILD_SIZE),
        ("FILE_SIZE", FILE_SIZE),
        ("SET_SIZE", SET_SIZE),
        ("PAYLOAD_SIZE", PAYLOAD_SIZE),
        ("BLOCK_SIZE", BLOCK_SIZE),
        ("MAX_ENTRIES", format::MAX_ENTRIES as usize),
    ] {
        let row = format!("| `{name}` | {value} |");
        assert!(document.contains(&row), "{row}");
    }
}

#[test]
fn an_image_is_as_documented() {
    let fake = Fake::default();
    let id = |n: u8| ObjectId::from_bytes([n; 32]);
    let mut file = fake.file_now(&fake.file(0o644, b"hello", &[]));
    (file.id, file.payload) = (id(0xdd), Some(PayloadId::from_bytes([0xee; 32])));
    fake.files.lock().unwrap().insert(file.id, file);
    let meta = fake.meta(0o755, &[]);
    let meta = fake.dirmeta(&meta).unwrap();
    fake.metas.lock().unwrap().insert(id(0xcc), meta);
    let listing = Dirtree {
        files: vec![("f".to_owned(), id(0xdd))],
        dirs: Vec::new(),
    };
    fake.dirtrees
        .lock()
        .unwrap()
        .insert(id(0xbb), Arc::new(listing));
    let made = fake.commit(id(0xbb), "");
    let mut commit = fake.commits.lock().unwrap()[&made].clone();
    commit.meta = id(0xcc);
    fake.commits.lock().unwrap().insert(id(0xaa), commit);

    let hex: String = bytes(&fake, &id(0xaa))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let document = document();
    let (_, after) = document.split_once("```hexdump image\n").unwrap();
    let (shown, _) = after.split_once("```").unwrap();
    assert_eq!(shown.replace('\n', ""), hex);
}
