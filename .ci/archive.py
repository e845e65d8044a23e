"""Pack a folder into an archive that depends on nothing but its contents, and write the archive's checksum beside it.

    python3 archive.py FOLDER ARCHIVE.tar.gz|ARCHIVE.zip

Names are sorted, times are 1980-01-01 (the first that zip can store), and owners are left out, so the same files give the
same bytes on every system.
"""

import gzip
import hashlib
import io
import pathlib
import sys
import tarfile
import zipfile

EPOCH = (1980, 1, 1, 0, 0, 0)
EPOCH_SECONDS = 315532800


def tar_gz(folder, files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in files:
            entry = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
            entry.size = path.stat().st_size
            entry.mode = mode(path)
            entry.mtime = EPOCH_SECONDS
            with path.open("rb") as content:
                tar.addfile(entry, content)
    return gzip.compress(packed.getvalue(), compresslevel=9, mtime=0)


def zipped(folder, files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), EPOCH)
            entry.create_system = 3
            entry.external_attr = mode(path) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return packed.getvalue()


def mode(path):
    return 0o755 if path.stem == "agnews" and path.suffix in ("", ".exe") else 0o644


def main(folder, archive):
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.as_posix())
    packed = (zipped if archive.suffix == ".zip" else tar_gz)(folder, files)
    archive.write_bytes(packed)
    checksum = f"{hashlib.sha256(packed).hexdigest()}  {archive.name}\n"
    archive.with_name(archive.name + ".sha256").write_text(checksum, newline="\n")
    print(f"{archive.name}: {len(packed):,} bytes")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve())
