"""Files on a local disk, or on a disk that several machines share.

What is on the disk
-------------------
``images/photo.png`` is stored as the file ``images/photo.png`` with exactly the bytes that were uploaded, so that an
operator can look at it, copy it or serve it with any tool. Its metadata must change in the same instant as its bytes,
and a disk can swap one name at a time, so the metadata goes with the file:

- as an *extended attribute* (``user.data_layer``), set on the temporary file before it is renamed into place. One
  file, one rename: nothing can come between. This is the normal way on Linux;
- where the file system has no room for it (NFS before 4.2, SMB, macOS under Python), in a *sidecar* under
  ``.storage/metadata``. A sidecar names the version of the file that it describes, by size and modification time, and
  is written before that version becomes visible, together with what describes the version still in place. Whichever
  of the two a reader opens, it finds the right description.

The alternatives were weighed: a header or trailer inside the file is portable, but then the file is not the picture
any more; content-addressed objects behind pointer files hide the names. Sidecars alone would do, but cost a second
file to sync: three fifths of the speed.

Metadata counts only for the size and the modification time that it was written for. A file that was edited or put
there by hand is served with a content type guessed from its name, without a hash and without metadata. A backup keeps
everything if it keeps times to the nanosecond and extended attributes (``rsync -aX``, ``cp -a``, ``tar --xattrs``).

``.storage/temporary`` holds what is being written; no key can begin with a dot, so none can reach in there. Folders
have mode 0700 and files 0600. Symbolic links inside the folder are never followed.
"""

from data_layer.storage.local.adapter import LocalStorage

__all__ = ["LocalStorage"]
