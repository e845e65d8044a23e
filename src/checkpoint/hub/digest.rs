//! The two hashes that the Hub uses as names for a file's content.

use ring::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};

/// SHA-256 of a file's content, in lower-case hexadecimal.
pub(super) fn sha256_hex(file: &File) -> Result<String> {
    Ok(hex(&digest(Context::new(&SHA256), file)?))
}

/// git's name for a file's content: SHA-1 of `blob SIZE\0` and the content, in lower-case hexadecimal.
pub(super) fn git_blob_hex(file: &File) -> Result<String> {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
    Ok(hex(&digest(context, file)?))
}

fn digest(mut context: Context, mut file: &File) -> Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(context.finish()),
            read => context.update(&buffer[..read]),
        }
    }
}

/// A digest in lower-case hexadecimal.
pub(crate) fn hex(digest: &Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"hello\n").unwrap();
        let file = File::open(path).unwrap();
        assert_eq!(sha256_hex(&file).unwrap(), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        // `printf 'hello\n' | git hash-object --stdin`
        assert_eq!(git_blob_hex(&file).unwrap(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
