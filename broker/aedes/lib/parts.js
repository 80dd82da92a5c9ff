// Long lists in several requests: the service takes 256 KiB at once, and a client id of 256 bytes may be six times that
// in JSON.

const MAX_BYTES = 96 * 1024 // of one list; a request may hold two

/** How many of the first `entries` go into one request: `most`, or fewer where they are long; one at least. */
export function fitting (entries, most) {
  let bytes = 0
  let count = 0
  for (const entry of entries) {
    bytes += Buffer.byteLength(JSON.stringify(entry)) + 1
    if (count === most || (count > 0 && bytes > MAX_BYTES)) break
    count += 1
  }
  return count
}
