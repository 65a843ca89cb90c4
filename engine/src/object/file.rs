//! Metadata of files and the hash that names them.

use std::borrow::Cow;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::id::{ObjectId, PayloadId};
use crate::object::gvariant::{Frame, Part, Tuple};
use crate::object::{DecodeError, Xattrs};

const TYPE: u32 = 0o170000;
const REGULAR: u32 = 0o100000;
const SYMLINK: u32 = 0o120000;

/// Metadata of a regular file or symbolic link, `(uuuusa(ayay))`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHeader {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Full `st_mode`, type bits included. Symbolic links are [`SYMLINK_MODE`](Self::SYMLINK_MODE)
    /// if they come from a file system; `ostree commit --tree=tar` keeps what the archive says.
    pub mode: u32,
    /// Target of a symbolic link, empty for regular files.
    pub symlink_target: Vec<u8>,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl FileHeader {
    /// Mode of every symbolic link that this program makes.
    pub const SYMLINK_MODE: u32 = 0o120777;

    /// Whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.mode & TYPE == SYMLINK
    }

    /// The header variant.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tuple = Frame::with_capacity(32 + self.symlink_target.len(), 2);
        for field in [self.uid, self.gid, self.mode, 0] {
            tuple.fixed(4, &field.to_be_bytes());
        }
        tuple.variable(1, &[&self.symlink_target, [0].as_slice()].concat());
        tuple.variable(1, &self.xattrs.to_bytes());
        tuple.into_tuple()
    }

    /// Parses a header variant (strict normal form; mode and xattr rules are checked).
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not in normal form or [`check`](Self::check) fails.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(Tuple::new(Part::whole(bytes), 1)?)
    }

    /// What both kinds of header end with.
    fn read(mut tuple: Tuple<'_>) -> Result<Self, DecodeError> {
        let (uid, gid, mode) = (tuple.u32_be()?, tuple.u32_be()?, tuple.u32_be()?);
        let rdev = tuple.u32_be()?;
        let symlink_target = tuple.variable(1)?.text()?.as_bytes().to_vec();
        let xattrs = Xattrs::read(tuple.last(1)?)?;
        if rdev != 0 {
            return Err(DecodeError::Rule("a file has a device number"));
        }
        let header = Self {
            uid,
            gid,
            mode,
            symlink_target,
            xattrs,
        };
        header.check()?;
        Ok(header)
    }

    /// Parses the header variant of an archive repository's object files, `(tuuuusa(ayay))`; gives
    /// the declared size of the payload, too.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if a symbolic link declares a payload.
    pub fn parse_archive(bytes: &[u8]) -> Result<(Self, u64), DecodeError> {
        let mut tuple = Tuple::new(Part::whole(bytes), 1)?;
        let size = u64::from_be_bytes(tuple.fixed(8, 8)?.array()?);
        let header = Self::read(tuple)?;
        if header.is_symlink() && size > 0 {
            return Err(DecodeError::Rule("a symbolic link has content"));
        }
        Ok((header, size))
    }

    /// Parses what bare-user repositories keep in an extended attribute, `(uuua(ayay))`. The target
    /// of a symbolic link is not in it, so that nothing but its own form is checked.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not in normal form.
    pub fn parse_bare_user(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut tuple = Tuple::new(Part::whole(bytes), 0)?;
        let (uid, gid, mode) = (tuple.u32_be()?, tuple.u32_be()?, tuple.u32_be()?);
        let xattrs = Xattrs::read(tuple.last(1)?)?;
        Ok(Self {
            uid,
            gid,
            mode,
            symlink_target: Vec::new(),
            xattrs,
        })
    }

    /// What [`parse_bare_user`](Self::parse_bare_user) parses.
    pub fn to_bare_user(&self) -> Vec<u8> {
        let mut tuple = Frame::with_capacity(16, 1);
        for field in [self.uid, self.gid, self.mode] {
            tuple.fixed(4, &field.to_be_bytes());
        }
        tuple.variable(1, &self.xattrs.to_bytes());
        tuple.into_tuple()
    }

    /// Checks the rules for mode and target.
    ///
    /// # Errors
    /// [`DecodeError::Rule`] if this is neither a regular file nor a symbolic link, the mode has
    /// unknown bits, or the target does not fit the type.
    pub fn check(&self) -> Result<(), DecodeError> {
        let rule = match (self.mode & !0o7777, self.symlink_target.is_empty()) {
            (REGULAR, true) | (SYMLINK, false) => return Ok(()),
            (REGULAR, false) => "a regular file has a symbolic link's target",
            (SYMLINK, true) => "a symbolic link has no target",
            _ => "the mode is neither a regular file's nor a symbolic link's",
        };
        Err(DecodeError::Rule(rule))
    }

    /// The bytes hashed before the payload: big-endian header length, four zero bytes, header.
    pub fn content_prefix(&self) -> Vec<u8> {
        let header = self.to_bytes();
        let len = u32::try_from(header.len()).unwrap_or(u32::MAX);
        [&len.to_be_bytes(), [0; 4].as_slice(), &header].concat()
    }

    /// What an object file of an archive repository begins with: big-endian length, four zero bytes,
    /// and the header variant `(tuuuusa(ayay))`, which has the size of the payload in front.
    pub fn archive_prefix(&self, size: u64) -> Vec<u8> {
        let mut tuple = Frame::with_capacity(40 + self.symlink_target.len(), 2);
        tuple.fixed(8, &size.to_be_bytes());
        for field in [self.uid, self.gid, self.mode, 0] {
            tuple.fixed(4, &field.to_be_bytes());
        }
        tuple.variable(1, &[&self.symlink_target, [0].as_slice()].concat());
        tuple.variable(1, &self.xattrs.to_bytes());
        let header = tuple.into_tuple();
        let len = u32::try_from(header.len()).unwrap_or(u32::MAX);
        [&len.to_be_bytes(), [0; 4].as_slice(), &header].concat()
    }

    /// The same header with its extended attributes sorted.
    pub fn with_sorted_xattrs(&self) -> Cow<'_, Self> {
        match self.xattrs.sorted() {
            Cow::Borrowed(_) => Cow::Borrowed(self),
            Cow::Owned(xattrs) => Cow::Owned(Self {
                xattrs,
                ..self.clone()
            }),
        }
    }

    /// The forms of this header that a writer may have hashed: as given, sorted as all do since
    /// 2025.2, and with the SELinux label last as older ones did with labels of their own.
    pub fn hashed_forms(&self) -> Vec<Self> {
        let mut forms = vec![self.clone()];
        for xattrs in [
            self.xattrs.sorted().into_owned(),
            self.xattrs.with_label_last(),
        ] {
            if forms.iter().all(|form| form.xattrs != xattrs) {
                let form = self.clone();
                forms.push(Self { xattrs, ..form });
            }
        }
        forms
    }

    /// A hasher that has seen everything but the payload.
    pub fn hasher(&self) -> FileHasher {
        FileHasher(Sha256::new_with_prefix(self.content_prefix()))
    }

    /// The object's name, given its whole payload (empty for symbolic links).
    pub fn object_id(&self, payload: &[u8]) -> ObjectId {
        let mut hasher = self.hasher();
        hasher.update(payload);
        hasher.finish()
    }

    /// The object's name, its payload being read to the end.
    ///
    /// # Errors
    /// Those of `payload`.
    pub fn object_id_of(&self, payload: impl Read) -> io::Result<ObjectId> {
        let mut hasher = self.hasher();
        hash_to_end(payload, |bytes| hasher.update(bytes))?;
        Ok(hasher.finish())
    }

    /// A hasher for both forms of this header that may have been hashed.
    pub fn form_hasher(&self) -> FormHasher {
        let sorted = match self.with_sorted_xattrs() {
            Cow::Borrowed(_) => None,
            Cow::Owned(header) => Some(header),
        };
        let forms = [self.clone()].into_iter().chain(sorted);
        FormHasher(forms.map(|form| (form.hasher(), form)).collect())
    }

    /// The form of this header that `id` names with this payload, which is read to the end.
    ///
    /// # Errors
    /// Those of `payload`.
    pub fn named(&self, id: &ObjectId, payload: impl Read) -> io::Result<Option<Self>> {
        let mut hasher = self.form_hasher();
        hash_to_end(payload, |bytes| hasher.update(bytes))?;
        Ok(hasher.finish(id))
    }

    /// Whether `id` names a form of this header with this payload.
    ///
    /// # Errors
    /// Those of `payload`.
    pub fn is_named(&self, id: &ObjectId, payload: impl Read) -> io::Result<bool> {
        Ok(self.named(id, payload)?.is_some())
    }
}

