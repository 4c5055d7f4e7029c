"""Files in a bucket of S3 or a container of Azure Blob Storage.

The client is obstore, one for both. What it cannot do is done with the vendors' own libraries, which are optional and
loaded when they are needed: making a bucket or container private, and removing parts of broken uploads.

What is stored
--------------
A file is one object under its key. Content type, encoding and cache control are its headers of the same names, the
metadata of the caller are the object's, percent-encoded, and so is the SHA-256 (``data_layer_sha256``). Keys below
``.storage/`` are our own: no key of a caller can begin with a dot.

- Up to 8 MiB are sent in one request, with everything in it. Of more, four parts of 8 MiB are sent at a time, and
  become visible together. Metadata has to be sent before the first part: the SHA-256 of a stream is not known then,
  unless the caller knows it. Files are read twice for it.
- Conditions are headers of the one request. Parts have none in obstore, so up to 64 MiB are held in memory and sent in
  one request where a condition is set, and more is refused.
- Servers that resemble S3 may ignore conditions. Before the first one a probe tries whether they are kept.
- An upload that is cancelled stops its source, and waits up to five seconds until the parts are removed. What a killed
  process leaves behind, `remove_abandoned_uploads` removes (S3), or the server does after a week (Azure).
"""