fn hash_to_end(mut payload: impl Read, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match payload.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => sink(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Computes the name of a file object while its payload passes by.
#[derive(Debug, Clone)]
pub struct FileHasher(Sha256);

impl FileHasher {
    /// Adds the next bytes of the payload.
    pub fn update(&mut self, payload: &[u8]) {
        self.0.update(payload);
    }

    /// The name of the object.
    pub fn finish(self) -> ObjectId {
        ObjectId::from_bytes(self.0.finalize().into())
    }
}

/// Finds out which form of a header a name was made with, while the payload passes by: with the
/// extended attributes in their stored order, as writers before 2025.2 hashed them, or sorted.
#[derive(Debug, Clone)]
pub struct FormHasher(Vec<(FileHasher, FileHeader)>);

impl FormHasher {
    /// Adds the next bytes of the payload.
    pub fn update(&mut self, payload: &[u8]) {
        for (hasher, _) in &mut self.0 {
            hasher.update(payload);
        }
    }

    /// The form that has this name; `None` if none has.
    pub fn finish(self, id: &ObjectId) -> Option<FileHeader> {
        let mut forms = self.0.into_iter();
        forms.find_map(|(hasher, form)| (hasher.finish() == *id).then_some(form))
    }
}

/// A file as the store knows it: header, size and where the payload is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileObject {
    /// OSTree's name of the object.
    pub id: ObjectId,
    /// Metadata.
    pub header: FileHeader,
    /// Payload size in bytes; 0 for symbolic links.
    pub size: u64,
    /// Name of the payload; `None` for symbolic links and empty files.
    pub payload: Option<PayloadId>,
}
